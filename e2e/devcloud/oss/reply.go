package oss

import (
	"errors"
	"net"
	"net/http"
	"strconv"
	"time"
)

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
