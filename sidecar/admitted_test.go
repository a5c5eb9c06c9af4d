package main

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"outrider.dev/e2e/pgtest"
	"outrider.dev/sidecar/internal/restore"
)

// A pod whose containers are made anew starts on its own disk although the archive is away; every other pod waits.
func TestOwnDiskIsTrustedWhileTheArchiveIsAway(t *testing.T) {
	s := pgtest.Start(t, pgtest.Options{})
	s.Stop(pgtest.Fast)
	away := coded{errors.New("connection refused"), errStore}
	judge := func(t *testing.T, dir, spool, pod string) *judgement {
		env := map[string]string{"PGDATA": dir, "OUTRIDER_SPOOL": spool, "OUTRIDER_POD_UID": pod}
		a := newApp(nil, func(k string) (string, bool) { v, ok := env[k]; return v, ok }, nil, nil)
		a.log = slog.New(slog.NewTextHandler(t.Output(), nil))
		return a.newJudgement()
	}
	empty := t.TempDir()
	half := t.TempDir()
	if err := os.WriteFile(filepath.Join(half, "PG_VERSION"), []byte("15\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		before, now string // directory when the pod was let through, and now
		pod         string // now
		cause       error
		wait        time.Duration
		started     bool
	}{
		"the same pod and disk":             {before: s.DataDir, now: s.DataDir, pod: "a", cause: away, wait: time.Minute, started: true},
		"initdb came in between":            {before: empty, now: s.DataDir, pod: "a", cause: away, wait: time.Minute, started: true},
		"not at once":                       {before: s.DataDir, now: s.DataDir, pod: "a", cause: away, wait: trustAfter / 2},
		"another pod":                       {before: s.DataDir, now: s.DataDir, pod: "b", cause: away, wait: time.Hour},
		"no pod that is known":              {before: s.DataDir, now: s.DataDir, cause: away, wait: time.Hour},
		"never let through":                 {now: s.DataDir, pod: "a", cause: away, wait: time.Hour},
		"a disk that has become empty":      {before: s.DataDir, now: empty, pod: "a", cause: away, wait: time.Hour},
		"half a database":                   {before: s.DataDir, now: half, pod: "a", cause: away, wait: time.Hour},
		"a disk that was decided to be bad": {before: s.DataDir, now: s.DataDir, pod: "a", cause: restore.ErrNotEmpty, wait: time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			spool := t.TempDir()
			if c.before != "" {
				if err := judge(t, c.before, spool, "a").settle(nil); err != nil {
					t.Fatal(err)
				}
			}
			synctest.Test(t, func(t *testing.T) {
				j := judge(t, c.now, spool, c.pod)
				err := j.settle(c.cause)
				if err == nil {
					t.Fatal("it is not asked again")
				}
				time.Sleep(c.wait)
				if err = j.settle(c.cause); (err == nil) != c.started || err != nil && !errors.Is(err, c.cause) {
					t.Errorf("%v", err)
				}
			})
		})
	}
}

// Nothing is noted, and nothing goes wrong, where there is no spool, as outside of pods.
func TestWithoutASpoolNothingIsRemembered(t *testing.T) {
	a := newApp(nil, func(string) (string, bool) { return "", false }, nil, nil)
	a.log = slog.New(slog.NewTextHandler(t.Output(), nil))
	away := coded{errors.New("connection refused"), errStore}
	j := a.newJudgement()
	if err := j.settle(nil); err != nil {
		t.Error(err)
	}
	j.since = time.Now().Add(-time.Hour)
	if err := j.settle(away); !errors.Is(err, away) {
		t.Error(err)
	}
	j.pod, j.spool, j.dir = "a", filepath.Join(t.TempDir(), "gone"), t.TempDir()
	if err := j.settle(nil); err != nil {
		t.Errorf("a spool that cannot be written to: %v", err)
	}
}
