package main

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/archive/archivetest"
	"outrider.dev/sidecar/internal/epoch"
	"outrider.dev/sidecar/internal/restore"
	"outrider.dev/sidecar/internal/ship"
)

// That it cannot be told whether a restore was passed by another writer ends nothing: it is asked again, as the server waits
// for its WAL. A restore that was passed gets none, but for one by hand.
func TestRestoreGoesOnUnlessItWasPassed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := archivetest.Memory()
		a := archive.New(b)
		writer := archive.Identity{Instance: "this"}
		g := newGuard(runConfig{log: slog.New(slog.DiscardHandler), identify: func() (archive.Identity, error) { return writer, nil }}, &door{}, nil)
		open := func(context.Context) (*archive.Archive, error) { return a, nil }
		ask := func(epoch uint64) error {
			_, err := g.sourceOf(t.Context(), restore.Marker{Epoch: epoch}, open)
			return err
		}
		claim := func(instance string) {
			t.Helper()
			if _, _, err := epoch.Claim(t.Context(), a, epoch.Request{Writer: archive.Identity{Instance: instance}}); err != nil {
				t.Fatal(err)
			}
		}
		claim("this")
		began := time.Now()
		b.Fault(func(string, string) error {
			if time.Since(began) < time.Minute {
				return errors.New("no route")
			}
			return nil
		})
		if err := ask(1); err != nil || time.Since(began) < time.Minute {
			t.Errorf("a store that came back after a minute: %v after %s", err, time.Since(began))
		}
		claim("another")
		if err := ask(1); !errors.Is(err, ship.ErrStale) {
			t.Errorf("a restore that was passed: %v", err)
		}
		for name, epoch := range map[string]uint64{"by hand": 0, "of another pod, that nobody has passed": 2} {
			if err := ask(epoch); err != nil {
				t.Errorf("a restore %s: %v", name, err)
			}
		}
	})
}
