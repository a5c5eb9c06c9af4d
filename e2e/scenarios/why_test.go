package scenarios

import (
	"bytes"
	"context"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"outrider.dev/e2e/stage"
	"outrider.dev/e2e/world"
)

// evacuator answers as the webhook does that moves the pod away. It returns the environment with which it is asked.
func evacuator(w *world.World) []string {
	w.T.Helper()
	server := httptest.NewTLSServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(rw, `{"outcome":"evicted","message":"the pod is evicted and has 60 s to stop","node":"node-1","tainted":true,"grace_seconds":60}`)
	}))
	w.T.Cleanup(server.Close)
	dir, err := w.Stage.Mkdir("token")
	must(w.T, err)
	token := filepath.Join(dir, "token")
	must(w.T, os.WriteFile(token, []byte("a.b.c"), 0o644))
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	return []string{
		"OUTRIDER_EVACUATION_URL=" + server.URL + "/v1/evacuations", "OUTRIDER_EVACUATION_CA=" + string(ca), "OUTRIDER_EVACUATION_TOKEN_FILE=" + token,
	}
}

// inOrder fails the test unless the phases of a time line have these names one after the other, others in between, and
// their times never go back.
func inOrder(t *testing.T, y why, names ...string) {
	t.Helper()
	var all []string
	for i, p := range y.Phases {
		all = append(all, p.Name)
		if len(names) > 0 && p.Name == names[0] {
			names = names[1:]
		}
		if p.Seconds != nil && *p.Seconds < 0 {
			t.Errorf("phase %d, %s, is %.3f s after the one before", i, p.Name, *p.Seconds)
		}
	}
	if len(names) > 0 {
		t.Errorf("%s is not in its place: %v", names[0], all)
	}
}

// the phase of this name.
func (y why) phase(name string) (p phase) {
	for _, p := range y.Phases {
		if p.Name == name {
			return p
		}
	}
	return phase{}
}

// firstWrites are the entries of all journals that tell of a first write.
func firstWrites(w *world.World) (keys []string) {
	w.T.Helper()
	for key := range objects(w, w.Root) {
		if strings.HasPrefix(key, "outrider/journal/") && strings.HasSuffix(key, "-first_write.json") {
			keys = append(keys, key)
		}
	}
	return keys
}

