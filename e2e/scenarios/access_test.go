package scenarios

import (
	"context"
	"fmt"
	"syscall"
	"testing"
	"time"

	"outrider.dev/e2e/stage"
)

// What a person has to mend before anything can be stored is said with its remedy, while the server's WAL is held and
// the bucket stays as it is.
func TestStoreRefuses(t *testing.T) {
	w := play(t)
	p := w.Database("db")
	expired := time.Now().Add(-time.Hour).UTC().Format(time.RFC3339)
	w.Control("PUT", "keys", fmt.Sprintf(`{"add": [
		{"id": "STS.old", "secret": "s", "token": "t", "expires": %q},
		{"id": "reader", "secret": "s", "rules": [{"actions": ["oss:GetObject", "oss:List*", "oss:GetBucket*"]}]}]}`, expired))
	run := func(root string, env []string, words ...string) stage.Status {
		o, err := w.Stage.Run(w.Cloud.With(env...), root, p)
		must(t, err)
		st := reaches(w, o, "not_protected", words...)
		if code := w.Terminate(o); code != 9 {
			t.Errorf("exit code %d, want 9: %s", code, o.Tail(3))
		}
		return st
	}
	for _, c := range []struct {
		name  string
		root  string
		env   []string
		words []string
	}{
		{"wrong bucket", "oss://nobody/a/b", nil, []string{"nobody", "NoSuchBucket"}},
		{"unknown key", w.Root, []string{"OSS_ACCESS_KEY_ID=LTAI-nobody"}, []string{"access key id", "InvalidAccessKeyId"}},
		{"wrong secret", w.Root, []string{"OSS_ACCESS_KEY_SECRET=wrong"}, []string{"access key secret", "SignatureDoesNotMatch"}},
		{"expired token", w.Root, []string{"OSS_ACCESS_KEY_ID=STS.old", "OSS_ACCESS_KEY_SECRET=s", "OSS_SESSION_TOKEN=t"}, []string{"expired"}},
		{"no right to write", w.Root, []string{"OSS_ACCESS_KEY_ID=reader", "OSS_ACCESS_KEY_SECRET=s"}, []string{"AccessDenied", "oss:PutObject"}},
	} {
		t.Run(c.name, func(*testing.T) { run(c.root, c.env, c.words...) })
	}
	t.Run("versioned bucket", func(*testing.T) {
		w.Control("PUT", "versioning", fmt.Sprintf(`{"bucket": %q, "status": "Suspended"}`, stage.Bucket))
		st := run(w.Root, nil, stage.Bucket, "versioning", "new bucket")
		if s := st.Store; s == nil || s.Versioning != "suspended" || s.ProvenAt != nil {
			t.Errorf("of the store the status says %+v", s)
		}
	})
	if found := objects(w, w.Root); len(found) > 0 {
		t.Errorf("the bucket is not as it was: %v", found)
	}
	if slots, err := p.Ask(whole(w), "select count(*)::text from pg_replication_slots"); slots != "1" || err != nil {
		t.Errorf("the server has %s slots, %v", slots, err)
	}
}

// A clock that is off does not stop anything, and the status says by how much, as it says what bounds the slot.
func TestClockIsOff(t *testing.T) {
	w := play(t)
	w.Faults(`{"op":"*","kind":"clock_skew","skew":"2h"}`)
	p := w.Database("db")
	o := w.Protect(p)
	w.Load(p)()
	st, err := o.Status(whole(w))
	must(t, err)
	if s := st.Store; s == nil || s.ProvenAt == nil || s.Versioning != "never" || s.ClockAhead == nil || *s.ClockAhead < -7210 || *s.ClockAhead > -7100 {
		t.Errorf("of the store the status says %+v", s)
	}
	if s := st.Slot; s == nil || s.Status != "reserved" || s.WALLevel != "replica" || s.MaxSlots < 1 || s.MaxKeep != -1 {
		t.Errorf("of the slot the status says %+v", s)
	}
	must(t, p.Exec(whole(w), "alter system set max_slot_wal_keep_size = '1GB'"))
	must(t, p.Exec(whole(w), "select pg_reload_conf()"))
	must(t, p.Exec(whole(w), "select pg_switch_wal()")) // the slot is looked at when it moves, or after a minute
	w.Until("the status to have the setting", func(ctx context.Context) bool {
		st, err := o.Status(ctx)
		return err == nil && st.Slot != nil && st.Slot.MaxKeep == 1<<30
	})
	w.StopServer(p, syscall.SIGINT)
	w.Finish(o)
	w.NothingLost(w.Restore("again"))
}

// The store cannot be reached when outrider starts: it says so and holds the server's WAL.
func TestStoreIsAwayAtStart(t *testing.T) {
	w := play(t)
	p := w.Database("db")
	w.Cloud.Kill()
	o := w.Outrider(p, "--grace", "10s")
	reaches(w, o, "lagging", "archive")
	if ready, text, err := o.Ready(whole(w)); !ready || err != nil {
		t.Errorf("/readyz is red while the store is awaited: %s, %v", text, err)
	}
	must(t, o.PreStop(whole(w)))
	if slots, err := p.Ask(whole(w), "select count(*)::text from pg_replication_slots"); slots != "1" || err != nil {
		t.Errorf("the server has %s slots, %v", slots, err)
	}
	must(t, w.Cloud.Restart(whole(w)))
	must(t, o.Protected(whole(w))) // once the grace period of the hook is over and nothing has stopped
}
