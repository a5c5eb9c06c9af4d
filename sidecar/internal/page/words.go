package page

import (
	"fmt"
	"strconv"
	"time"
)

// Tones. Each has a sign and words of its own: a colour only repeats them.
const (
	toneGood  = "good"
	toneWarn  = "warn"
	toneBad   = "bad"
	toneQuiet = "quiet" // neither well nor in need of anybody
)

// words are what is said of a state.
type words struct{ tone, headline, lead, remedy string }

func wordsFor(state string) words {
	switch state {
	case "protected":
		return words{toneGood, "Protected", "What is committed reaches the archive, and there is a snapshot to start from.", ""}
	case "no_snapshot":
		return words{
			toneBad, "Not protected yet", "WAL reaches the archive, but there is no snapshot yet that a restore could begin with.",
			"The first snapshot is taken by itself. If it does not come, the journal below says why.",
		}
	case "lagging":
		return words{
			toneWarn, "Lagging", "The newest commits are not in the archive. Postgres keeps their WAL, and shipping catches up by itself.",
			"If it stays so: can this machine reach the object store, and are its credentials good? If the machine is lost meanwhile, so are these commits.",
		}
	case "not_protected":
		return words{toneBad, "Not protected", "Something has to be done by a person.", ""}
	case "superseded":
		return words{
			toneBad, "Superseded", "Another writer has taken over this history. Nothing that is written here is archived.",
			"Use the database that took over, and take this one away.",
		}
	case "not_archived":
		return words{toneQuiet, "Not archived", "Archiving is off: this is a throw-away clone.", ""}
	case "waiting":
		return words{toneQuiet, "Waiting", "Nothing is shipped at the moment.", ""}
	case "recovering":
		return words{toneQuiet, "In recovery", "Postgres replays. The newest archive is complete as it is.", ""}
	case "stopping":
		return words{toneQuiet, "Stopping", "What is left is being shipped.", ""}
	case "stopped":
		return words{toneQuiet, "Stopped", "Everything is shipped.", ""}
	default:
		return words{toneWarn, "Unknown", "The state is called “" + state + "”, which this page does not know.", ""}
	}
}

// unknown is what stands where nothing is known.
const unknown = "unknown"

func span(name string, d *time.Duration) fact {
	if d == nil {
		return fact{Name: name, Value: unknown, Missing: true}
	}
	return fact{Name: name, Value: duration(*d)}
}

func size(name string, n *int64) fact {
	if n == nil {
		return fact{Name: name, Value: unknown, Missing: true}
	}
	return fact{Name: name, Value: bytesText(*n)}
}

// at is a moment as seen from now, in UTC.
func at(t, now time.Time) moment {
	if t.IsZero() {
		return moment{Text: unknown}
	}
	m := moment{ISO: t.UTC().Format(time.RFC3339), Text: clock(t)}
	switch t, now := t.UTC(), now.UTC(); {
	case t.Year() != now.Year():
		m.Text = t.Format("2 Jan 2006 15:04:05Z")
	case t.YearDay() != now.YearDay():
		m.Text = t.Format("2 Jan 15:04:05Z")
	}
	switch d := now.Sub(t); {
	case d >= time.Second:
		m.For = duration(d)
		m.Ago = m.For + " ago"
	case d > -time.Second:
		m.Ago = "just now"
	default:
		m.Ago = "in " + duration(-d)
	}
	return m
}

func clock(t time.Time) string { return t.UTC().Format("15:04:05Z") }

// duration is a time span in at most two units, cut and not rounded up.
func duration(d time.Duration) string {
	const day = 24 * time.Hour
	two := func(d, big, small time.Duration, names [2]string) string {
		text := fmt.Sprintf("%d %s", d/big, names[0])
		if rest := d % big / small; rest > 0 {
			text += fmt.Sprintf(" %d %s", rest, names[1])
		}
		return text
	}
	switch {
	case d < 0:
		return "-" + duration(-d)
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case d < 10*time.Second && d%time.Second >= 100*time.Millisecond:
		return fmt.Sprintf("%d.%d s", d/time.Second, d%time.Second/(100*time.Millisecond))
	case d < time.Minute:
		return fmt.Sprintf("%d s", d/time.Second)
	case d < time.Hour:
		return two(d, time.Minute, time.Second, [2]string{"min", "s"})
	case d < day:
		return two(d, time.Hour, time.Minute, [2]string{"h", "min"})
	default:
		return two(d, day, time.Hour, [2]string{"d", "h"})
	}
}

func bytesText(n int64) string {
	const step = 1024
	if n < step {
		return fmt.Sprintf("%d B", n)
	}
	f, unit := float64(n)/step, 0
	for f >= step && unit < 4 {
		f /= step
		unit++
	}
	digits := 1
	if f >= 100 {
		digits = 0
	}
	return strconv.FormatFloat(f, 'f', digits, 64) + " " + []string{"KiB", "MiB", "GiB", "TiB", "PiB"}[unit]
}

// count is a number with thin spaces between thousands.
func count(n int64) string {
	text := strconv.FormatInt(n, 10)
	for i := len(text) - 3; i > 0 && text[i-1] != '-'; i -= 3 {
		text = text[:i] + "\u202f" + text[i:]
	}
	return text
}

func plural(n int64, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return count(n) + " " + what + "s"
}