// A pod is moved away after a notice, and comes up elsewhere. The archive tells all of it, from the notice to the first
// write, which a sidecar that is started again does not find a second time.
func TestTimeLineOfAMove(t *testing.T) {
	w := play(t)
	p := w.Database("node-1")
	o, err := w.Stage.Run(w.Cloud.With(append(evacuator(w), "OUTRIDER_POD_UID=one")...), w.Root, p)
	must(t, err)
	must(t, o.Protected(whole(w)))
	w.Load(p)()
	w.Control("PUT", "spot-termination", "in 300s")
	w.Until("the answer to the notice", func(context.Context) bool {
		b, err := os.ReadFile(o.Log)
		return err == nil && bytes.Contains(b, []byte(`"event":"evacuation_answered"`))
	})
	session(w, p) // it holds up the stop until outrider has seen it begin, and ends it
	must(t, o.PreStop(whole(w)))
	must(t, p.Signal(syscall.SIGTERM))
	must(t, p.Wait(whole(w)))
	w.Finish(o)
	w.Control("DELETE", "spot-termination", "")

	spool, err := w.Stage.Mkdir("spool")
	must(t, err)
	must(t, os.Chmod(spool, 0o777))
	cloud := w.Cloud.With("OUTRIDER_SPOOL="+spool, "OUTRIDER_POD_UID=two")
	q, err := w.Stage.NewServer("node-2")
	must(t, err)
	_, err = w.Stage.Restore(whole(w), cloud, w.Root, q, "--auto")
	must(t, err)
	begin := func() *stage.Outrider {
		t.Helper()
		o, err := w.Stage.RunInPod(cloud, w.Root, q)
		must(t, err)
		return o
	}
	second := begin()
	w.Start(q)
	w.NothingLost(q)
	must(t, second.Protected(whole(w)))
	w.Until("the first write", func(context.Context) bool { return len(firstWrites(w)) > 0 })
	var y why
	w.Until("the story of the restore", func(context.Context) bool {
		y = askWhy(w, "--epoch", "1")
		return y.phase("restore").At != nil
	})
	inOrder(t, y, "notice", "checkpoint", "prepared", "evacuation_asked", "cordon", "eviction", "checkpoint", "prepared", "postgres_stopping", "postgres_down",
		"receipt", "claimed", "restore", "unpacked", "replay_begins", "accepts_writes", "first_write")
	if y.Verdict.Outcome != "clean" || y.Verdict.Lost != "nothing up to this stop" {
		t.Errorf("the verdict is %+v", y.Verdict)
	}
	if u := y.Outage; u == nil || u.Begin != "postgres_stopping" || u.Bound != "" || u.Seconds <= 0 || u.Seconds > 2*world.Long.Seconds() {
		t.Errorf("the outage is %+v", u)
	}
	says(t, y.phase("receipt").Text, "clean: Postgres shut down cleanly")
	says(t, y.phase("cordon").Text, "node-1")
	says(t, y.phase("restore").Text, "from snapshot base_", "nothing missing")
	text, err := w.Stage.Do(whole(w), w.Cloud, w.Root, "why", "--epoch", "1")
	must(t, err)
	t.Logf("outrider why:\n%s", text)
	says(t, text, "lost: nothing up to this stop\n", "outage: ", "first write", "journal of epoch 1:")

	second.Kill()
	again := begin()
	must(t, again.Protected(whole(w)))
	w.Load(q)()
	w.StopServer(q, syscall.SIGINT)
	w.Finish(again)
	if keys := firstWrites(w); len(keys) != 1 {
		t.Errorf("the first write was noted as %v", keys)
	}
	if y := askWhy(w); y.Epoch != 2 || y.Verdict.Outcome != "clean" || y.phase("receipt").At == nil || y.phase("notice").At != nil {
		t.Errorf("of the second stop it says %+v", y)
	}
}

// A machine is lost at once. Nothing is there that proves a clean end, and the time line says so.
func TestTimeLineOfACrash(t *testing.T) {
	w := play(t)
	p := w.Database("node-1")
	o := w.Protect(p)
	stop := w.Load(p)
	at, err := p.Ask(whole(w), "select pg_current_wal_flush_lsn()::text")
	must(t, err)
	shipped(w, o, p, at) // so that there is a last commit to be restored
	w.Crash(p, o)
	stop()
	q := w.RestoreFiles("node-2", "--auto")
	second := w.Outrider(q)
	w.Start(q)
	must(t, second.Protected(whole(w)))
	var y why
	w.Until("the story of the restore", func(context.Context) bool {
		y = askWhy(w, "--epoch", "1")
		return y.phase("restore").At != nil && y.phase("first_write").At != nil
	})
	inOrder(t, y, "last_commit", "receipt", "claimed", "restore", "unpacked", "replay_begins", "accepts_writes", "first_write")
	receipt := y.phase("receipt")
	says(t, receipt.Text, "nothing proves a clean end")
	if receipt.At != nil || y.Verdict.Outcome != "vanished" || y.phase("postgres_down").Name != "" {
		t.Errorf("the verdict is %+v, the phases are %+v", y.Verdict, y.Phases)
	}
	says(t, y.Verdict.Lost, "what was committed after", "if anything")
	if u := y.Outage; u == nil || u.Bound != "at_most" || u.Seconds <= 0 {
		t.Errorf("the outage is %+v", u)
	}
	w.StopServer(q, syscall.SIGINT)
	w.Finish(second)
}
