package scenarios

import (
	"syscall"
	"testing"
	"time"

	"outrider.dev/e2e/ledger"
	"outrider.dev/e2e/stage"
	"outrider.dev/e2e/world"
)

// The next pod of a Deployment is made while the one before is still stopping. It does not take the archive from that one
// but waits for its end, so that what clients have written until then is not lost.
func TestSuccessorWaitsForAnOrderlyEnd(t *testing.T) {
	w := play(t)
	p := w.Database("db")
	o := w.Protect(p)
	stop := w.Load(p)
	must(t, o.PreStop(whole(w)))
	next, err := w.Stage.NewServer("next")
	must(t, err)
	ctx, restored := whole(w), make(chan error, 1)
	go func() {
		_, err := w.Stage.Restore(ctx, w.Cloud, w.Root, next, "--auto")
		restored <- err
	}()
	w.Work(8 * time.Second) // a writer has seen by then that it was superseded
	stop()
	w.StopServer(p, syscall.SIGINT)
	w.Finish(o)
	must(t, <-restored)
	w.Start(next)
	w.NothingLost(next)
	if st := askWhy(w, "--epoch", "1"); st.Verdict.Outcome != "clean" {
		t.Errorf("the end of the first one: %+v", st.Verdict)
	}
}

// A successor does not wait for ever for one that was killed while it was stopping, and loses no more than that one did.
func TestSuccessorOfOneThatWasKilledWhileStopping(t *testing.T) {
	w := play(t)
	p := w.Database("db")
	o := w.Protect(p)
	stop := w.Load(p)
	must(t, o.PreStop(whole(w)))
	kill := w.Crash(p, o)
	stop()
	next := w.Restore("next", "--auto")
	if err := w.Judge(next, ledger.Options{Kill: kill, RPO: world.Judged()}).Err(); err != nil {
		t.Error(err)
	}
}

// A disk with a restore whose server never finished recovery comes back after somebody else has gone on with the database.
// It is restored anew: the old plan would bring back what was, as the newest timeline.
func TestUnfinishedRestoreThatWasPassed(t *testing.T) {
	w := play(t)
	p := w.Database("db")
	o := w.Protect(p)
	w.Load(p)()
	w.StopServer(p, syscall.SIGINT)
	w.Finish(o)
	early := w.RestoreFiles("early", "--auto")
	w.RestoreFilesInto(early, "--auto") // nobody has gone on yet: it goes on as it is
	second := w.Restore("second", "--auto")
	o = w.Protect(second)
	w.Load(second)()
	must(t, second.Exec(whole(w), "create table later ()"))
	w.StopServer(second, syscall.SIGINT)
	w.Finish(o)
	says(t, fails(w, 8, "restore", "--auto", "--pgdata", early.Data), "another writer has taken over")
	anew := w.Stage.Outrider(w.Cloud, w.Root, "restore", "--auto", "--pgdata", early.Data)
	anew.Env = append(anew.Env, "OUTRIDER_INSTANCE=another-pod") // that has the same disk
	_, err := stage.Run(whole(w), anew)
	must(t, err)
	w.Start(early)
	tables(w, early, "later")
	w.NothingLost(early)
}
