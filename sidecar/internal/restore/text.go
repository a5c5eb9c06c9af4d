package restore

import (
	"fmt"
	"strings"
	"time"

	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/wal"
)

// String tells people what the plan is, line by line.
func (p Plan) String() string {
	var b strings.Builder
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "%-12s "+format+"\n", append([]any{name}, args...)...)
	}
	s := p.Snapshot
	line("database", "system identifier %d", p.SystemIdentifier)
	line("target", "%s", p.Target)
	if s.StopTime.IsZero() {
		line("snapshot", "%s", s.Name)
	} else {
		line("snapshot", "%s, finished %s", s.Name, s.StopTime.UTC().Format(time.RFC3339))
	}
	parts := 0
	for _, l := range s.Links {
		parts += len(l.Parts)
	}
	line("", "%d parts, %d bytes to fetch%s", parts, s.StoredSize, unpacked(s))
	if len(s.Links) > 1 {
		line("", "a chain of %d deltas on %s", len(s.Links)-1, s.Links[0].Name)
	}
	for _, g := range p.Legs {
		to := min(g.To, p.End)
		line("wal", "timeline %d from %s to %s", g.Timeline, g.From, to)
	}
	line("", "%d segments, about %d bytes to fetch", p.Segments, p.WALStored)
	line("recovery", "follows timeline %d and %s", p.Timeline, p.stops())
	if p.JobsOff {
		line("", "TimescaleDB's background jobs stay off until a person allows them")
	}
	for _, m := range p.Missing {
		line("MISSING", "%s", m)
	}
	for _, w := range p.Warnings {
		line("note", "%s", w)
	}
	return b.String()
}

func unpacked(s Snapshot) string {
	if s.RawSize == 0 {
		return ""
	}
	return fmt.Sprintf(", %d unpacked", s.RawSize)
}

func (p Plan) stops() string {
	switch {
	case p.StopLSN != 0:
		return "stops before the record at " + p.StopLSN.String()
	case !p.StopTime.IsZero():
		return "stops after the last commit at or before " + p.StopTime.Format(time.RFC3339Nano)
	}
	end := p.End
	if p.ReplayEnd != 0 {
		end = p.ReplayEnd
	}
	if p.LastCommit.IsZero() {
		return fmt.Sprintf("goes to the end at %s", end)
	}
	return fmt.Sprintf("goes to the end at %s; the last commit is of %s", end, p.LastCommit.Format(time.RFC3339Nano))
}

// RawWAL is how many bytes of WAL recovery replays at most.
func (p Plan) RawWAL() int64 {
	if len(p.Legs) == 0 || p.End <= p.Legs[0].From {
		return 0
	}
	return int64(p.End - p.Legs[0].From)
}

// Branch is the branch that the plan restores, from the snapshot on.
func (p Plan) Branch() archive.Branch { return archive.Branch{Timeline: p.Timeline, Legs: p.Legs} }

// Arrived tells whether recovery came to where the plan said, given the position at which the new timeline begins. It
// does not if PostgreSQL took damaged WAL for the end of all WAL.
func (p Plan) Arrived(at wal.LSN) error {
	if p.StopLSN != 0 || !p.StopTime.IsZero() || at >= p.ReplayEnd {
		return nil
	}
	return fmt.Errorf("recovery ended at %s: %w: the WAL from there to %s is in the archive and was not replayed; the server's log tells why",
		at, archive.ErrCorrupt, p.ReplayEnd)
}
