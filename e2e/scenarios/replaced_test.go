package scenarios

import (
	"context"
	"strings"
	"syscall"
	"testing"
	"time"

	"outrider.dev/e2e/stage"
	"outrider.dev/e2e/world"
)

// replacement is what comes to lie in the data directory while outrider keeps running and Postgres is stopped.
type replacement func(w *world.World, p, old *stage.Server)

// older is the copy as it was made.
func older(w *world.World, p, old *stage.Server) { must(w.T, p.CopyFrom(whole(w), old.Data)) }

// diverged is the copy, on which a server has written more than the archive holds.
func diverged(w *world.World, p, old *stage.Server) {
	w.Start(old)
	churn(w, old, 8)
	w.StopServer(old, syscall.SIGINT)
	older(w, p, old)
}

// another is a database that was never here before.
func another(w *world.World, p, _ *stage.Server) {
	fresh, err := w.Stage.NewServer("another")
	must(w.T, err)
	fresh.Initdb = []string{"--wal-segsize=1"}
	must(w.T, fresh.Init(whole(w)))
	older(w, p, fresh)
}

// The data directory is replaced while outrider runs. Whatever becomes of the server in it, nothing of it is shipped as
// the continuation of what was there before, and no receipt calls that a clean stop: neither where the new one is behind
// the archive, nor where it is past it, nor where it is another database.
func TestDataIsReplacedWhileOutriderRuns(t *testing.T) {
	for name, c := range map[string]struct {
		replace replacement
		start   bool // a server on it, before the stop
		mib     int  // what that one writes
		says    string
	}{
		"an older one":                   {older, true, 0, "older than its archive"},
		"an older one that goes past":    {older, true, 8, "older than its archive"},
		"an older one past it":           {diverged, true, 0, "older than its archive"},
		"an older one without a server":  {older, false, 0, ""},
		"one past it without a server":   {diverged, false, 0, ""},
		"another database":               {another, true, 0, "another database"},
		"another one without its server": {another, false, 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := play(t)
			p, old := replaceable(w)
			o := w.Protect(p)
			w.Load(p)()
			churn(w, p, 2)
			caughtUp(w, o)
			w.StopServer(p, syscall.SIGINT)
			w.Until("all of it to be shipped", func(ctx context.Context) bool {
				st, err := o.Status(ctx)
				return err == nil && st.State != "protected"
			})
			time.Sleep(time.Second) // the shutdown checkpoint too
			before := stretches(w)
			c.replace(w, p, old)
			if c.start {
				w.Start(p)
				reaches(w, o, "not_protected", c.says)
				if c.mib > 0 {
					churn(w, p, c.mib)
				}
				w.StopServer(p, syscall.SIGINT)
			} else {
				time.Sleep(time.Second) // long enough to be looked at
			}
			if code := w.Terminate(o); code == 0 {
				t.Errorf("the exit code is 0: %s", o.Tail(3))
			}
			for key := range stretches(w) {
				if !before[key] {
					t.Errorf("%s was shipped, which another history has written", key)
				}
			}
			if y := askWhy(w); y.Receipt != nil && y.Receipt.Clean {
				t.Errorf("the receipt of the epoch says clean: %s", y.Receipt.Reason)
			}
			w.NothingLost(w.Restore("again"))
		})
	}
}

// replaceable is a database under protection until a stop, and a copy of its directory from then.
func replaceable(w *world.World) (p, old *stage.Server) {
	w.T.Helper()
	p = w.Database("db", "min_wal_size = 2MB", "max_wal_size = 8MB")
	o := w.Protect(p)
	w.Load(p)()
	w.StopServer(p, syscall.SIGINT)
	o.Kill() // it leaves no receipt that could be taken for that of the stop that is looked at
	old, err := w.Stage.NewServer("copy")
	must(w.T, err)
	must(w.T, old.CopyFrom(whole(w), p.Data))
	w.Start(p)
	return p, old
}

// stretches are the keys of the archive's WAL.
func stretches(w *world.World) map[string]bool {
	w.T.Helper()
	keys := map[string]bool{}
	for key := range objects(w, w.Root) {
		if strings.Contains(key, "wal_005/") || strings.Contains(key, "outrider/tail/") {
			keys[key] = true
		}
	}
	return keys
}
