package retention_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/retention"
	"outrider.dev/sidecar/internal/wal"
)

const mib = wal.MinSegmentSize

// world is a simulated database with its archive. It knows by itself, from what happened, what can be restored, so that
// the code under test is not its own judge. Each tick is an hour in which two segments of WAL are written.
type world struct {
	r         *rand.Rand
	now       int
	timelines []*line
	current   *line
	epoch     uint64
	state     retention.State
	chunked   map[wal.Segment]bool // in the archive as a chunk, not sealed
}

// line is one timeline.
type line struct {
	id     wal.Timeline
	parent *line
	from   wal.LSN // where the parent was left
	end    wal.LSN
	ticks  []tick
}

type tick struct {
	at  int
	end wal.LSN // of the WAL at the end of the hour
}

const hour = time.Hour

func origin() time.Time { return time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC) }

func (w *world) time(at int) time.Time { return origin().Add(time.Duration(at) * hour) }

func newWorld(r *rand.Rand) *world {
	w := &world{r: r, chunked: map[wal.Segment]bool{}, state: retention.State{Inventory: &archive.Inventory{
		Size: mib, Claims: map[wal.Timeline]archive.TimelineClaim{}, Histories: map[wal.Timeline]wal.History{},
		Sealed: map[wal.Segment]archive.SegmentInfo{}, Chunks: map[wal.Segment][]archive.Chunk{},
	}, Permanent: map[string]bool{}}}
	w.begin(nil, mib, true)
	return w
}

// begin opens a new timeline that left its parent at a position, under a new epoch or as a promotion of the same one.
func (w *world) begin(parent *line, from wal.LSN, newEpoch bool) {
	l := &line{id: wal.Timeline(len(w.timelines) + 1), parent: parent, from: from, end: from}
	w.timelines = append(w.timelines, l)
	w.current = l
	if newEpoch {
		w.epoch++
		w.state.Inventory.Epochs = append(w.state.Inventory.Epochs, archive.Epoch{Number: w.epoch, ClaimedAt: w.time(w.now)})
	}
	c := archive.TimelineClaim{Timeline: l.id, Epoch: w.epoch, Switch: from, ClaimedAt: w.time(w.now)}
	if parent != nil {
		c.Parent = parent.id
	}
	w.state.Inventory.Claims[l.id] = c
}

// write lets an hour go by.
func (w *world) write() {
	w.now++
	l, z := w.current, wal.SegmentSize(mib)
	to := l.end + 2*mib + wal.LSN(w.r.IntN(1000)) - 500
	for seg := z.SegmentAt(l.id, l.end); seg.Start(z) < to; seg = seg.Next() {
		whole := seg.End(z) <= to
		if whole {
			w.state.Inventory.Sealed[seg] = archive.SegmentInfo{Segment: seg, Key: fmt.Sprint(seg), Valid: mib, Known: true}
			delete(w.chunked, seg)
		}
		if !whole || w.r.IntN(8) == 0 {
			// Not sealed yet, or sealed with its chunks not swept yet.
			w.state.Inventory.Chunks[seg] = []archive.Chunk{{Segment: seg, Epoch: w.epoch, From: seg.Start(z), To: min(to, seg.End(z))}}
			w.chunked[seg] = !whole
		}
	}
	l.end = to
	l.ticks = append(l.ticks, tick{w.now, to})
}

// snapshot takes one in the hour that has just gone by.
func (w *world) snapshot(delta, good bool) {
	l := w.current
	last := l.ticks[len(l.ticks)-1]
	start := last.end - wal.LSN(w.r.IntN(mib)) - 1000
	if start < l.from {
		return
	}
	b := backup(l.id, start, last.end-500, w.time(last.at))
	b.Manifest.Epoch = w.epoch
	if slices.ContainsFunc(w.state.Backups, func(x archive.Backup) bool { return x.StartSegment == b.StartSegment }) {
		return
	}
	if !good {
		b.Manifest.Checksums.Bad = []string{"base/5/1259:7"}
	}
	if n := len(w.state.Backups); delta && n > 0 && w.state.Backups[n-1].Timeline() == l.id {
		parent := w.state.Backups[n-1]
		b.Name += "_D_" + parent.StartSegment
		b.Sentinel.DeltaFrom = &parent.Name
	}
	w.state.Backups = append(w.state.Backups, b)
}

