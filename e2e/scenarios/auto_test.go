package scenarios

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"outrider.dev/e2e/stage"
	"outrider.dev/e2e/world"
)

// archived is a database that was loaded, protected and stopped in order.
func archived(w *world.World) {
	w.T.Helper()
	p := w.Database("origin")
	o := w.Protect(p)
	w.Load(p)()
	w.StopServer(p, syscall.SIGINT)
	w.Finish(o)
}

// untouched fails the test unless a directory is absent or empty.
func untouched(t *testing.T, dir string) {
	t.Helper()
	if entries, err := os.ReadDir(dir); len(entries) > 0 || err != nil && !os.IsNotExist(err) {
		t.Errorf("%s holds %v, %v", dir, entries, err)
	}
}

// What an init container decides for an empty disk: only an archive that is proven empty lets initdb run.
func TestAutoOnAnEmptyDisk(t *testing.T) {
	w := play(t)
	dir := filepath.Join(w.Stage.Dir, "disk")
	auto := func(code int, args ...string) string {
		t.Helper()
		text := fails(w, code, append([]string{"restore", "--auto", "--no-wait", "--pgdata", dir}, args...)...)
		untouched(t, dir)
		return text
	}
	auto(0)
	if found := objects(w, w.Root); len(found) > 0 {
		t.Errorf("a restore from nothing left %v", found)
	}
	says(t, auto(5, "--restore", "required"), "required")
	w.Faults(`{"op":"*","kind":"status","status":403,"code":"AccessDenied"}`)
	says(t, auto(4), "AccessDenied")
	w.Cloud.Kill()
	says(t, auto(3), "connect")
	must(t, w.Cloud.Restart(whole(w)))

	// Something that is not ours.
	must(t, os.Mkdir(dir, 0o755))
	precious := filepath.Join(dir, "precious")
	must(t, os.WriteFile(precious, []byte("x"), 0o644))
	says(t, fails(w, 7, "restore", "--auto", "--pgdata", dir), dir)
	if b, err := os.ReadFile(precious); err != nil || string(b) != "x" {
		t.Errorf("%s is %q, %v", precious, b, err)
	}
}

// An empty disk is restored from an archive, and what is damaged in the archive is never taken for nothing.
func TestAutoRestores(t *testing.T) {
	w := play(t)
	archived(w)
	p, err := w.Stage.NewServer("db")
	must(t, err)
	w.Faults(`{"op":"*","kind":"status","status":403,"code":"AccessDenied"}`)
	fails(w, 4, "restore", "--auto", "--no-wait", "--pgdata", p.Data)
	w.Faults()
	untouched(t, p.Data)
	w.RestoreFilesInto(p, "--auto")
	w.Start(p)
	w.NothingLost(p)
	o := w.Protect(p)
	w.Load(p)()
	w.StopServer(p, syscall.SIGINT)
	w.Finish(o)

	// Data that is ours goes on as it is, and is nothing to restore into.
	says(t, fails(w, 7, "restore", "--pgdata", p.Data), p.Data, "data directory")
	w.RestoreFilesInto(p, "--auto")
	w.Start(p)
	w.NothingLost(p)
	o = w.Protect(p)
	command := w.Stage.Outrider(w.Cloud, w.Root, "backup", "--pgdata", p.Data)
	command.Env = append(command.Env, p.Env()...)
	_, err = stage.Run(whole(w), command)
	must(t, err)
	w.StopServer(p, syscall.SIGINT)
	w.Finish(o)

	// Half of the newest snapshot is deleted, then half of all.
	removeParts := func(newest bool) {
		names := map[string][]string{}
		last := ""
		for key := range objects(w, w.Root) {
			if name, part, ok := strings.Cut(strings.TrimPrefix(key, "basebackups_005/"), "/tar_partitions/"); ok && strings.HasPrefix(part, "part") {
				names[name] = append(names[name], key)
				last = max(last, name)
			}
		}
		if newest && len(names) < 2 || len(names) == 0 {
			t.Fatalf("there are %d snapshots", len(names))
		}
		for name, keys := range names {
			if name == last || !newest {
				must(t, w.Cloud.RemoveObject(whole(w), w.Root, keys[0]))
			}
		}
	}
	removeParts(true)
	q, err := w.Stage.NewServer("older")
	must(t, err)
	w.RestoreFilesInto(q, "--auto")
	w.Start(q)
	w.NothingLost(q)
	removeParts(false)
	dir := filepath.Join(w.Stage.Dir, "none")
	says(t, fails(w, 6, "restore", "--auto", "--pgdata", dir), "missing")
}

