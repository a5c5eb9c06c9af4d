package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"outrider.dev/e2e/stage"
)

// peer is pgBackRest with a repository on the local disk: what it writes need not go through a socket, and nobody makes
// sure that it is on the disk but itself, so it has an advantage.
type peer struct {
	b       *bench
	program string
	dir     string
	rounds  int
}

// The stanzas: of a copy of segments, and of a server.
const (
	stanzaWAL  = "wal"
	stanzaMain = "main"
)

// pgbackrest is nil where it is not installed.
func (b *bench) pgbackrest() *peer {
	program, err := exec.LookPath("pgbackrest")
	if err != nil {
		say("pgbackrest is not installed (apt-get install pgbackrest): it is left out")
		return nil
	}
	return &peer{b: b, program: program}
}

// configure makes its directories anew.
func (q *peer) configure(stanza, more string) error {
	q.rounds++
	var err error
	if q.dir, err = q.b.stage.Mkdir(fmt.Sprintf("pgbackrest-%s-%d", stanza, q.rounds)); err != nil {
		return err
	}
	for _, name := range []string{"repo", "spool", "lock", "log"} {
		if _, err := q.b.stage.Mkdir(filepath.Join(filepath.Base(q.dir), name)); err != nil {
			return err
		}
	}
	text := fmt.Sprintf(`[global]
repo1-path=%[1]s/repo
spool-path=%[1]s/spool
lock-path=%[1]s/lock
log-path=%[1]s/log
log-level-console=warn
log-level-file=off
compress-type=zst
process-max=2
archive-async=y
start-fast=y

[%[2]s]
%[3]s
`, q.dir, stanza, more)
	return os.WriteFile(filepath.Join(q.dir, "conf"), []byte(text), 0o644)
}

func (q *peer) command(stanza string, args ...string) *exec.Cmd {
	return q.b.stage.Command(q.program, append([]string{"--config=" + filepath.Join(q.dir, "conf"), "--stanza=" + stanza}, args...)...)
}

func (q *peer) walset() string { return filepath.Join(q.b.stage.Dir, "walset") }

// copySegments puts the segments where a server would have them that waits for its archive_command.
func (q *peer) copySegments(ctx context.Context, data string, names []string) error {
	script := `set -e
mkdir -p "$2/pg_wal/archive_status" "$2/global"
cp -a "$1/PG_VERSION" "$2/"
cp -a "$1/global/pg_control" "$2/global/"
shift 2
`
	if _, err := q.b.timed(ctx, q.b.stage.Command("/bin/sh", "-c", script, "sh", data, q.walset())); err != nil {
		return err
	}
	for _, name := range names {
		if _, err := q.b.timed(ctx, q.b.stage.Command("/bin/cp", "--", filepath.Join(data, "pg_wal", name), filepath.Join(q.walset(), "pg_wal", name))); err != nil {
			return err
		}
	}
	return nil
}

// push has the segments archived into a new repository, one call each as the server does it. The first call starts
// processes in the background that go ahead.
func (q *peer) push(ctx context.Context, names []string) (spent, error) {
	if err := q.configure(stanzaWAL, "pg1-path="+q.walset()); err != nil {
		return spent{}, err
	}
	if _, err := q.b.timed(ctx, q.command(stanzaWAL, "--no-online", "stanza-create")); err != nil {
		return spent{}, err
	}
	for _, name := range names {
		if err := os.WriteFile(filepath.Join(q.walset(), "pg_wal", "archive_status", name+".ready"), nil, 0o644); err != nil {
			return spent{}, err
		}
	}
	script := `cd "$1" || exit 1; shift
config=$1 program=$2; shift 2
for name; do "$program" --config="$config" --stanza=` + stanzaWAL + ` archive-push "pg_wal/$name" || exit 1; done`
	args := append([]string{"-c", script, "sh", q.walset(), filepath.Join(q.dir, "conf"), q.program}, names...)
	s, err := q.b.timed(ctx, q.b.stage.Command("/bin/sh", args...))
	if err != nil {
		return s, err
	}
	stored, err := filepath.Glob(filepath.Join(q.dir, "repo", "archive", stanzaWAL, "*", "*", strings.Repeat("[0-9A-F]", 24)+"-*.zst"))
	if err == nil && len(stored) != len(names) {
		err = fmt.Errorf("pgbackrest has stored %d of %d segments", len(stored), len(names))
	}
	return s, errors.Join(err, os.RemoveAll(q.dir))
}

// serve makes a repository for a running server.
func (q *peer) serve(ctx context.Context, p *stage.Server) error {
	socket := ""
	for _, v := range p.Env() {
		if s, ok := strings.CutPrefix(v, "PGHOST="); ok {
			socket = s
		}
	}
	// The server has no archive_command, so nobody waits for WAL: only the copying is compared.
	err := q.configure(stanzaMain, fmt.Sprintf("pg1-path=%s\npg1-socket-path=%s\npg1-user=postgres\narchive-check=n", p.Data, socket))
	if err != nil {
		return err
	}
	_, err = q.b.timed(ctx, q.command(stanzaMain, "stanza-create"))
	return err
}

func (q *peer) backup(ctx context.Context) (spent, error) {
	return q.b.timed(ctx, q.command(stanzaMain, "--type=full", "backup"))
}

// restore restores the newest backup into an empty directory, which is then removed.
func (q *peer) restore(ctx context.Context) (spent, error) {
	dir, err := q.b.stage.Mkdir("theirs")
	if err != nil {
		return spent{}, err
	}
	s, err := q.b.timed(ctx, q.command(stanzaMain, "--pg1-path="+dir, "restore"))
	return s, errors.Join(err, os.RemoveAll(dir))
}
