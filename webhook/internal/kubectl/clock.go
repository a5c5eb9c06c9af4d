package kubectl

import (
	"net/http"
	"sync/atomic"
	"time"
)

// clock compares the clock of this machine with that of whoever answers. The zero value has not compared them yet.
type clock struct {
	ahead atomic.Pointer[time.Duration]
}

// watch is a transport that looks at the Date of each answer.
func (c *clock) watch(next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(req *http.Request) (*http.Response, error) {
		begin := time.Now()
		resp, err := next.RoundTrip(req)
		if err == nil {
			c.note(resp.Header, begin, time.Now())
		}
		return resp, err
	})
}

// note takes the difference from an answer. Date has whole seconds, of which half a one is missing on average, and was
// written somewhere between the question and the answer.
func (c *clock) note(h http.Header, begin, end time.Time) {
	theirs, err := http.ParseTime(h.Get("Date"))
	if err != nil {
		return
	}
	middle := begin.Add(end.Sub(begin) / 2)
	c.ahead.Store(new(middle.Sub(theirs.Add(time.Second / 2))))
}

type roundTripper func(*http.Request) (*http.Response, error)

func (r roundTripper) RoundTrip(req *http.Request) (*http.Response, error) { return r(req) }
