package basebackup

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"outrider.dev/e2e/pgtest"
	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/wal"
)

func TestTwoAtOnce(t *testing.T) {
	w := start(t, pgtest.Options{})
	cfg := w.config()
	held := make(chan struct{})
	first := &gate{Archive: w.archive, entered: make(chan struct{}), leave: held}
	cfg.Archive = first
	done := make(chan error)
	go func() {
		_, err := New(cfg).Take(t.Context())
		done <- err
	}()
	<-first.entered
	if _, err := New(w.config()).Take(t.Context()); !errors.Is(err, errBackupRunning) {
		t.Errorf("a second snapshot: %v", err)
	}
	close(held)
	if err := <-done; err != nil {
		t.Error(err)
	}
	all, err := w.archive.Backups(t.Context())
	if err != nil || len(all) != 1 {
		t.Errorf("%d snapshots, %v", len(all), err)
	}
}

// gate stops the first upload until it is let through.
type gate struct {
	Archive
	once    sync.Once
	entered chan struct{}
	leave   <-chan struct{}
}

func (g *gate) UploadPart(ctx context.Context, backup, name string, raw io.Reader) (archive.Part, error) {
	g.once.Do(func() {
		close(g.entered)
		select {
		case <-g.leave:
		case <-ctx.Done():
		}
	})
	if err := ctx.Err(); err != nil {
		return archive.Part{}, err
	}
	return g.Archive.UploadPart(ctx, backup, name, raw)
}

