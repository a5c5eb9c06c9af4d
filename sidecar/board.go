package main

import (
	"sync"
	"time"

	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/drain"
	"outrider.dev/sidecar/internal/notice"
	"outrider.dev/sidecar/internal/wal"
)

// protection is the one word that says how things stand.
type protection string

// The states of protection.
const (
	stateWaiting    protection = "waiting"       // for Postgres, or for the archive to be reachable
	stateRecovering protection = "recovering"    // Postgres replays; the newest archive is complete as it is
	stateProtected  protection = "protected"     // WAL is shipped and there is a snapshot to start from
	stateNoSnapshot protection = "no_snapshot"   // WAL is shipped, the first snapshot is not there yet
	stateLagging    protection = "lagging"       // the archive does not accept WAL right now; Postgres keeps it
	stateRefused    protection = "not_protected" // something has to be done by a person; Reason says what
	stateSuperseded protection = "superseded"    // another writer has taken over
	stateClone      protection = "not_archived"  // archiving is off: a throw-away clone
	stateStopping   protection = "stopping"
	stateStopped    protection = "stopped"
)

// statusReport is the JSON of /status.
type statusReport struct {
	State             protection      `json:"state"`
	Reason            string          `json:"reason,omitempty"`
	Since             time.Time       `json:"since"`
	NotProtectedSince *time.Time      `json:"not_protected_since,omitempty"`
	Archive           string          `json:"archive"`
	Epoch             uint64          `json:"epoch,omitempty"`
	SystemIdentifier  uint64          `json:"system_identifier,string,omitempty"`
	Timeline          wal.Timeline    `json:"timeline,omitempty"`
	Flushed           *wal.LSN        `json:"flushed,omitempty"`
	Inserted          *wal.LSN        `json:"inserted,omitempty"`
	Durable           *wal.LSN        `json:"durable,omitempty"`
	UnshippedBytes    *int64          `json:"unshipped_bytes,omitempty"`
	AsyncBytes        *int64          `json:"not_flushed_bytes,omitempty"`
	AgeSeconds        *float64        `json:"unshipped_age_seconds,omitempty"`
	Trouble           string          `json:"trouble,omitempty"`
	TroubleSince      *time.Time      `json:"trouble_since,omitempty"`
	LastSnapshot      *snapshotInfo   `json:"last_snapshot,omitempty"`
	SnapshotRunning   *snapshotRun    `json:"snapshot_running,omitempty"`
	SnapshotTrouble   string          `json:"snapshot_trouble,omitempty"`
	Notice            *notice.Notice  `json:"notice,omitempty"`
	Prepared          *drain.Outcome  `json:"prepared,omitempty"`
	Version           string          `json:"version"`
	Journal           []archive.Entry `json:"journal,omitempty"`
}

type snapshotInfo struct {
	Name   string    `json:"name"`
	Start  wal.LSN   `json:"start"`
	Stop   wal.LSN   `json:"stop"`
	Taken  time.Time `json:"taken"`
	Stored int64     `json:"stored_bytes"`
	Raw    int64     `json:"raw_bytes"`
}

type snapshotRun struct {
	Since time.Time `json:"since"`
	Done  int64     `json:"done_bytes"`
	Total int64     `json:"total_bytes"`
}

// board is where the parts of the sidecar note how things stand, for /status, metrics and the log.
type board struct {
	mu     sync.Mutex
	report statusReport
	before statusReport // as things stood when the stop began
	onMove func(from, to protection, reason string)
}

func newBoard(archive, version string, onMove func(from, to protection, reason string)) *board {
	return &board{report: statusReport{State: stateWaiting, Since: time.Now(), Archive: archive, Version: version}, onMove: onMove}
}

// set moves to a state. Superseded is final.
func (b *board) set(to protection, reason string) {
	b.mu.Lock()
	r := &b.report
	from := r.State
	if from == stateSuperseded || from == to && r.Reason == reason {
		b.mu.Unlock()
		return
	}
	if to == stateStopping {
		b.before = *r
	}
	r.State, r.Reason = to, reason
	if from != to {
		r.Since = time.Now()
	}
	switch to { //nolint:exhaustive // the others say nothing about whether there is a way back
	case stateProtected, stateStopped:
		r.NotProtectedSince = nil
	case stateNoSnapshot, stateRefused, stateSuperseded:
		if r.NotProtectedSince == nil {
			now := time.Now()
			r.NotProtectedSince = &now
		}
	}
	b.mu.Unlock()
	if b.onMove != nil && from != to {
		b.onMove(from, to, reason)
	}
}

// update changes the report under the lock.
func (b *board) update(f func(*statusReport)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f(&b.report)
}

// beforeStop is how things stood when the stop began.
func (b *board) beforeStop() statusReport {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.before
}

func (b *board) snapshot() statusReport {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.report
}
