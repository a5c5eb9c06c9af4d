// Package postgres is what Outrider asks the server: positions, the slot that keeps WAL, checkpoints, backup mode, and
// the few changes of settings that a restore or a fence needs. It is the only package that speaks to PostgreSQL, and it
// reads no WAL and no data files.
//
// Conn is one pinned session: as long as it lives, questions are answered even when all other connections are taken.
// What takes long (a checkpoint, backup mode, other databases) uses sessions of its own, so positions stay available.
//
// REPLICATION and pg_monitor are enough to ship WAL. A checkpoint wants pg_checkpoint (15 or later) or EXECUTE on the
// backup functions; a snapshot wants the latter; ending sessions wants pg_signal_backend; settings want a superuser or
// GRANT ALTER SYSTEM ON PARAMETER (15 or later). An error about a missing right names the GRANT.
package postgres
