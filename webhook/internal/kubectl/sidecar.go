package kubectl

import "time"

// What the sidecar's /status says beside the state. What is unknown to it is absent.

// Store is what the sidecar knows of the store itself.
type Store struct {
	// ProvenAt is when the bucket was seen to let an object be created only once.
	ProvenAt   *time.Time `json:"proven_at,omitempty"`
	Versioning string     `json:"versioning,omitempty"` // never, enabled or suspended
	// ClockAhead is how far the clock of the sidecar's machine is ahead of the store's, in seconds.
	ClockAhead *float64 `json:"clock_ahead_seconds,omitempty"`
}

// Slot is the replication slot that keeps WAL for the sidecar, and the server's settings that bound it.
type Slot struct {
	Status      string    `json:"wal_status,omitempty"` // reserved, extended, unreserved or lost
	WALLevel    string    `json:"wal_level"`
	MaxSlots    int       `json:"max_replication_slots"`
	MaxKeep     int64     `json:"max_slot_wal_keep_size_bytes"` // negative: unbounded
	IdleTimeout float64   `json:"idle_replication_slot_timeout_seconds"`
	ReadAt      time.Time `json:"read_at"`
}

// Drills is what the archive says of restore drills.
type Drills struct {
	Last   *Drill    `json:"last,omitempty"`
	Passed *Drill    `json:"last_passed,omitempty"`
	Due    time.Time `json:"due"` // when one has to have been passed at the latest
}

// Drill is one that was held.
type Drill struct {
	Passed     bool      `json:"passed"`
	Failure    string    `json:"failure,omitempty"` // why it did not pass
	VerifiedAt time.Time `json:"verified_at"`
	LSN        string    `json:"lsn,omitempty"` // up to which was replayed
}

// failed tells whether the last drill was not passed.
func (d *Drills) failed() bool { return d != nil && d.Last != nil && !d.Last.Passed }

// overdue tells whether none was passed in time.
func (d *Drills) overdue(now time.Time) bool { return d != nil && now.After(d.Due) }

// mark stands behind the state where a drill gives cause for concern.
func (d *Drills) mark(now time.Time) string {
	switch {
	case d.failed():
		return ",drill_failed"
	case d.overdue(now):
		return ",drill_overdue"
	}
	return ""
}

// cell is the age of the last drill that was passed, or what is wrong.
func (d *Drills) cell(now time.Time) string {
	switch {
	case d == nil:
		return nothing
	case d.failed():
		return "failed"
	case d.overdue(now):
		return "overdue"
	case d.Passed == nil:
		return "none yet"
	}
	return ago(&d.Passed.VerifiedAt, now)
}

// trouble is what is wrong, for people; "" if nothing is.
func (d *Drills) trouble(now time.Time) string {
	switch {
	case d.failed():
		return "the last restore drill, at " + stamp(d.Last.VerifiedAt) + ", was not passed: " + d.Last.Failure
	case d.overdue(now):
		return "a restore drill was due at " + stamp(d.Due) + " and none has been passed"
	}
	return ""
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
