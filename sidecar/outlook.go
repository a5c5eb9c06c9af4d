package main

import (
	"sync"
	"time"

	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/basebackup"
	"outrider.dev/sidecar/internal/wal"
)

// outlook is what would be if the server were lost now, or the archive stayed away. It is computed from what is known
// already: asking for it causes no request.
type outlook struct {
	RecoverableFrom  *time.Time `json:"recoverable_from,omitempty"`          // begin of the recovery window
	PredictedRestore *float64   `json:"predicted_restore_seconds,omitempty"` // see basebackup.Load.Predict
	Snapshots        *int       `json:"snapshots,omitempty"`                 // that a restore could begin with
	EpochConfirmed   *time.Time `json:"epoch_confirmed_at,omitempty"`
	Backlog          *int64     `json:"backlog_bytes,omitempty"` // of WAL that Postgres keeps for the archive
	DiskFree         *int64     `json:"wal_disk_free_bytes,omitempty"`
	DiskFull         *float64   `json:"wal_disk_full_seconds,omitempty"` // until then, if the archive takes nothing more
}

// outlook is called with the position up to which WAL is durable.
func (v *voyage) outlook(durable wal.LSN) outlook {
	var o outlook
	v.mu.Lock()
	n := len(v.snapshots)
	o.Snapshots = &n
	var first, last archive.Backup
	if n > 0 {
		first, last = v.snapshots[0], v.snapshots[n-1]
	}
	v.mu.Unlock()
	if n > 0 {
		from := completed(first)
		o.RecoverableFrom = &from
		l := basebackup.Load{Raw: unpacked(last), WAL: distance(last.Start(), durable)}
		seconds := l.Predict(basebackup.Rates{}).Seconds()
		o.PredictedRestore = &seconds
	}
	if at := v.keeper.Confirmed(); !at.IsZero() {
		o.EpochConfirmed = &at
	}
	return o
}

// diskFree is the room for WAL; nil if it is not known.
func (g *guard) diskFree() *int64 {
	free, err := freeBytes(g.dir.walDir())
	if err != nil {
		return nil
	}
	return &free
}

// kept adds what is known only while the server answers.
func (o *outlook) kept(v *voyage, flushed wal.LSN) {
	backlog := distance(v.ship.Keep(), flushed)
	o.Backlog = &backlog
	if rate := v.flow.rate(time.Now(), flushed); rate > 0 && o.DiskFree != nil {
		seconds := float64(*o.DiskFree) / rate
		o.DiskFull = &seconds
	}
}

// completed is when a snapshot became consistent.
func completed(b archive.Backup) time.Time {
	if b.Manifest != nil && !b.Manifest.StopTime.IsZero() {
		return b.Manifest.StopTime
	}
	return b.ModTime
}

// flow estimates how fast a position moves. The zero value is ready. It is safe for concurrent use.
type flow struct {
	mu   sync.Mutex
	seen []sighting // oldest first
}

type sighting struct {
	at  time.Time
	pos wal.LSN
}

const (
	flowSpan = 10 * time.Minute // what a rate is an average of
	flowStep = 5 * time.Second  // least distance of what is remembered
)

// rate notes a position and returns bytes per second over the last minutes; 0 as long as it cannot be told.
func (f *flow) rate(now time.Time, pos wal.LSN) float64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	for len(f.seen) > 1 && now.Sub(f.seen[1].at) >= flowSpan {
		f.seen = f.seen[1:]
	}
	if n := len(f.seen); n == 0 || now.Sub(f.seen[n-1].at) >= flowStep {
		f.seen = append(f.seen, sighting{at: now, pos: pos})
	}
	first := f.seen[0]
	if span := now.Sub(first.at); span >= flowStep && pos > first.pos {
		return float64(pos-first.pos) / span.Seconds()
	}
	return 0
}