func backup(t wal.Timeline, start, stop wal.LSN, at time.Time) archive.Backup {
	name := wal.SegmentSize(mib).SegmentAt(t, start).Name(mib)
	from, to := uint64(start), uint64(stop)
	return archive.Backup{
		Name: "base_" + name, StartSegment: name, Sentinel: archive.Sentinel{LSN: &from, FinishLSN: &to, FinishTime: at},
		Manifest: &archive.Manifest{Name: "base_" + name, Start: start, Stop: stop, StopTime: at},
	}
}

// rewind restores to an earlier moment of the current branch.
func (w *world) rewind() {
	l := w.current
	for l.parent != nil && w.r.IntN(3) == 0 {
		l = l.parent
	}
	if len(l.ticks) == 0 {
		return
	}
	at := l.ticks[w.r.IntN(len(l.ticks))].end - wal.LSN(w.r.IntN(2000))
	w.begin(l, max(at, l.from+1), true)
}

// lose takes a segment away, as a gap would.
func (w *world) lose() {
	all := w.state.Inventory.Segments()
	if len(all) > 0 {
		delete(w.state.Inventory.Sealed, all[w.r.IntN(len(all))])
	}
}

// leg is a part of a line's way to the present.
type leg struct {
	l        *line
	from, to wal.LSN
}

func path(l *line) []leg {
	var legs []leg
	to := archive.MaxLSN
	for ; l != nil; l = l.parent {
		legs = append(legs, leg{l, l.from, to})
		to = l.from
	}
	slices.Reverse(legs)
	return legs
}

// holds tells whether the WAL in [from, to) along the legs is in an archive.
func holds(s retention.State, legs []leg, from, to wal.LSN) bool {
	z := wal.SegmentSize(mib)
	for i, g := range legs {
		lo, hi := max(from, g.from), min(to, g.to)
		if lo >= hi {
			continue
		}
		if i > 0 && lo == g.from {
			lo = z.Floor(lo)
		}
		for at := lo; at < hi; {
			seg := z.SegmentAt(g.l.id, at)
			end := wal.LSN(0)
			if _, ok := s.Inventory.Sealed[seg]; ok {
				end = seg.End(z)
			}
			for _, c := range s.Inventory.Chunks[seg] {
				if c.From <= at {
					end = max(end, c.To)
				}
			}
			if end <= at {
				return false
			}
			at = end
		}
	}
	return true
}

// restorable tells whether position at of line l can be restored from an archive, with a sound snapshot if asked for.
func restorable(s retention.State, l *line, at wal.LSN, wantSound bool) bool {
	legs := path(l)
	for _, b := range s.Backups {
		i := slices.IndexFunc(legs, func(g leg) bool { return g.l.id == b.Timeline() })
		if i < 0 || b.Stop() > legs[i].to || b.Stop() > at || !chain(s, b, wantSound) {
			continue
		}
		if holds(s, legs, b.Start(), at) {
			return true
		}
	}
	return false
}

func chain(s retention.State, b archive.Backup, wantSound bool) bool {
	for {
		if wantSound && len(b.Manifest.Checksums.Bad) > 0 {
			return false
		}
		if b.Sentinel.DeltaFrom == nil {
			return true
		}
		i := slices.IndexFunc(s.Backups, func(x archive.Backup) bool { return x.Name == *b.Sentinel.DeltaFrom })
		if i < 0 {
			return false
		}
		b = s.Backups[i]
	}
}

// apply is what is left of an archive after a plan.
func apply(s retention.State, p retention.Plan) retention.State {
	inv := *s.Inventory
	inv.Sealed, inv.Chunks = map[wal.Segment]archive.SegmentInfo{}, map[wal.Segment][]archive.Chunk{}
	for seg, info := range s.Inventory.Sealed {
		if !slices.ContainsFunc(p.Segments, func(x archive.SegmentInfo) bool { return x.Segment == seg }) {
			inv.Sealed[seg] = info
		}
	}
	for seg, chunks := range s.Inventory.Chunks {
		for _, c := range chunks {
			if !slices.Contains(p.Chunks, c) && !slices.Contains(p.Sealed, c) {
				inv.Chunks[seg] = append(inv.Chunks[seg], c)
			}
		}
	}
	after := s
	after.Inventory = &inv
	after.Backups = slices.DeleteFunc(slices.Clone(s.Backups), func(b archive.Backup) bool {
		return slices.ContainsFunc(p.Backups, func(x archive.Backup) bool { return x.Name == b.Name })
	})
	return after
}

// fixed is for worlds in which chance matters only for the length of WAL.
func fixed() *rand.Rand { return rand.New(rand.NewPCG(1, 2)) }
