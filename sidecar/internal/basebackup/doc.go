// Package basebackup takes snapshots: it copies a running server's data directory into the archive in the layout of
// WAL-G, and decides when the next one is due.
//
// The order is what makes a snapshot exist whole or not at all. The server enters backup mode on a session of its own;
// the name is claimed in the archive, because two attempts that begin in one segment have the same; the tree is listed
// and split into parts; parts are read, checked, compressed and stored side by side, without files in between; pg_control
// is read last; the server leaves backup mode and returns the label, which is stored; the WAL up to the end of the
// snapshot is waited for; and only then are the manifest and the sentinel written. Whatever ends an attempt before that
// leaves a directory without a sentinel, which Debris removes after the next success.
//
// Files change while they are read. PostgreSQL replays all WAL since the start of the snapshot, and that WAL holds the
// whole of each page that was touched, so it is enough that each file gives what it holds at some moment: one that grew
// is cut at the size it had when it was opened, one that shrank is padded with zeros to that size (replay truncates it),
// one that vanished is left out (replay removes it, or makes it anew). What does not belong into a snapshot is left out
// by its exact place, not by its name: see rules.go.
//
// A part is planned as a list of entries before anything is read. In a delta, files that have not changed since an earlier
// snapshot are taken out before that, by what the file system says of them, and of other files of relations only those
// pages are stored that changed, by their LSNs. When that is right, and when it is not, is in delta.go and increment.go.
// Whatever is in doubt is stored whole, and a snapshot with doubts about what it would be built on is a full one.
package basebackup
