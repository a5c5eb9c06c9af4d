package restore

import (
	"context"
	"io"
	"sync"
	"time"
)

// Progress says how far a step of a restore is.
type Progress struct {
	Step  string // "unpack" or "wal"
	Bytes int64  // raw bytes done
	Total int64  // raw bytes to be done; 0 if that is not known
	Files int    // files or segments done
}

// progressInterval is how often Progress is reported at most.
const progressInterval = 200 * time.Millisecond

// meter counts and reports, one call at a time. It is safe for concurrent use.
type meter struct {
	mu     sync.Mutex
	now    Progress
	last   time.Time
	report func(Progress)
}

func newMeter(step string, total int64, report func(Progress)) *meter {
	return &meter{now: Progress{Step: step, Total: total}, report: report}
}

func (m *meter) add(bytes int64, files int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.now.Bytes += bytes
	m.now.Files += files
	if m.report != nil && time.Since(m.last) >= progressInterval {
		m.last = time.Now()
		m.report(m.now)
	}
}

// done makes the last report.
func (m *meter) done() Progress {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.report != nil {
		m.report(m.now)
	}
	return m.now
}

// countingReader counts what is read, and ends with its context.
type countingReader struct {
	r     io.Reader
	ctx   context.Context //nolint:containedctx // a reader has none, and lives as long as one call
	meter *meter
	n     int64
	err   error // how it ended, if not by its end: a reader of tar does not tell a transfer that broke off from a short tar
}

func (c *countingReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		c.err = err
		return 0, err
	}
	n, err := c.r.Read(p)
	c.n += int64(n)
	if err != nil && err != io.EOF {
		c.err = err
	}
	c.meter.add(int64(n), 0)
	return n, err
}
