package restore

import (
	"archive/tar"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"regexp"
	"strings"

	"outrider.dev/sidecar/internal/archive"
)

// Files that are kept in memory while parts are unpacked: without pg_control no server starts on the directory, and
// the label comes from the part that is made for it, whatever else lies in the others.
const (
	controlFile       = "global/pg_control"
	labelFile         = "backup_label"
	tablespaceMapFile = "tablespace_map"
)

func isHeld(name string) bool {
	return name == controlFile || name == labelFile || name == tablespaceMapFile
}

// WAL-G gives these two parts their names; what they hold wins over what the others hold.
var (
	labelPart   = regexp.MustCompile(`^.*?backup_label\.tar(\..+)?$`)
	controlPart = regexp.MustCompile(`^.*?pg_control\.tar(\..+)?$`)
)

// cleanName is the path of a member relative to the data directory, "." for that itself. WAL-G begins names with a
// slash, tar with "./".
func cleanName(name string) (string, error) {
	clean := strings.TrimLeft(name, "/")
	clean = strings.TrimRight(clean, "/")
	for strings.HasPrefix(clean, "./") {
		clean = strings.TrimLeft(clean[2:], "/")
	}
	if clean == "" || clean == "." {
		return ".", nil
	}
	if !filepath.IsLocal(clean) || path.Clean(clean) != clean || strings.ContainsRune(clean, 0) || strings.ContainsRune(clean, '\\') {
		return "", fmt.Errorf("%w: a member is called %q, which is no place in a data directory", archive.ErrCorrupt, name)
	}
	return clean, nil
}

// leftOut tells which members are not laid down: WAL, which comes from the archive of WAL alone (a segment that lies
// here could belong to another branch), slots, which would keep WAL for nobody, what belongs to a running server, and
// what is ours.
func leftOut(name string) bool {
	switch name {
	case "postmaster.pid", "postmaster.opts", "recovery.signal", "standby.signal", "recovery.conf", "recovery.done",
		"backup_label.old", "tablespace_map.old", "backup_manifest", "postgresql.auto.conf.tmp":
		return true
	}
	dir, rest, _ := strings.Cut(name, "/")
	switch dir {
	case ownDir:
		return true
	case "pg_wal", "pg_replslot":
		return rest != "" && rest != "archive_status"
	}
	return false
}

// emptyDirs are those that PostgreSQL wants and that snapshots may lack because they were empty (subdirs of initdb.c).
func emptyDirs() []string {
	return []string{
		"pg_wal", "pg_wal/archive_status", "pg_commit_ts", "pg_dynshmem", "pg_logical", "pg_logical/mappings",
		"pg_logical/snapshots", "pg_notify", "pg_replslot", "pg_serial", "pg_snapshots", "pg_stat", "pg_stat_tmp",
		"pg_subtrans", "pg_tblspc", "pg_twophase",
	}
}

// modeOf is the permissions of a member, without set-id and sticky bits, and never less than its owner needs.
func modeOf(h *tar.Header) fs.FileMode {
	mode := fs.FileMode(h.Mode) & fs.ModePerm
	if h.Typeflag == tar.TypeDir {
		return mode | 0o700
	}
	return mode | 0o600
}
