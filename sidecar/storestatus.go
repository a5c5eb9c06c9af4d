package main

import (
	"io"
	"time"

	"outrider.dev/sidecar/internal/oss"
)

// storeStatus is what is known of the store itself, as opposed to what lies in it.
type storeStatus struct {
	// ProvenAt is when the bucket was seen to let an object be created only once, which fences a second writer; absent if
	// it was not reached yet, or is refused.
	ProvenAt *time.Time `json:"proven_at,omitempty"`
	// Versioning is never, enabled or suspended; absent where the credentials may not ask for it.
	Versioning oss.Versioning `json:"versioning,omitempty"`
	// ClockAhead is how far the clock of this machine is ahead of the store's, to about a second.
	ClockAhead *float64 `json:"clock_ahead_seconds,omitempty"`
}

// store is what is known of the store; nil before its first answer.
func (d *door) store() *storeStatus {
	d.mu.Lock()
	b, proven := d.last.bucket, d.proven
	d.mu.Unlock()
	if b == nil {
		return nil
	}
	s := &storeStatus{ProvenAt: proven, Versioning: b.Versioning()}
	if ahead, told := b.ClockAhead(); told {
		s.ClockAhead = new(ahead.Seconds())
	}
	if s.ClockAhead == nil && s.ProvenAt == nil && s.Versioning == oss.VersioningUnknown {
		return nil
	}
	return s
}

// clockOff is from when on the difference of the clocks is worth a line: times that people compare are then wrong.
const clockOff = time.Minute

func (s *storeStatus) text(w io.Writer) {
	if s == nil || s.ClockAhead == nil {
		return
	}
	ahead := *secondsOf(s.ClockAhead)
	switch {
	case ahead > clockOff:
		row(w, "CLOCK of this machine", ahead.Round(time.Second).String()+" ahead of the store's: set it by NTP")
	case ahead < -clockOff:
		row(w, "CLOCK of this machine", (-ahead).Round(time.Second).String()+" behind the store's: set it by NTP")
	}
}
