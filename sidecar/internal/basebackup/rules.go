package basebackup

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// verdict is what becomes of something in the data directory.
type verdict int

const (
	keep  verdict = iota
	empty         // a directory: itself, without what is in it
	skip
)

// judge decides by the exact place, a path relative to the data directory with slashes. The directories whose content
// is left out are those that the server fills anew when it starts (src/backend/backup/basebackup.c); files are those
// that belong to the running server, to an earlier backup, or to a recovery that is not the next one. Relations are
// judged by relations.skips.
func judge(name string) verdict {
	top, below, deep := strings.Cut(name, "/")
	if !deep {
		return judgeTop(top)
	}
	last := name[strings.LastIndexByte(name, '/')+1:]
	switch {
	case (top == "global" || isDatabase(name[:len(name)-len(last)-1])) && strings.HasPrefix(last, "pg_internal.init"):
		return skip // a cache; the server writes "pg_internal.init.<pid>" first
	case top == "base" && below == "pgsql_tmp":
		return skip
	case top == "pg_tblspc" && last == "pgsql_tmp" && strings.Count(below, "/") == 2:
		return skip // pg_tblspc/<oid>/PG_<version>/pgsql_tmp
	}
	return keep
}

func judgeTop(name string) verdict {
	switch name {
	case "pg_wal", "pg_replslot", "pg_dynshmem", "pg_notify", "pg_serial", "pg_snapshots", "pg_stat_tmp", "pg_subtrans":
		return empty
	case "postmaster.pid", "postmaster.opts", "backup_label", "backup_label.old", "tablespace_map", "tablespace_map.old",
		"backup_manifest", "current_logfiles.tmp", "postgresql.auto.conf.tmp",
		"outrider",   // ours: the marker of a restore, and its spool where that lies in the data directory
		"lost+found": // of a file system that is mounted here
		return skip
	}
	if strings.HasSuffix(name, ".signal") {
		return skip
	}
	return keep
}

// isDatabase tells whether a path is that of a database's directory, in the default tablespace or in another one.
func isDatabase(name string) bool {
	parts := strings.Split(name, "/")
	switch {
	case len(parts) == 2 && parts[0] == "base":
	case len(parts) == 4 && parts[0] == "pg_tblspc":
	default:
		return false
	}
	return isNumber(parts[len(parts)-1])
}

// holdsRelations tells whether a path is that of a directory with relations.
func holdsRelations(name string) bool { return name == "global" || isDatabase(name) }

func isNumber(s string) bool {
	_, err := strconv.ParseUint(s, 10, 32)
	return err == nil
}

// versionDirectory is the only directory of a tablespace that belongs to this server
// (TABLESPACE_VERSION_DIRECTORY, src/include/common/relpath.h). Others are those of servers before a pg_upgrade.
func versionDirectory(f Facts) string {
	return fmt.Sprintf("PG_%d_%d", f.VersionNum/10000, f.CatalogVersion)
}

// ownsSymlink tells whether a directory is one of the server's own, which an administrator may have moved elsewhere
// and left a link to. Behind all other links to directories there can be anything.
func ownsSymlink(name string) bool {
	switch name {
	case "base", "global", "pg_commit_ts", "pg_logical", "pg_multixact", "pg_stat", "pg_twophase", "pg_xact":
		return true
	}
	return isDatabase(name)
}

// relationNames know the names of relations' files: relfilenode, fork, segment (relpath.h). Those of temporary
// relations begin with "t<backend>_".
type relationNames struct{ permanent, temporary *regexp.Regexp }

func newRelationNames() relationNames {
	return relationNames{
		permanent: regexp.MustCompile(`^([0-9]+)(_fsm|_vm|_init)?(?:\.([0-9]+))?$`),
		temporary: regexp.MustCompile(`^t[0-9]+_[0-9]+(_fsm|_vm|_init)?(?:\.[0-9]+)?$`),
	}
}

// relations are the files of one directory that holds relations.
type relations struct {
	names    relationNames
	unlogged map[string]bool // relfilenodes that have an init fork
}

func (n relationNames) in(files []string) relations {
	r := relations{names: n, unlogged: map[string]bool{}}
	for _, name := range files {
		if node, ok := strings.CutSuffix(name, "_init"); ok && isNumber(node) {
			r.unlogged[node] = true
		}
	}
	return r
}

// skips tells which files the server empties when it starts after a crash: temporary relations, and all of an unlogged
// relation but its init fork, from which it makes the rest.
func (r relations) skips(file string) bool {
	if file[0] == 't' {
		return r.names.temporary.MatchString(file)
	}
	m := r.names.permanent.FindStringSubmatch(file)
	return len(m) > 2 && r.unlogged[m[1]] && m[2] != "_init"
}

// segment is the number of a relation's file within its fork, noRelation for a file of something else.
func (r relations) segment(file string) int32 {
	m := r.names.permanent.FindStringSubmatch(file)
	if len(m) < 4 {
		return noRelation
	}
	if m[3] == "" {
		return 0
	}
	n, err := strconv.ParseInt(m[3], 10, 32)
	if err != nil {
		return noRelation
	}
	return int32(n)
}

const noRelation int32 = -1
