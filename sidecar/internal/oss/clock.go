package oss

import (
	"net/http"
	"sync/atomic"
	"time"

	sdk "github.com/aliyun/aliyun-oss-go-sdk/oss"
)

// clock compares the clock of this machine with OSS's. The zero value has not compared them yet.
type clock struct {
	ahead atomic.Pointer[time.Duration]
}

// note takes the difference from an answer, if it is OSS's own: what a proxy says of the time is of no interest.
func (c *clock) note(x *exchange) {
	if x.header.Get(sdk.HTTPHeaderOssRequestID) == "" {
		return
	}
	if ahead, told := x.ahead(); told {
		c.ahead.Store(&ahead)
	}
}

// ahead is how far the clock of this machine is ahead of that of whoever answered, and whether the answer tells. Date
// has whole seconds, and the answer was on its way for a while: it is too high by up to a second and the latency.
func (x *exchange) ahead() (time.Duration, bool) {
	theirs, err := http.ParseTime(x.header.Get("Date"))
	if err != nil {
		return 0, false
	}
	return x.seen.Sub(theirs), true
}

// ClockAhead is how far the clock of this machine was ahead of OSS's at the last answer, to about a second; false
// before the first one. OSS refuses requests from more than 15 minutes away, which are then signed with its own time.
func (b *Bucket) ClockAhead() (time.Duration, bool) {
	ahead := b.transport.clock.ahead.Load()
	if ahead == nil {
		return 0, false
	}
	return *ahead, true
}