func TestNameThatIsTaken(t *testing.T) {
	w := start(t, pgtest.Options{})
	cfg := w.config()
	thief := &thief{Archive: w.archive, times: 2}
	cfg.Archive = thief
	m, err := New(cfg).Take(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(thief.names) != 3 || slices.Contains(thief.names[:2], m.Name) || thief.names[0] == thief.names[1] {
		t.Errorf("the names were %v, the snapshot is %s", thief.names, m.Name)
	}
	cfg.Archive = &thief2{w.archive}
	if _, err := New(cfg).Take(t.Context()); !errors.Is(err, fs.ErrExist) {
		t.Errorf("names that are always taken: %v", err)
	}
	w.archive = archive.New(w.bucket)
	checkSessionsEnd(t, w)
}

// thief takes names before the snapshot does.
type thief struct {
	Archive
	times int
	names []string
}

func (f *thief) ClaimBackup(ctx context.Context, name string, c archive.BackupClaim) error {
	f.names = append(f.names, name)
	if len(f.names) <= f.times {
		if err := f.Archive.ClaimBackup(ctx, name, archive.BackupClaim{Epoch: 99, Instance: "other"}); err != nil {
			return err
		}
	}
	return f.Archive.ClaimBackup(ctx, name, c)
}

type thief2 struct{ Archive }

func (thief2) ClaimBackup(context.Context, string, archive.BackupClaim) error { return fs.ErrExist }

// checkSessionsEnd fails if the server stays in backup mode.
func checkSessionsEnd(t *testing.T, w *world) {
	t.Helper()
	const held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"
	for deadline := time.Now().Add(30 * time.Second); pgtest.Query[int](w.Server, held) > 0; {
		if time.Now().After(deadline) {
			t.Fatal("a backup session is still there")
		}
	}
}

func TestInterrupted(t *testing.T) {
	w := start(t, pgtest.Options{})
	for name, interrupt := range map[string]func(cancel func()){
		"cancelled": func(cancel func()) { cancel() },
		"restarted": func(func()) { w.Restart() },
		"killed":    func(func()) { w.Kill(); w.Start() },
	} {
		ctx, cancel := context.WithCancel(t.Context())
		cfg := w.config()
		held := make(chan struct{})
		g := &gate{Archive: w.archive, entered: make(chan struct{}), leave: held}
		cfg.Archive = g
		taker := New(cfg)
		taker.watch = 10 * time.Millisecond
		done := make(chan error)
		go func() {
			_, err := taker.Take(ctx)
			done <- err
		}()
		<-g.entered
		interrupt(cancel)
		// A lost session is noticed while the upload still waits; nothing has to let it through.
		err := <-done
		cancel()
		if err == nil || name == "cancelled" && !errors.Is(err, context.Canceled) || name != "cancelled" && !strings.Contains(err.Error(), "backup mode is lost") {
			t.Errorf("%s: %v", name, err)
		}
		checkSessionsEnd(t, w)
	}
	all, err := w.archive.Backups(t.Context())
	if err != nil || len(all) != 0 {
		t.Errorf("%d snapshots, %v", len(all), err)
	}
	// What is left of the attempts goes with the next success, and nothing else does.
	w.bucket.SetBytes("basebackups_005/base_000000010000000000000000/tar_partitions/part_001.tar.lz4", []byte("WAL-G, under way"))
	taker := New(w.config())
	before, err := taker.Debris(t.Context(), w.archive)
	if err != nil || len(before) != 0 {
		t.Errorf("removed %v before there was another snapshot, %v", before, err)
	}
	m := w.take(t)
	w.bucket.Fault(func(operation, _ string) error {
		if operation == "remove" {
			return fs.ErrPermission
		}
		return nil
	})
	if removed, err := taker.Debris(t.Context(), w.archive); err != nil || len(removed) != 0 || !strings.Contains(w.log.String(), "left to the retention") {
		t.Errorf("without the right to delete: %v, %v", removed, err)
	}
	w.bucket.Fault(nil)
	removed, err := taker.Debris(t.Context(), w.archive)
	if err != nil || len(removed) != 3 {
		t.Errorf("removed %v, %v", removed, err)
	}
	for _, key := range w.bucket.Keys() {
		if !strings.Contains(key, m.Name) && !strings.Contains(key, "base_000000010000000000000000/") {
			t.Errorf("%s is left", key)
		}
	}
	checkMembers(t, w, m)
}

func TestNotCommittedUnlessWholeAndDurable(t *testing.T) {
	w := start(t, pgtest.Options{})
	cfg := w.config()
	cfg.WAL = never{}
	if _, err := New(cfg).Take(t.Context()); !errors.Is(err, errNever) {
		t.Errorf("WAL that does not become durable: %v", err)
	}
	cfg = w.config()
	cfg.WAL = spoiler{func() {
		for _, key := range w.bucket.Keys() {
			if strings.HasSuffix(key, "part_001.tar.zst") {
				w.bucket.SetBytes(key, []byte("cut"))
			}
		}
	}}
	if _, err := New(cfg).Take(t.Context()); !errors.Is(err, archive.ErrCorrupt) {
		t.Errorf("a part that is cut before the end: %v", err)
	}
	cfg = w.config()
	cfg.Server = other{server{w.Server}}
	if _, err := New(cfg).Take(t.Context()); err == nil || !strings.Contains(err.Error(), "system identifier") {
		t.Errorf("the directory of another server: %v", err)
	}
	if keys := strings.Join(w.bucket.Keys(), " "); strings.Contains(keys, "sentinel") {
		t.Errorf("there is a snapshot: %s", keys)
	}
}

func TestMetricsOfTheLastSnapshotAreAbsentUntilThereIsOne(t *testing.T) {
	w := start(t, pgtest.Options{InitdbArgs: []string{"-k"}})
	reg := prometheus.NewRegistry()
	cfg := w.config()
	cfg.Metrics = NewMetrics(reg)
	values := func() map[string]float64 {
		all := map[string]float64{}
		families, err := reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			all[f.GetName()] = f.GetMetric()[0].GetGauge().GetValue() + f.GetMetric()[0].GetCounter().GetValue()
		}
		return all
	}
	if _, ok := values()["outrider_snapshot_last_timestamp_seconds"]; ok {
		t.Error("there is a last snapshot before the first")
	}
	for range 2 {
		if _, err := New(cfg).Take(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	cfg.WAL = never{}
	if _, err := New(cfg).Take(t.Context()); err == nil {
		t.Fatal("no failure")
	}
	got := values()
	for name, want := range map[string]float64{"outrider_snapshot_taken_total": 2, "outrider_snapshot_failures_total": 1, "outrider_snapshot_running": 0, "outrider_snapshot_last_bad_pages": 0} {
		if v, ok := got[name]; !ok || v != want {
			t.Errorf("%s is %v, want %v", name, v, want)
		}
	}
	if got["outrider_snapshot_read_bytes_total"] == 0 || got["outrider_snapshot_last_raw_bytes"] == 0 || got["outrider_snapshot_last_timestamp_seconds"] < 1e9 {
		t.Errorf("the metrics are %v", got)
	}
}

var errNever = errors.New("never")

type never struct{}

func (never) WaitDurable(context.Context, wal.Position) error { return errNever }

type spoiler struct{ spoil func() }

func (s spoiler) WaitDurable(context.Context, wal.Position) error { s.spoil(); return nil }

type other struct{ server }

func (o other) Facts(ctx context.Context) (Facts, error) {
	f, err := o.server.Facts(ctx)
	f.SystemIdentifier++
	return f, err
}
