// Package restore rebuilds a data directory from an archive, or proves that there is nothing to restore.
//
// NewPlan reads the archive and decides everything: the branch of history, the snapshot, the WAL of each timeline of
// the branch up to where the next one forked off, and where recovery ends. Restore lays the snapshot down and the
// settings of the recovery; Fill lays the WAL into the spool, a directory from which PostgreSQL fetches it with the
// restore_command that Restore has set. PostgreSQL never chooses between timelines: it finds one branch in the spool,
// and of other branches only the .history files that keep their numbers from being taken again.
//
// A data directory in the making has a marker, outrider/restore.json, see Inspect:
//
//	unpacking    the marker was written first; whatever lies beside it is ours and is thrown away by another Restore
//	recovering   recovery.signal is there: Fill lays the WAL again from where pg_control says that recovery stands
//	done         PostgreSQL has removed recovery.signal: Finish takes away what is left of ours
//
// The spool holds, beside segments and .history files under their final names:
//
//	restore-command  the script that PostgreSQL runs; copies, never moves, because PostgreSQL asks twice for some names
//	SPOOL            for which restore on which boot of the machine this was laid down; another one throws all away
//	HISTORIES        names of all .history files, written once they are there
//	END              names of all segments, written once they are there: a name it lacks does not exist
//	ASKED            the segment that PostgreSQL asked for last, written by the script
//	ALIVE            changes while somebody fills the spool
//	FAILED           why the spool will never be filled; recovery stops then, without a promotion
package restore

import "errors"

// Answers of NewPlan. Any other error means that it could not be told.
var (
	// ErrNothing says that the archive is proven to be empty: there is nothing to restore.
	ErrNothing = errors.New("the archive is empty")
	// ErrNoSnapshot says that the archive is not empty, but holds no snapshot from which this restore could start.
	ErrNoSnapshot = errors.New("no usable snapshot")
	// ErrHole says that WAL which was in the archive, or must have been, is missing between the snapshot and the target.
	ErrHole = errors.New("WAL is missing in the archive")
	// ErrTargetTooEarly says that the target lies before the earliest snapshot became consistent.
	ErrTargetTooEarly = errors.New("the target is too early")
	// ErrAmbiguous says that the target lies on more than one timeline with different results.
	ErrAmbiguous = errors.New("the target is ambiguous")
	// ErrNoTimeline says that the archive cannot restore the timeline that was asked for.
	ErrNoTimeline = errors.New("no such timeline")
)

// ErrNotEmpty says that a directory holds something that is not ours. Nothing in it was changed.
var ErrNotEmpty = errors.New("the directory is not empty")
