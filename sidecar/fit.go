package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"outrider.dev/sidecar/internal/postgres"
	"outrider.dev/sidecar/internal/restore"
)

// lookAtFit finds out, once a voyage, whether the server and the machine are what the database was written with: a
// restore, or a disk that moves on, meets another image as easily as another machine. Nothing of it keeps WAL from being
// shipped, so it is said and nothing more.
func (v *voyage) lookAtFit(ctx context.Context) {
	fit, err := v.conn.Fit(ctx)
	if err != nil && ctx.Err() == nil {
		v.log.Warn("it could not be told of all databases whether they and this machine go together", "error", err)
	}
	if ctx.Err() != nil {
		return
	}
	words := slices.Concat(v.sinceRestore(), wordsOfFit(fit))
	if where := v.door.hidden(); where != "" {
		words = append(words, fmt.Sprintf("the role may not read %s, where the database would be after pg_upgrade: a restore could not tell that it is not, and would wait. Allow oss:GetObject there too", where))
	}
	before := v.board.snapshot().Warnings
	v.board.update(func(r *statusReport) { r.Warnings = words })
	if len(words) == 0 || slices.Equal(words, before) {
		return
	}
	v.note("does_not_fit", "warnings", words)
	for _, w := range words {
		v.log.Warn("the database does not fit this server or machine", "warning", w)
	}
}

// rememberOrigin reads of which snapshot the server came out. It has to be asked before the marker of the restore is
// taken away, and it is kept beyond that: the server may be restarted with a library still missing.
func (v *voyage) rememberOrigin() {
	switch m, err := restore.ReadMarker(v.files.pgdata); {
	case err == nil:
		v.origin = &m.Plan.Snapshot.Versions
	case !errors.Is(err, fs.ErrNotExist):
		v.log.Warn("the marker of a restore cannot be read", "error", err)
	}
}

// sinceRestore compares the server with the one that the snapshot was taken of which it came out.
func (v *voyage) sinceRestore() []string {
	if v.origin == nil {
		return nil
	}
	return wordsSince(*v.origin, v.server)
}

func wordsSince(was restore.Versions, now postgres.Server) []string {
	var words []string
	if was.Server > now.VersionNum {
		words = append(words, fmt.Sprintf("the snapshot is of PostgreSQL %s, this server is %s: use an image that is at least as new",
			versionText(was.Server), versionText(now.VersionNum)))
	}
	has := libraries(now.Preload)
	for _, lib := range libraries(was.Preload) {
		if !slices.Contains(has, lib) {
			words = append(words, fmt.Sprintf("shared_preload_libraries had %s when the snapshot was taken, and has not now: what needs it does not work", lib))
		}
	}
	return words
}

func libraries(setting string) []string {
	var all []string
	for lib := range strings.SplitSeq(setting, ",") {
		if lib = strings.Trim(strings.TrimSpace(lib), `"`); lib != "" {
			all = append(all, lib)
		}
	}
	return all
}

// versionText is server_version_num as people write it, since 10.
func versionText(n int) string { return fmt.Sprintf("%d.%d", n/10000, n%10000) }

func wordsOfFit(f postgres.Fit) []string {
	var words []string
	for _, m := range f.Collations {
		what, refresh := "the collation "+m.Name, fmt.Sprintf("ALTER COLLATION %q REFRESH VERSION", m.Name)
		if m.Name == "" {
			what, refresh = "the default collation", fmt.Sprintf("ALTER DATABASE %q REFRESH COLLATION VERSION", m.Database)
		}
		words = append(words, fmt.Sprintf("database %s was sorted by version %s of %s, this machine has %s: indexes on text may miss rows. REINDEX DATABASE %q, then %s",
			m.Database, m.Was, what, strings.Join(m.Now, ", "), m.Database, refresh))
	}
	for _, m := range f.Extensions {
		has := "does not have it"
		if len(m.Now) > 0 {
			has = "has " + strings.Join(m.Now, ", ")
		}
		words = append(words, fmt.Sprintf("database %s has extension %s %s, this machine %s: use the image that it was made with, or ALTER EXTENSION %q UPDATE",
			m.Database, m.Name, m.Was, has, m.Name))
	}
	return words
}
