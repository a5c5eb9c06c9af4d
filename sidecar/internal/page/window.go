package page

import (
	"slices"
	"time"
)

// line is the recovery window: from its begin to what is durable, with its snapshots.
type line struct {
	Known   bool
	Marks   []mark
	X       []tick
	Begin   string // of what can be restored, in per cent
	Width   string // of it
	Summary string
}

type mark struct {
	X, Title string
	Delta    bool
}

func (v *view) window(s Status) {
	v.Window = fact{Name: "Every moment since", Value: unknown, Missing: true}
	if r := s.Running; r != nil {
		v.Running = "A snapshot is being taken since " + clock(r.Since) + ": " + bytesText(r.Done)
		if r.Total > 0 {
			v.Running += " of " + bytesText(r.Total)
		}
		v.Running += "."
	}
	for i, b := range slices.Backward(s.Snapshots) {
		if len(s.Snapshots)-i > listed {
			v.More = i + 1
			break
		}
		row := snapshot{Name: b.Name, Kind: kind(b), Size: unknown, Taken: at(b.Taken, s.Now)}
		if b.Stored > 0 {
			row.Size = bytesText(b.Stored)
		}
		v.Snapshots = append(v.Snapshots, row)
	}
	switch {
	case s.From != nil:
		long := max(s.Now.Sub(*s.From), 0)
		v.Window = fact{Name: "Every moment of the last", Value: duration(long), Note: "is restorable; the target is " + duration(s.Retention)}
		v.Line = timeline(s, long)
	case s.Known:
		v.Window.Value, v.Window.Note = "none", "there is no snapshot to begin with"
	}
}

func kind(b Snapshot) string {
	if b.Delta {
		return "delta"
	}
	return "full"
}

// timeline has the begin of the window at its left end, unless that was just now, and now at its right one.
func timeline(s Status, long time.Duration) line {
	long = max(long, time.Minute)
	begin := s.Now.Add(-long)
	x := func(t time.Time) string { return percent(t.Sub(begin).Seconds() / long.Seconds()) }
	durable := s.Now
	if s.Age != nil {
		durable = s.Now.Add(-*s.Age)
	}
	width := durable.Sub(*s.From).Seconds() / long.Seconds()
	l := line{Known: true, Begin: x(*s.From), Width: percent(width)}
	for _, b := range s.Snapshots {
		l.Marks = append(l.Marks, mark{X: x(b.Taken), Title: b.Name + ", " + kind(b) + ", " + at(b.Taken, s.Now).Text, Delta: b.Delta})
	}
	layout := "15:04:05"
	switch {
	case long > 48*time.Hour:
		layout = "2 Jan"
	case long > 20*time.Minute:
		layout = "15:04"
	}
	for i, anchor := range []string{"start", "middle", "end"} {
		t := begin.Add(long * time.Duration(i) / 2)
		text := t.UTC().Format(layout)
		if i == 2 {
			text = "now"
		}
		l.X = append(l.X, tick{At: percent(float64(i) / 2), Text: text, Anchor: anchor})
	}
	l.Summary = "Recovery window from " + at(*s.From, s.Now).Text + " until now, with " + plural(int64(len(l.Marks)), "snapshot") + "."
	return l
}
