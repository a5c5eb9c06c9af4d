package main

// Events of the journal that `outrider why` makes a time line of. The names are part of the archive's format: entries of
// earlier versions stay readable, so none is ever given another meaning.
const (
	eventNotice             = "notice"
	eventNoticeWithdrawn    = "notice_withdrawn"
	eventPrepared           = "prepared"            // a checkpoint and a flush, for a notice or a preStop hook
	eventEvacuationAsked    = "evacuation_asked"    // and below: see the package evacuation
	eventEvacuationAnswered = "evacuation_answered" // what the webhook's process did: the taint, the eviction
	eventEvacuationFailed   = "evacuation_failed"
	eventPostgresStopping   = "postgres_stopping" // the postmaster said that it shuts down
	eventPostgresDown       = "postgres_down"     // found by the stop: no postmaster lives on the directory
	eventFinished           = "finished"
	eventState              = "state"
	eventSuperseded         = "superseded"
	eventFencedReadOnly     = "fenced_read_only"
	eventGap                = "gap"
	eventShipping           = "shipping"      // the server was met out of recovery: it accepts writes
	eventShippingRest       = "shipping_rest" // of a server that was gone when the stop met it
	eventRestored           = "restored"
	eventRestoredShort      = "restored_short" // the recovery ended before the end of the archive
	eventRestoreFailed      = "restore_failed" // the WAL for the recovery could not be fetched
	eventFirstWrite         = "first_write"    // the first commit of an epoch is in the archive
)
