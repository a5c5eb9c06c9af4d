package oss

import (
	"context"
	"io"
	"net/http"
	"time"
)

// faultPlan is what the armed faults do to one request.
type faultPlan struct {
	terminal *Fault // Status, ResetBefore, ResetAfter or Hang
	delay    time.Duration
	rate     int64
	skew     time.Duration
	wrongCRC bool
	truncate *Fault
	corrupt  *Fault
}

func (f *faultSet) plan(c *call) faultPlan {
	f.mu.Lock()
	defer f.mu.Unlock()
	var p faultPlan
	for _, a := range f.armed {
		terminal := a.Kind == Status || a.Kind == ResetBefore || a.Kind == ResetAfter || a.Kind == Hang
		if terminal && p.terminal != nil || !a.matches(c) || !a.fires() {
			continue
		}
		fault := a.Fault
		switch a.Kind {
		case Delay:
			p.delay += a.Delay
		case Throttle:
			p.rate = a.Rate
		case ClockSkew:
			p.skew += a.Skew
		case WrongCRC:
			p.wrongCRC = true
		case Truncate:
			p.truncate = &fault
		case Corrupt:
			p.corrupt = &fault
		case Status, ResetBefore, ResetAfter, Hang:
			p.terminal = &fault
		}
	}
	return p
}

// pause waits; it ends early when the server closes or the client has gone.
func (c *call) pause(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-c.server.closing.Done():
	case <-c.http.Context().Done():
	}
}

// faultBefore does what comes before the operation and tells whether that was all.
func (c *call) faultBefore() (done bool) {
	if c.plan.delay > 0 {
		c.pause(c.plan.delay)
	}
	if c.plan.rate > 0 {
		c.body.r = &slowReader{r: c.body.r, call: c}
	}
	if c.plan.terminal == nil {
		return false
	}
	f := *c.plan.terminal
	switch f.Kind {
	case Hang:
		c.code = "Hang"
		c.hang()
	case ResetBefore:
		c.code = "ResetBefore"
		c.w.reset()
	case ResetAfter:
		c.w.discard = true
		return false
	default:
		c.answerStatus(f)
	}
	return true
}

func (c *call) answerStatus(f Fault) {
	status := or(f.Status, http.StatusServiceUnavailable)
	e := fail(status, or(f.Code, codeFor(status)), "%s", or(f.Message, "Answered by an armed fault."))
	e.Header = http.Header{}
	for name, value := range f.Header {
		e.Header.Set(name, value)
	}
	h := c.w.Header()
	h.Set("Server", "AliyunOSS")
	h.Set("x-oss-request-id", c.id)
	c.body.drain()
	c.writeError(e, !f.NoBody)
}

func codeFor(status int) string {
	switch status {
	case http.StatusForbidden:
		return "AccessDenied"
	case http.StatusInternalServerError:
		return "InternalError"
	case http.StatusServiceUnavailable:
		return "ServiceUnavailable"
	case http.StatusNotFound:
		return "NoSuchKey"
	}
	return http.StatusText(status)
}

// faultAfter cuts the connection of a request that was done, if so planned.
func (c *call) faultAfter() {
	if f := c.plan.terminal; f != nil && f.Kind == ResetAfter {
		c.code = "ResetAfter"
		c.w.reset()
	}
}

// hang swallows what the client sends and never answers.
func (c *call) hang() {
	conn := c.w.hijack()
	if conn == nil {
		<-c.server.closing.Done()
		return
	}
	defer conn.Close()
	stop := context.AfterFunc(c.server.closing, func() { _ = conn.Close() })
	defer stop()
	_, _ = io.Copy(io.Discard, conn)
}

// slowReader is a request body at the rate of a Throttle fault.
type slowReader struct {
	r    io.Reader
	call *call
}

func (s *slowReader) Read(p []byte) (int, error) {
	rate := s.call.plan.rate
	n, err := s.r.Read(p[:min(int64(len(p)), sliceOf(rate))])
	if n > 0 {
		s.call.pause(time.Duration(n) * time.Second / time.Duration(rate))
	}
	return n, err
}
