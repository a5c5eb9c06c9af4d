package page

import (
	"fmt"
	"html/template"
	"path"
	"slices"
	"strings"
	"time"
)

// view is what the template sees: words and coordinates.
type view struct {
	Style  template.CSS
	Script template.JS

	Name, Tone, Headline, Lead, Reason, Remedy string
	Now, Since                                 moment
	NotProtectedSince                          *moment
	Moved                                      bool // the state has changed since then, or there is a way back
	Alarms                                     []alarm

	Plot   plot
	Fresh  fact
	Behind []fact

	Restore  fact
	Restores []fact

	Line      line
	Window    fact
	Snapshots []snapshot
	More      int    // snapshots that are not listed
	Running   string // "" for none

	Journal []entry
	Place   []fact
	Stored  fact
	Kinds   []holding
	Version string
}

// moment is a time for people and for machines.
type moment struct{ ISO, Text, Ago, For string }

// alarm is a line below the headline.
type alarm struct{ What, Why, Since string }

// fact is a figure with its name; Missing says that it is not known.
type fact struct {
	Name, Value, Note string
	Missing, Code     bool
}

type snapshot struct {
	Name, Kind, Size string
	Taken            moment
}

type entry struct {
	Time  moment
	Event string
	Attrs []Attr
}

// holding is a Holding in words.
type holding struct{ Kind, Class, Objects, Size string }

const listed = 8 // snapshots at most

func see(s Status) view {
	v := view{Name: name(s.Archive), Reason: s.Reason, Version: s.Version, Now: at(s.Now, s.Now), Since: at(s.Since, s.Now), Moved: true}
	w := wordsFor(s.State)
	v.Tone, v.Headline, v.Lead, v.Remedy = w.tone, w.headline, w.lead, w.remedy
	if s.NotProtectedSince != nil {
		m := at(*s.NotProtectedSince, s.Now)
		v.NotProtectedSince, v.Moved = &m, s.Since.Sub(*s.NotProtectedSince).Abs() >= time.Second
		if v.Tone == toneQuiet {
			v.Tone = toneBad
		}
	}
	v.alarms(s)
	v.freshness(s)
	v.restores(s)
	v.window(s)
	for _, e := range slices.Backward(s.Journal) {
		said := slices.DeleteFunc(slices.Clone(e.Attrs), func(a Attr) bool { return a.Value == "" })
		v.Journal = append(v.Journal, entry{Time: at(e.Time, s.Now), Event: strings.ReplaceAll(e.Event, "_", " "), Attrs: said})
	}
	v.place(s)
	v.stored(s)
	return v
}

// name is the last part of the archive's root, which is the database's.
func name(archive string) string {
	_, root, ok := strings.Cut(archive, "://")
	if !ok || strings.Trim(root, "/") == "" {
		return "this database"
	}
	return path.Base(root)
}

func (v *view) alarms(s Status) {
	if s.Release != nil {
		a := alarm{What: "This machine is going to be taken away", Why: "It is released at " + at(*s.Release, s.Now).Text + "."}
		if left := s.Release.Sub(s.Now); left > 0 {
			a.Since = "in " + duration(left)
		}
		v.Alarms = append(v.Alarms, a)
	}
	for _, t := range s.Troubles {
		a := alarm{What: t.What, Why: t.Why}
		if !t.Since.IsZero() {
			a.Since = "since " + at(t.Since, s.Now).Text
		}
		v.Alarms = append(v.Alarms, a)
	}
}

func (v *view) freshness(s Status) {
	v.Plot = draw(s)
	v.Fresh = span("Oldest commit that is not in the archive", s.Age)
	if s.Age != nil {
		v.Fresh.Note = "old at most; the target is " + duration(s.Target)
		if *s.Age == 0 {
			v.Fresh.Value, v.Fresh.Note = "0 s", "nothing is waiting; the target is "+duration(s.Target)
		}
	}
	v.Behind = []fact{
		size("Not in the archive yet", s.Unshipped), size("Not flushed by Postgres", s.NotFlushed), size("Kept for the archive", s.Backlog),
		size("Free where WAL lies", s.DiskFree),
	}
	if s.DiskFull != nil {
		v.Behind = append(v.Behind, fact{Name: "Full, if the archive stays away", Value: "in " + duration(*s.DiskFull)})
	}
}

func (v *view) restores(s Status) {
	v.Restore = span("To the first write", s.Restore)
	if s.Restore != nil {
		v.Restore.Value = "about " + duration(s.Restore.Round(time.Second))
		verdict := "within the target of "
		if *s.Restore > s.RestoreTarget {
			verdict = "longer than the target of "
		}
		v.Restore.Note = "to the first write; " + verdict + duration(s.RestoreTarget)
	}
	if r := s.Restored; r != nil {
		v.Restores = append(v.Restores, fact{
			Name: "This server came out of a restore", Value: duration(r.Finished.Sub(r.Started)),
			Note: "from " + r.Snapshot + ", over at " + at(r.Finished, s.Now).Text,
		})
	}
	if d := s.Drill; d != nil {
		f := fact{Name: "Last restore drill that was passed", Value: "none yet", Missing: true}
		if d.Passed != nil {
			m := at(*d.Passed, s.Now)
			f = fact{Name: f.Name, Value: m.Ago, Note: "at " + m.Text + ", up to " + d.LSN + ", answered after " + duration(d.Answered)}
		}
		v.Restores = append(v.Restores, f)
	}
	for _, p := range s.StopPhases {
		v.Restores = append(v.Restores, fact{Name: "Stop, " + p.Name, Value: duration(p.Took)})
	}
}

func (v *view) place(s Status) {
	code := func(name, value string) fact { return fact{Name: name, Value: value, Missing: value == "", Code: true} }
	number := func(name string, n uint64) fact {
		f := fact{Name: name, Missing: n == 0}
		if n != 0 {
			f.Value = fmt.Sprint(n)
		}
		return f
	}
	epoch := number("Epoch", s.Epoch)
	if s.EpochConfirmed != nil {
		epoch.Note = "confirmed " + at(*s.EpochConfirmed, s.Now).Ago
	}
	v.Place = []fact{
		code("Durable up to", s.Durable), code("Flushed up to", s.Flushed), code("Inserted up to", s.Inserted),
		epoch, number("Timeline", uint64(s.Timeline)), code("System identifier", s.SystemID), code("Archive", s.Archive),
	}
}

func (v *view) stored(s Status) {
	v.Stored = fact{Name: "In the archive", Missing: len(s.Holdings) == 0}
	var bytes, objects int64
	for _, h := range s.Holdings {
		bytes, objects = bytes+h.Bytes, objects+h.Objects
		v.Kinds = append(v.Kinds, holding{Kind: h.Kind, Class: h.Class, Objects: count(h.Objects), Size: bytesText(h.Bytes)})
	}
	if !v.Stored.Missing {
		v.Stored.Value, v.Stored.Note = bytesText(bytes), "in "+plural(objects, "object")
	}
}
