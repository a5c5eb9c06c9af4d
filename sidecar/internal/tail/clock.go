package tail

import "time"

// clock decides when the server is to be asked next.
//
// A hint comes with a write, that is, before the flush that a commit waits for. So one question after a hint proves
// nothing: it is repeated in short, doubling distances until the position moves, then at each interval for a while
// (a flush may come without a further write), and then in doubling distances up to floor. A flush that takes long is
// thus noticed after at most twice the time that it took.
type clock struct {
	interval, floor time.Duration

	asked, failed bool
	askedAt       time.Time
	answeredAt    time.Time
	pace          time.Duration // from answeredAt to the next answer, at least interval
	hintAt        time.Time
	wait          time.Duration // from askedAt to the next question if nothing else happens
	quiet         bool          // the last questions brought nothing, and the last hint is long ago
}

const (
	settleShare = 64 // the first question comes interval/64 after a hint: by then the flush is often done
	alertFor    = 4  // intervals after a hint in which each interval has its question
)

func newClock(interval, floor time.Duration) clock { return clock{interval: interval, floor: floor} }

func (c *clock) hint(now time.Time) { c.hintAt, c.quiet = now, false }

// settle is how long after a hint that ends a quiet time the server is asked.
func (c *clock) settle() time.Duration { return c.interval / settleShare }

func (c *clock) ask(now time.Time) {
	if !c.asked {
		c.hintAt = now // what went on before is not known
	}
	c.asked, c.failed, c.askedAt = true, false, now
}

func (c *clock) fail() { c.failed, c.quiet = true, false }

func (c *clock) answer(now time.Time, pace time.Duration) {
	c.answeredAt, c.pace, c.wait, c.quiet = now, max(c.interval, pace), c.interval, false
}

func (c *clock) fruitless() {
	switch {
	case c.wait < c.interval:
		c.wait = min(max(2*c.wait, c.settle()), c.interval)
	case c.askedAt.Sub(c.hintAt) < alertFor*c.interval:
		c.wait = c.interval
	default:
		c.wait = min(2*c.wait, c.floor)
		c.quiet = true
	}
}

func (c *clock) due() time.Time { return c.askedAt.Add(c.wait) }

// quicken lets the next answer come earlier.
func (c *clock) quicken(pace time.Duration) { c.pace = min(c.pace, max(c.interval, pace)) }

// pacing tells whether it is too early for another answer.
func (c *clock) pacing(now time.Time) bool { return now.Before(c.next()) }

func (c *clock) next() time.Time { return c.answeredAt.Add(c.pace) }
