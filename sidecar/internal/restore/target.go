package restore

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"outrider.dev/sidecar/internal/wal"
)

// Target is up to where to restore: the latest position (the zero value), a time or a position in the WAL, on the
// newest branch or on that of a given timeline.
type Target struct {
	// Time: all transactions are restored that committed at or before it. Zero for none.
	Time time.Time
	// LSN: all WAL records are restored that begin before it. 0 for none.
	LSN wal.LSN
	// Timeline ends the branch to be restored; 0 for the branch of the newest valid epoch.
	Timeline wal.Timeline
}

// timeForms are RFC 3339 and what PostgreSQL prints. All have a zone: a time without one means different things on
// different machines.
func timeForms() []string {
	return []string{
		time.RFC3339Nano, "2006-01-02 15:04:05.999999999Z07:00", "2006-01-02 15:04:05.999999999-07",
		"2006-01-02T15:04:05.999999999-07", "2006-01-02 15:04:05.999999999Z0700", "2006-01-02T15:04:05.999999999Z0700",
		"2006-01-02 15:04:05.999999999 UTC", "2006-01-02 15:04:05.999999999 Z07:00",
	}
}

// ParseTarget reads "latest" (or nothing), a time with its zone such as 2026-11-23T05:00:00Z, or an LSN such as
// 16/B374D848, each optionally followed by @ and the number of a timeline.
func ParseTarget(s string) (Target, error) {
	var t Target
	point, timeline, at := strings.Cut(strings.TrimSpace(s), "@")
	if at {
		n, err := strconv.ParseUint(strings.TrimSpace(timeline), 10, 32)
		if err != nil || n == 0 {
			return t, fmt.Errorf("restore target %q: %q is not the number of a timeline", s, timeline)
		}
		t.Timeline = wal.Timeline(n)
	}
	point = strings.TrimSpace(point)
	if point == "" || point == "latest" {
		return t, nil
	}
	if lsn, err := wal.ParseLSN(point); err == nil {
		if lsn == 0 {
			return t, fmt.Errorf("restore target %q: 0/0 is not a position in the WAL", s)
		}
		t.LSN = lsn
		return t, nil
	}
	for _, form := range timeForms() {
		if at, err := time.Parse(form, point); err == nil {
			// PostgreSQL knows microseconds.
			t.Time = at.UTC().Truncate(time.Microsecond)
			return t, nil
		}
	}
	for _, form := range []string{"2006-01-02T15:04:05.999999999", "2006-01-02 15:04:05.999999999", "2006-01-02 15:04", time.DateOnly} {
		if _, err := time.Parse(form, point); err == nil {
			return t, fmt.Errorf("restore target %q needs a full time and its zone, such as 2026-11-23T05:00:00Z", s)
		}
	}
	return t, fmt.Errorf("restore target %q: expected latest, a time such as 2026-11-23T05:00:00Z or an LSN such as 16/B374D848, and @ with a timeline behind it if needed", s)
}

// Latest tells whether the target is no point in the past.
func (t Target) Latest() bool { return t.Time.IsZero() && t.LSN == 0 }

// String is the canonical form: equal targets have equal strings, and ParseTarget reads it. It is what belongs into
// archive.TimelineClaim.Target.
func (t Target) String() string {
	s := "latest"
	switch {
	case t.LSN != 0:
		s = t.LSN.String()
	case !t.Time.IsZero():
		s = t.Time.UTC().Format(time.RFC3339Nano)
	}
	if t.Timeline != 0 {
		s += "@" + strconv.FormatUint(uint64(t.Timeline), 10)
	}
	return s
}

// MarshalText writes the canonical form.
func (t Target) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// UnmarshalText reads what ParseTarget reads.
func (t *Target) UnmarshalText(b []byte) (err error) {
	*t, err = ParseTarget(string(b))
	return err
}
