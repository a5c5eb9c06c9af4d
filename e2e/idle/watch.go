package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"outrider.dev/e2e/bench/usage"
	"outrider.dev/e2e/stage"
)

// scene is one idle database.
type scene struct {
	name       string
	schedule   string        // of snapshots; "" for the default
	checkpoint time.Duration // between checkpoints that are asked for; 0 for none
}

// subject is a scene that has been set up.
type subject struct {
	scene
	stage    *stage.Stage
	cloud    *stage.Cloud
	server   *stage.Server
	outrider *stage.Outrider
	root     string
}

// settleTime is how long nothing may have moved before the watching begins. A server notes its running transactions some
// time after it wrote anything else: the background writer does so each 15 s, and may have gone to sleep for 10 s.
const settleTime = 40 * time.Second

// watch sets a scene up and watches it.
func watch(ctx context.Context, bin string, w watching, sc scene) (f figures, err error) {
	st, err := stage.New(bin)
	if err != nil {
		return f, err
	}
	defer func() {
		if w.keep || err != nil {
			st.Stop()
			err = errors.Join(err, leftBehind(err, st.Dir))
			return
		}
		err = st.Close()
	}()
	s := &subject{scene: sc, stage: st, root: stage.Root(sc.name)}
	if err := s.setUp(ctx); err != nil {
		return f, fmt.Errorf("setting up the scene %q: %w", sc.name, err)
	}
	if f, err = s.measure(ctx, w.long); err != nil {
		return f, fmt.Errorf("watching the scene %q: %w: %s", sc.name, err, s.outrider.Tail(5))
	}
	return f, nil
}

// leftBehind says where the logs are, if somebody will want them.
func leftBehind(err error, dir string) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("the logs are in %s", dir)
}

func (s *subject) setUp(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, 5*time.Minute, errors.New("the database does not come to rest"))
	defer cancel()
	var err error
	if s.cloud, err = s.stage.StartCloud(ctx); err != nil {
		return err
	}
	if s.server, err = s.stage.NewServer(s.name); err != nil {
		return err
	}
	// The server's log tells which questions the sidecar asks.
	if err := s.server.Init(ctx, "log_statement = all", "log_line_prefix = '%a|'"); err != nil {
		return err
	}
	if err := s.server.Start(); err != nil {
		return err
	}
	if err := s.server.Ready(ctx); err != nil {
		return err
	}
	if _, err := s.server.Pgbench(ctx, "-i", "-q", "-s", "5"); err != nil {
		return err
	}
	if err := s.settle(ctx); err != nil {
		return err
	}
	var args []string
	if s.schedule != "" {
		args = append(args, "--backup-schedule", s.schedule)
	}
	if s.outrider, err = s.stage.Run(s.cloud, s.root, s.server, args...); err != nil {
		return err
	}
	if err := s.outrider.Protected(ctx); err != nil {
		return err
	}
	// The end of a snapshot would make the server write a checkpoint while it is watched.
	if err := s.server.Exec(ctx, "checkpoint"); err != nil {
		return err
	}
	return s.rest(ctx, func() (string, error) {
		st, err := s.outrider.Status(ctx)
		if err == nil && st.Durable != st.Flushed {
			return time.Now().String(), nil // never the same
		}
		return st.Durable, err
	})
}

// settle waits until all that the server itself has to do after a load is done. Autovacuum visits one database a minute
// and finds work in each that initdb made, so it is hurried.
func (s *subject) settle(ctx context.Context) error {
	if err := s.set(ctx, "alter system set autovacuum_naptime = '1s'"); err != nil {
		return err
	}
	if err := s.rest(ctx, func() (string, error) {
		at, err := s.written(ctx)
		return fmt.Sprint(at), err
	}); err != nil {
		return err
	}
	return s.set(ctx, "alter system reset autovacuum_naptime")
}

