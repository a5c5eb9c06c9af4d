package oss

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
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

// reply is the ResponseWriter of a call. It counts, and lets the faults spoil the answer.
type reply struct {
	http.ResponseWriter
	call    *call
	discard bool // write nothing
	status  int
	n       int64 // bytes of the body so far
	length  int64 // of the body as announced, -1 if not
	gone    bool
}

var errCut = errors.New("answer cut by a fault")

func (w *reply) WriteHeader(status int) {
	if w.status != 0 {
		return
	}
	w.status = status
	h := w.Header()
	h.Set("x-oss-server-time", strconv.FormatInt(time.Since(w.call.start).Milliseconds(), 10))
	w.length = -1
	if n, err := strconv.ParseInt(h.Get("Content-Length"), 10, 64); err == nil {
		w.length = n
	}
	if w.call.plan.wrongCRC {
		if crc, err := strconv.ParseUint(h.Get("x-oss-hash-crc64ecma"), 10, 64); err == nil {
			h.Set("x-oss-hash-crc64ecma", strconv.FormatUint(crc^1, 10))
		}
	}
	if !w.discard {
		w.ResponseWriter.WriteHeader(status)
	}
}

func (w *reply) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	if w.discard {
		w.n += int64(len(p))
		return len(p), nil
	}
	if w.gone {
		return 0, errCut
	}
	if f := w.call.plan.corrupt; f != nil {
		if at := w.place(f.At) - w.n; at >= 0 && at < int64(len(p)) {
			p = append([]byte(nil), p...) // the caller's bytes are not ours to change
			p[at] ^= 1
		}
	}
	if f := w.call.plan.truncate; f != nil {
		if left := w.place(f.At) - w.n; left < int64(len(p)) {
			n, _ := w.send(p[:max(left, 0)])
			_ = http.NewResponseController(w.ResponseWriter).Flush()
			w.call.code = "Truncated"
			if conn := w.hijack(); conn != nil {
				_ = conn.Close() // not reset: that would take back bytes which are on their way
			}
			return n, errCut
		}
	}
	return w.send(p)
}

// place says which byte of the body a fault means.
func (w *reply) place(at int64) int64 {
	switch {
	case at == 0 && w.length > 0:
		return w.length / 2
	case at < 0:
		return max(w.length+at, 0)
	}
	return at
}

func (w *reply) send(p []byte) (int, error) {
	var sent int
	for len(p) > 0 {
		part := p
		if rate := w.call.plan.rate; rate > 0 {
			part = p[:min(int64(len(p)), sliceOf(rate))]
			w.call.pause(time.Duration(len(part)) * time.Second / time.Duration(rate))
		}
		n, err := w.ResponseWriter.Write(part)
		w.n += int64(n)
		sent += n
		if err != nil {
			return sent, err
		}
		if w.call.plan.rate > 0 {
			_ = http.NewResponseController(w.ResponseWriter).Flush()
		}
		p = p[n:]
	}
	return sent, nil
}

// sliceOf is how much is moved at once at a rate: about a twentieth of a second's worth.
func sliceOf(rate int64) int64 { return min(max(rate/20, 1), 64<<10) }

// hijack takes the connection over, or returns nil where there is none to take.
func (w *reply) hijack() net.Conn {
	if w.gone {
		return nil
	}
	conn, _, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err != nil {
		return nil
	}
	w.gone = true
	return conn
}

// reset cuts the connection without a proper end.
func (w *reply) reset() {
	conn := w.hijack()
	if conn == nil {
		return
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // RST instead of FIN
	}
	_ = conn.Close()
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
