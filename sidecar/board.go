package main

import (
	"maps"
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

// allStates are the values of the label state of outrider_state.
func allStates() []protection {
	return []protection{
		stateWaiting, stateRecovering, stateProtected, stateNoSnapshot, stateLagging, stateRefused, stateSuperseded, stateClone, stateStopping,
		stateStopped,
	}
}

// statusReport is the JSON of /status.
type statusReport struct {
	State             protection   `json:"state"`
	Reason            string       `json:"reason,omitempty"`
	Since             time.Time    `json:"since"`
	NotProtectedSince *time.Time   `json:"not_protected_since,omitempty"`
	Archive           string       `json:"archive"`
	Epoch             uint64       `json:"epoch,omitempty"`
	SystemIdentifier  uint64       `json:"system_identifier,string,omitempty"`
	Timeline          wal.Timeline `json:"timeline,omitempty"`
	Flushed           *wal.LSN     `json:"flushed,omitempty"`
	Inserted          *wal.LSN     `json:"inserted,omitempty"`
	Durable           *wal.LSN     `json:"durable,omitempty"`
	UnshippedBytes    *int64       `json:"unshipped_bytes,omitempty"`
	AsyncBytes        *int64       `json:"not_flushed_bytes,omitempty"`
	AgeSeconds        *float64     `json:"unshipped_age_seconds,omitempty"`
	Trouble           string       `json:"trouble,omitempty"`
	TroubleSince      *time.Time   `json:"trouble_since,omitempty"`
	outlook
	Drills          *drillStatus       `json:"restore_drills,omitempty"` // nil without drill-max-age, or not known yet
	Holdings        *archived          `json:"archived,omitempty"`
	Store           *storeStatus       `json:"store,omitempty"` // nil before the first answer
	Slot            *slotStatus        `json:"slot,omitempty"`  // nil while nothing is shipped
	LastSnapshot    *snapshotInfo      `json:"last_snapshot,omitempty"`
	SnapshotRunning *snapshotRun       `json:"snapshot_running,omitempty"`
	SnapshotTrouble string             `json:"snapshot_trouble,omitempty"`
	Notice          *notice.Notice     `json:"notice,omitempty"`
	Prepared        *drain.Outcome     `json:"prepared,omitempty"`
	StopPhases      map[string]float64 `json:"stop_phases_seconds,omitempty"`
	Restored        *arrival           `json:"restored,omitempty"`
	Warnings        []string           `json:"warnings,omitempty"` // what of the server or the machine is not as the database expects it
	Version         string             `json:"version"`
	Journal         []archive.Entry    `json:"journal,omitempty"`
}

type snapshotInfo struct {
	Name   string    `json:"name"`
	Start  wal.LSN   `json:"start"`
	Stop   wal.LSN   `json:"stop"`
	Taken  time.Time `json:"taken"`
	Stored int64     `json:"stored_bytes"`
	Raw    int64     `json:"raw_bytes"`
}

// archived is what lies in the archive.
type archived struct {
	Objects int64 `json:"objects"`
	Bytes   int64 `json:"bytes"`
}

// arrival is how the restore went that the running server came out of.
type arrival struct {
	Snapshot string             `json:"snapshot"`
	Started  time.Time          `json:"started_at"`
	Finished time.Time          `json:"finished_at"` // when the server was seen to be promoted
	Phases   map[string]float64 `json:"phases_seconds"`
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
	before statusReport         // as things stood when the stop began
	phases map[string]time.Time // when each phase of a stop began; see phase
	onMove func(from, to protection, reason string)
	ages   ages // has a lock of its own
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
		b.stopPhase(to)
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

// Phases of a stop, as metrics and status name them.
const (
	phaseCheckpoint = "checkpoint" // of Prepare
	phaseFlush      = "flush"      // of Prepare: until what was flushed is durable
	phasePostgres   = "postgres"   // from when Postgres is seen to stop until the sidecar is told to go
	phaseFinish     = "finish"     // from then until the receipt is written
)

// stopPhase keeps the clock of the stop. The caller holds the lock.
func (b *board) stopPhase(to protection) {
	switch to { //nolint:exhaustive // the others are no phases of a stop
	case stateStopping:
		b.lap(phasePostgres)
		b.begin(phaseFinish)
	case stateStopped:
		b.lap(phaseFinish)
	case stateProtected, stateNoSnapshot:
		delete(b.phases, phasePostgres) // it was started again
	}
}

func (b *board) begin(phase string) {
	if b.phases == nil {
		b.phases = map[string]time.Time{}
	}
	if _, running := b.phases[phase]; !running {
		b.phases[phase] = time.Now()
	}
}

func (b *board) lap(phase string) {
	if began, running := b.phases[phase]; running {
		b.took(phase, time.Since(began))
		delete(b.phases, phase)
	}
}

// took notes how long a phase lasted. Reports share the map, so it is never changed.
func (b *board) took(phase string, d time.Duration) {
	all := maps.Clone(b.report.StopPhases)
	if all == nil {
		all = map[string]float64{}
	}
	all[phase] = d.Seconds()
	b.report.StopPhases = all
}

// prepared notes what came of a Prepare.
func (b *board) prepared(o drain.Outcome) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.report.Prepared = &o
	checkpoint := time.Duration(o.Checkpoint * float64(time.Second))
	b.took(phaseCheckpoint, checkpoint)
	b.took(phaseFlush, max(o.Took-checkpoint, 0))
}

// postgresStops notes that Postgres was seen to stop.
func (b *board) postgresStops() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.begin(phasePostgres)
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