// rest waits until a position has not moved for a while.
func (s *subject) rest(ctx context.Context, position func() (string, error)) error {
	var last string
	var since time.Time
	return stage.Until(ctx, "a database at rest", func() (bool, error) {
		now, err := position()
		if err != nil {
			return false, err
		}
		if now != last {
			last, since = now, time.Now()
		}
		return time.Since(since) > settleTime, nil
	})
}

// written is how much WAL there is.
func (s *subject) written(ctx context.Context) (n int64, err error) {
	conn, err := pgx.Connect(ctx, s.server.ConnString())
	if err != nil {
		return 0, err
	}
	defer conn.Close(ctx)
	err = conn.QueryRow(ctx, "select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint").Scan(&n)
	return n, err
}

// set changes the configuration of the server.
func (s *subject) set(ctx context.Context, statement string) error {
	if err := s.server.Exec(ctx, statement); err != nil {
		return err
	}
	return s.server.Exec(ctx, "select pg_reload_conf()")
}

// reading is what has been used so far.
type reading struct {
	at        time.Time
	cpu, tree time.Duration
	wal       int64
	memory    usage.Memory
	queries   map[string]int
}

func (s *subject) read(ctx context.Context) (r reading, err error) {
	r.at = time.Now()
	if r.cpu, err = usage.CPU(s.outrider.PID()); err != nil {
		return r, err
	}
	postmaster, err := usage.Postmaster(s.server.Data)
	if err != nil {
		return r, err
	}
	if r.tree, err = usage.TreeCPU(postmaster); err != nil {
		return r, err
	}
	if r.memory, err = usage.MemoryOf(s.outrider.PID()); err != nil {
		return r, err
	}
	if r.wal, err = s.written(ctx); err != nil {
		return r, fmt.Errorf("asking the server how much WAL there is: %w", err)
	}
	r.queries = queriesOf("outrider", s.server.Log(1<<30))
	return r, nil
}

// countSnapshots asks the archive, which costs requests: it is done outside of the time that is watched.
func (s *subject) countSnapshots(ctx context.Context) (int, error) {
	out, err := s.stage.Do(ctx, s.cloud, s.root, "list", "-o", "json")
	if err != nil {
		return 0, err
	}
	var list struct {
		Snapshots []json.RawMessage `json:"snapshots"`
	}
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		return 0, fmt.Errorf("reading what outrider list says: %w: %s", err, out)
	}
	return len(list.Snapshots), nil
}

func (s *subject) measure(ctx context.Context, long time.Duration) (figures, error) {
	before, err := s.countSnapshots(ctx)
	if err != nil {
		return figures{}, err
	}
	if _, err := s.cloud.Control(ctx, "DELETE", "requests", ""); err != nil {
		return figures{}, err
	}
	first, err := s.read(ctx)
	if err != nil {
		return figures{}, err
	}
	checkpoints, err := s.pass(ctx, long)
	if err != nil {
		return figures{}, err
	}
	last, err := s.read(ctx)
	if err != nil {
		return figures{}, err
	}
	f := difference(first, last)
	f.Checkpoints, f.SnapshotsBefore = checkpoints, before
	if err := f.count(ctx, s.cloud); err != nil {
		return f, err
	}
	f.SnapshotsAfter, err = s.countSnapshots(ctx)
	return f, err
}

// pass lets time go by, with checkpoints if the scene has any.
func (s *subject) pass(ctx context.Context, long time.Duration) (checkpoints int, err error) {
	end := time.NewTimer(long)
	defer end.Stop()
	next := make(<-chan time.Time)
	if s.checkpoint > 0 {
		tick := time.NewTicker(s.checkpoint)
		defer tick.Stop()
		next = tick.C
	}
	for {
		select {
		case <-ctx.Done():
			return checkpoints, context.Cause(ctx)
		case <-end.C:
			if !s.outrider.Running() {
				return checkpoints, errors.New("outrider has ended")
			}
			return checkpoints, nil
		case <-next:
			if err := s.server.Exec(ctx, "checkpoint"); err != nil {
				return checkpoints, err
			}
			checkpoints++
		}
	}
}
