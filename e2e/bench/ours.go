package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"outrider.dev/e2e/bench/usage"
	"outrider.dev/e2e/stage"
)

// patience bounds whatever is waited for.
const patience = 5 * time.Minute

// server makes and starts a server of pgbench's database.
func (b *bench) server(ctx context.Context, name string, scale int, settings ...string) (*stage.Server, error) {
	p, err := b.stage.NewServer(name)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	settings = append([]string{"checkpoint_timeout = 30min", "autovacuum = off"}, settings...)
	if err := p.Init(ctx, settings...); err != nil {
		return nil, err
	}
	if err := p.Start(); err != nil {
		return nil, err
	}
	if err := p.Ready(ctx); err != nil {
		return nil, err
	}
	_, err = p.Pgbench(ctx, "-i", "-q", "-s", fmt.Sprint(scale))
	return p, errors.Join(err, p.Exec(ctx, "checkpoint"))
}

// protect runs outrider beside p until it says that the database is protected.
func (b *bench) protect(ctx context.Context, c *stage.Cloud, root string, p *stage.Server) (*stage.Outrider, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	o, err := b.stage.Run(c, root, p)
	if err != nil {
		return nil, err
	}
	if err := o.Protected(ctx); err != nil {
		return nil, err
	}
	return o, nil
}

// quit ends outrider in order.
func quit(ctx context.Context, o *stage.Outrider) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := o.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	if err := o.Wait(ctx); err != nil {
		// With Postgres alive a stop is no clean one, and the exit code says so.
		var exited interface{ ExitCode() int }
		if !errors.As(err, &exited) {
			return err
		}
	}
	return nil
}

// flushed is up to where p has flushed its WAL.
func flushed(ctx context.Context, p *stage.Server) (uint64, error) {
	conn, err := pgx.Connect(ctx, p.ConnString())
	if err != nil {
		return 0, err
	}
	defer conn.Close(ctx)
	var at int64
	err = conn.QueryRow(ctx, "select pg_wal_lsn_diff(pg_current_wal_flush_lsn(), '0/0')::bigint").Scan(&at)
	return uint64(at), err
}

// durable waits until outrider has shipped everything before at. It asks seldom, because each question costs outrider one
// to the server.
func durable(ctx context.Context, o *stage.Outrider, at uint64) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(durableInterval)
	defer tick.Stop()
	for {
		st, err := o.Status(ctx)
		if err != nil && !o.Running() {
			return fmt.Errorf("outrider has ended: %w: %s", err, o.Tail(5))
		}
		if now, perr := parseLSN(st.Durable); err == nil && perr == nil && now >= at {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for all WAL to be shipped, it is up to %s: %w: %s", st.Durable, context.Cause(ctx), o.Tail(5))
		case <-tick.C:
		}
	}
}

const durableInterval = 100 * time.Millisecond

func parseLSN(s string) (uint64, error) {
	var high, low uint64
	if _, err := fmt.Sscanf(s, "%X/%X", &high, &low); err != nil {
		return 0, fmt.Errorf("%q is no position in the WAL: %w", s, err)
	}
	return high<<32 | low, nil
}

// logged finds the last entry with a message in a log of JSON lines and reads it into v.
func logged(path, message string, v any) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	found := false
	for s := bufio.NewScanner(f); s.Scan(); {
		var head struct {
			Msg string `json:"msg"`
		}
		if json.Unmarshal(s.Bytes(), &head) != nil || head.Msg != message {
			continue
		}
		if err := json.Unmarshal(s.Bytes(), v); err != nil {
			return fmt.Errorf("reading %s: %w", filepath.Base(path), err)
		}
		found = true
	}
	if !found {
		return fmt.Errorf("%s does not say %q", filepath.Base(path), message)
	}
	return nil
}

// watcher looks at the memory of a process and the figures of outrider until it is stopped.
type watcher struct {
	cancel context.CancelFunc
	done   chan struct{}
	err    error

	anonymous, heap int64     // most that was seen
	ages            []float64 // seconds
}

const (
	memoryInterval = 50 * time.Millisecond
	ageInterval    = 20 * time.Millisecond
	heapInterval   = time.Second
)

// watch begins to look; ages costs outrider a question to the server each time.
func watch(ctx context.Context, o *stage.Outrider, ages bool) (*watcher, error) {
	if err := usage.ResetPeak(o.PID()); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	w := &watcher{cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(w.done)
		w.err = w.run(ctx, o, ages)
	}()
	return w, nil
}

func (w *watcher) run(ctx context.Context, o *stage.Outrider, ages bool) error {
	memory, age, heap := time.NewTicker(memoryInterval), time.NewTicker(ageInterval), time.NewTicker(heapInterval)
	defer memory.Stop()
	defer age.Stop()
	defer heap.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-memory.C:
			m, err := usage.MemoryOf(o.PID())
			if err != nil {
				return err
			}
			w.anonymous = max(w.anonymous, m.Anonymous)
		case <-age.C:
			if !ages {
				continue
			}
			st, err := o.Status(ctx)
			if err != nil && ctx.Err() == nil {
				return err
			}
			if st.AgeSeconds != nil {
				w.ages = append(w.ages, *st.AgeSeconds)
			}
		case <-heap.C:
			n, err := heapOf(ctx, o)
			if err != nil && ctx.Err() == nil {
				return err
			}
			w.heap = max(w.heap, n)
		}
	}
}

// stop ends the looking and returns the most that was resident since it began.
func (w *watcher) stop(o *stage.Outrider) (peak int64, err error) {
	w.cancel()
	<-w.done
	if w.err != nil {
		return 0, w.err
	}
	m, err := usage.MemoryOf(o.PID())
	return m.Peak, err
}

// heapOf is the live and the dead part of the Go heap.
func heapOf(ctx context.Context, o *stage.Outrider) (int64, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, o.URL+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	a, err := (&http.Client{}).Do(r)
	if err != nil {
		return 0, err
	}
	defer a.Body.Close()
	text, err := io.ReadAll(a.Body)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		var n float64
		if _, err := fmt.Sscanf(line, "go_memstats_heap_alloc_bytes %g", &n); err == nil {
			return int64(n), nil
		}
	}
	return 0, errors.New("the metrics of outrider do not have the size of its heap")
}
