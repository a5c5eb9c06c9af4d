package wal

import "fmt"

// State is what the server was doing when it last wrote pg_control (enum DBState, src/include/catalog/pg_control.h).
type State uint32

// The states, named as pg_controldata prints them. After a crash the file still has the one from before.
const (
	StateStartup            State = iota // starting up
	StateShutDown                        // shut down, after a shutdown checkpoint
	StateShutDownInRecovery              // shut down in recovery: a standby stopped, at no end of WAL
	StateShuttingDown                    // shutting down
	StateCrashRecovery                   // in crash recovery
	StateArchiveRecovery                 // in archive recovery, which standbys are too
	StateInProduction                    // in production
)

// String is the state as pg_controldata prints it.
func (s State) String() string {
	names := [...]string{
		"starting up", "shut down", "shut down in recovery", "shutting down", "in crash recovery",
		"in archive recovery", "in production",
	}
	if int(s) >= len(names) {
		return fmt.Sprintf("unknown state %d", uint32(s))
	}
	return names[s]
}

// WALLevel is the setting wal_level (enum WalLevel, src/include/access/xlog.h).
type WALLevel uint32

// The levels, each with all of the one before.
const (
	WALLevelMinimal WALLevel = iota
	WALLevelReplica
	WALLevelLogical
)

// String is the value of the setting.
func (l WALLevel) String() string {
	names := [...]string{"minimal", "replica", "logical"}
	if int(l) >= len(names) {
		return fmt.Sprintf("unknown level %d", uint32(l))
	}
	return names[l]
}
