package scenarios

import (
	"context"
	"fmt"
	"syscall"
	"testing"
	"time"

	"outrider.dev/e2e/ledger"
	"outrider.dev/e2e/stage"
	"outrider.dev/e2e/world"
)

// caughtUp waits until outrider has no trouble and nothing is unshipped that was flushed a moment ago.
func caughtUp(w *world.World, o *stage.Outrider) {
	w.T.Helper()
	ctx := whole(w)
	var st stage.Status
	err := stage.Until(ctx, "outrider to catch up", func() (bool, error) {
		var err error
		st, err = o.Status(ctx)
		return err == nil && st.State == "protected" && st.Trouble == "" && st.AgeSeconds != nil && *st.AgeSeconds < 1, err
	})
	if err != nil {
		w.T.Fatalf("%v: %+v\n%s", err, st, o.Tail(8))
	}
}

// The store is away under load: Postgres goes on, outrider says so and stays small, then catches up, and a crash after
// that loses nothing older than the promise.
func TestStoreIsAway(t *testing.T) {
	t.Parallel()
	w := world.New(t, programs, 1)
	away := 3 * time.Second
	if long() {
		w = world.NewPlain(t, programs, 16)
		away = 75 * time.Second
	}
	p := w.Database("db")
	o := w.Protect(p)
	stop := w.Load(p)
	must(t, o.ForgetPeak()) // of the snapshot
	w.Cloud.Kill()
	reaches(w, o, "lagging", "not durable")
	before := w.Acknowledged()
	w.Work(away)
	during := w.Acknowledged() - before
	if during < int64(away/time.Second)*30 {
		t.Errorf("only %d commits in %s without the store", during, away)
	}
	peak, err := o.PeakMemory()
	must(t, err)
	if long() && peak > 64<<20 { // programs with the race detector need several times as much
		t.Errorf("outrider had %d MiB resident while the store was away", peak>>20)
	}
	must(t, w.Cloud.Restart(whole(w)))
	caughtUp(w, o)
	w.Work(time.Second)
	after, err := o.PeakMemory()
	must(t, err)
	t.Logf("%d commits while the store was away; peak memory %d MiB, %d MiB after the backlog", during, peak>>20, after>>20)
	kill := w.Crash(p, o)
	stop()
	r := w.Judge(w.Restore("again"), ledger.Options{Kill: kill, RPO: world.Judged()})
	must(t, r.Err())
}

// The credentials are revoked for a while.
func TestKeysAreRevoked(t *testing.T) {
	w := play(t)
	p := w.Database("db")
	o := w.Protect(p)
	stop := w.Load(p)
	k := w.Cloud.Keys()
	w.Control("PUT", "keys", fmt.Sprintf(`{"revoke": [%q]}`, k.ID))
	reaches(w, o, "lagging")
	ctx := whole(w)
	must(t, stage.Until(ctx, "the trouble with the key", func() (bool, error) {
		st, err := o.Status(ctx)
		return missingWord(st.Trouble, []string{"InvalidAccessKeyId", "access key id"}) == "", err
	}))
	w.Work(time.Second)
	w.Control("PUT", "keys", fmt.Sprintf(`{"add": [{"id": %q, "secret": %q}]}`, k.ID, k.Secret))
	caughtUp(w, o)
	stop()
	w.StopServer(p, syscall.SIGINT)
	w.Finish(o)
	w.NothingLost(w.Restore("again"))
}

// Whatever the store does to requests, what is acknowledged is stored.
func TestStoreStumbles(t *testing.T) {
	slow := `{"op":"*","kind":"delay","delay":"1s"}`
	if long() {
		slow = `{"op":"*","kind":"delay","delay":"2s"}`
	}
	for name, faults := range map[string][]string{
		"every second answer is lost": {`{"op":"*","kind":"reset_after","probability":0.5,"seed":1}`},
		"slow":                        {slow},
		"no journal is taken":         {`{"op":"put","regexp":"outrider/journal/","kind":"status","status":503}`},
		"throttled":                   {`{"op":"*","kind":"status","status":503,"code":"SlowDown","probability":0.4,"seed":2}`, `{"op":"*","kind":"throttle","rate":2000000}`},
	} {
		t.Run(name, func(t *testing.T) {
			w := play(t)
			p := w.Database("db")
			o := w.Protect(p)
			stop := w.Load(p, func(c *ledger.Config) { c.Rate = 100 })
			w.Faults(faults...)
			before := w.Acknowledged()
			w.Work(3 * time.Second)
			w.Until("commits on a store that stumbles", func(context.Context) bool { return w.Acknowledged() > before+100 })
			stop()
			must(t, o.PreStop(whole(w)))
			w.StopServer(p, syscall.SIGINT)
			w.Finish(o)
			w.Faults()
			w.NothingLost(w.Restore("again"))
			if y := askWhy(w); y.Receipt == nil || !y.Receipt.Clean {
				t.Errorf("the receipt is not clean: %+v", y)
			}
		})
	}
}
