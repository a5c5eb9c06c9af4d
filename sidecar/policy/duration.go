package policy

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Day is 24 hours: windows and ages know no calendar.
const Day = 24 * time.Hour

type unit struct {
	suffix string
	size   int64
}

func durationUnits() []unit {
	return []unit{
		{"d", int64(Day)},
		{"h", int64(time.Hour)},
		{"m", int64(time.Minute)},
		{"s", int64(time.Second)},
		{"ms", int64(time.Millisecond)},
	}
}

// ParseDuration reads a duration such as 500ms, 1s, 1h30m or 7d: whole numbers with the units ms, s, m, h and d, each
// unit at most once and the larger first.
func ParseDuration(s string) (time.Duration, error) {
	bad := fmt.Errorf("%q is not a duration: expected whole numbers with the units ms, s, m, h or d, such as 1s, 5m, 1h30m or 7d", s)
	var total int64
	rest := s
	for _, u := range durationUnits() {
		digits := len(rest) - len(strings.TrimLeft(rest, "0123456789"))
		after, ok := strings.CutPrefix(rest[digits:], u.suffix)
		if digits == 0 || !ok || after != "" && (after[0] < '0' || after[0] > '9') {
			continue
		}
		n, err := strconv.ParseInt(rest[:digits], 10, 64)
		if err != nil || n > (math.MaxInt64-total)/u.size {
			return 0, fmt.Errorf("%q is too long a duration", s)
		}
		total += n * u.size
		rest = after
	}
	if rest != "" || s == "" {
		return 0, bad
	}
	return time.Duration(total), nil
}

// FormatDuration writes a duration of whole milliseconds as ParseDuration reads it.
func FormatDuration(d time.Duration) string {
	var b strings.Builder
	left := int64(d)
	for _, u := range durationUnits() {
		if n := left / u.size; n > 0 {
			fmt.Fprintf(&b, "%d%s", n, u.suffix)
			left -= n * u.size
		}
	}
	if b.Len() == 0 {
		return "0s"
	}
	return b.String()
}