// A restore that is interrupted at any point is taken up by the next one.
func TestInterruptedRestore(t *testing.T) {
	w := play(t)
	archived(w)
	p, err := w.Stage.NewServer("db")
	must(t, err)
	w.Faults(`{"op":"get","kind":"delay","delay":"60ms"}`)
	interrupted := 0
	for try := range 6 {
		proc, err := w.Stage.Start("outrider-restore", w.Stage.Outrider(w.Cloud, w.Root, "restore", "--auto", "--pgdata", p.Data))
		must(t, err)
		end := time.Now().Add(time.Duration(w.Rand.Int64N(int64(2500 * time.Millisecond))))
		must(t, stage.Until(whole(w), "the moment of the interruption", func() (bool, error) { return time.Now().After(end) || !proc.Running(), nil }))
		how := []syscall.Signal{syscall.SIGINT, syscall.SIGKILL}[w.Rand.IntN(2)]
		if proc.Running() {
			interrupted++
			must(t, proc.Signal(how))
		}
		err = proc.Wait(whole(w))
		t.Logf("try %d: %v: %v", try, how, err)
		if code := stage.ExitCode(err); code != 0 && code != 1 && code != -1 {
			t.Fatalf("exit code %d: %s", code, proc.Tail(5))
		}
	}
	if interrupted == 0 {
		t.Error("no restore was interrupted")
	}
	w.Faults()
	fails(w, 0, "restore", "--auto", "--pgdata", p.Data)
	w.Start(p)
	w.NothingLost(p)
}

// A throw-away clone of another root: it has the data, takes nothing into any archive, and loses the settings of its
// restore once it runs. It needs no archive of its own.
func TestClone(t *testing.T)                 { clone(t, stage.Root("clone")) }
func TestCloneWithoutAnArchive(t *testing.T) { clone(t, "") }

func clone(t *testing.T, own string) {
	w := play(t)
	archived(w)
	origin := w.Root
	w.Root = own
	env := []string{"OUTRIDER_RESTORE_FROM=" + origin, "OUTRIDER_ARCHIVING=off"}
	before := objects(w, origin)
	p, err := w.Stage.NewServer("clone")
	must(t, err)
	cloud := w.Cloud.With(env...)
	_, err = w.Stage.Restore(whole(w), cloud, w.Root, p, "--auto")
	must(t, err)
	o, err := w.Stage.Run(cloud, w.Root, p)
	must(t, err)
	reaches(w, o, "not_archived", "archiving is off")
	w.Start(p)
	w.NothingLost(p)
	w.Until("the restore to be settled", func(ctx context.Context) bool {
		n, err := p.Ask(ctx, "select count(*)::text from pg_file_settings where name like 'recovery_target%' or name = 'restore_command'")
		_, serr := os.Stat(filepath.Join(p.Data, "outrider"))
		return err == nil && n == "0" && os.IsNotExist(serr)
	})
	w.StopServer(p, syscall.SIGINT)
	if code := w.Terminate(o); code != 0 {
		t.Errorf("exit code %d: %s", code, o.Tail(3))
	}
	// Its containers are made anew on the same disk.
	_, err = w.Stage.Restore(whole(w), cloud, w.Root, p, "--auto")
	must(t, err)
	if found := objects(w, stage.Root("clone")); len(found) > 0 {
		t.Errorf("the clone's own root holds %v", found)
	}
	if after := objects(w, origin); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("the origin has changed: %v, it was %v", after, before)
	}
}
