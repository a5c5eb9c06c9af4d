package policy

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Target is the point to restore to. The zero value is the latest point of the newest branch.
type Target struct {
	Time     time.Time // the last commit not after this; zero if no time was given. UTC, whole microseconds
	LSN      uint64    // up to this position; 0 if none was given
	Timeline uint32    // on the branch of this timeline; 0 for the newest
}

const latest = "latest"

// Latest tells whether neither a time nor a position was asked for.
func (t Target) Latest() bool { return t.Time.IsZero() && t.LSN == 0 }

// String is the form that ParseTarget reads.
func (t Target) String() string {
	s := latest
	switch {
	case !t.Time.IsZero():
		s = t.Time.Format(time.RFC3339Nano)
	case t.LSN != 0:
		s = fmt.Sprintf("%X/%X", uint32(t.LSN>>32), uint32(t.LSN))
	}
	if t.Timeline != 0 {
		s += fmt.Sprintf("@%d", t.Timeline)
	}
	return s
}

// ParseTarget reads latest, a time (RFC 3339, with its zone) or an LSN, each alone or followed by @ and the number of a
// timeline. @ and the number alone are the latest point of that timeline.
func ParseTarget(s string) (Target, error) {
	var t Target
	point, timeline, ok := strings.Cut(s, "@")
	if ok {
		n, err := strconv.ParseUint(timeline, 10, 32)
		if err != nil || n == 0 {
			return Target{}, fmt.Errorf("%q does not end in the decimal number of a timeline: expected for example latest@3", s)
		}
		t.Timeline = uint32(n)
	}
	if point == latest || point == "" && ok {
		return t, nil
	}
	if n, isLSN := parseLSN(point); isLSN {
		t.LSN = n
		return t, nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02 15:04:05.999999999Z07:00"} {
		if at, err := time.Parse(layout, point); err == nil && at.Year() > 1 {
			// PostgreSQL's clock has microseconds: a finer target would be rounded by it, perhaps up.
			t.Time = at.UTC().Truncate(time.Microsecond)
			return t, nil
		}
	}
	return Target{}, fmt.Errorf("%q is not a target: expected latest, a time with its zone such as 2026-03-01T12:00:00Z, or an LSN such as 16/B374D848, each alone or with @TIMELINE", s)
}

func parseLSN(s string) (uint64, bool) {
	hi, lo, ok := strings.Cut(s, "/")
	if !ok || len(hi) < 1 || len(hi) > 8 || len(lo) < 1 || len(lo) > 8 {
		return 0, false
	}
	h, herr := strconv.ParseUint(hi, 16, 32)
	l, lerr := strconv.ParseUint(lo, 16, 32)
	n := h<<32 | l
	return n, herr == nil && lerr == nil && n != 0
}
