package basebackup

import (
	"sync/atomic"
	"time"
)

// progress counts what the streams of an attempt have read.
type progress struct {
	files, totalFiles atomic.Int64
	bytes, totalBytes atomic.Int64
}

func (p *progress) read(n int) { p.bytes.Add(int64(n)) }
func (p *progress) done()      { p.files.Add(1) }

// vanished takes a file out of the totals.
func (p *progress) vanished(size int64) {
	p.totalFiles.Add(-1)
	p.totalBytes.Add(-size)
}

func (p *progress) now() Progress {
	return Progress{
		Files: p.files.Load(), TotalFiles: p.totalFiles.Load(),
		Bytes: p.bytes.Load(), TotalBytes: p.totalBytes.Load(),
	}
}

// tell calls f from time to time until stop is called, which waits for the last call.
func (p *progress) tell(f func(Progress)) (stop func()) {
	if f == nil {
		return func() {}
	}
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(progressInterval)
		defer tick.Stop()
		for {
			f(p.now())
			select {
			case <-tick.C:
			case <-quit:
				f(p.now())
				return
			}
		}
	}()
	return func() { close(quit); <-done }
}
