package scenarios

import (
	"path"
	"slices"
	"strings"
	"testing"

	"outrider.dev/e2e/ledger"
	"outrider.dev/e2e/world"
)

// A Kubernetes cluster is lost, and its archive with it but for a replica into which not all has come through. Another
// cluster may not go on with it before a person names the one that is lost. Then it has the longest beginning that is
// whole, also if the first attempt is lost as well, and says what is missing. Afterwards a hole is a hole again.
func TestTakeOver(t *testing.T) {
	t.Parallel()
	w := world.New(t, programs, 16) // none is sealed, and all WAL is in chunks
	cloud := w.Cloud
	in := func(cluster, pod string) {
		w.Cloud = cloud.With("OUTRIDER_KUBERNETES_CLUSTER="+cluster, "OUTRIDER_POD_UID="+pod)
	}
	in("near", "pod-1")
	p := w.Database("near")
	o := w.Protect(p)
	deadline := whole(w)
	w.Load(p)()
	at, err := p.Ask(deadline, "select pg_current_wal_flush_lsn()::text")
	must(t, err)
	shipped(w, o, p, at)
	// What is removed below comes after these rows, so that some are there and some are lost.
	for kept := chunks(w); len(chunks(w)) < 10 || chunks(w)[len(chunks(w))-5] <= kept[len(kept)-1]; {
		must(t, deadline.Err())
		w.Load(p)()
		caughtUp(w, o)
	}
	kill := w.Crash(p, o)
	first := removeChunk(w, 4)
	second := removeChunk(w, 2)

	in("far", "pod-2")
	q, err := w.Stage.NewServer("far")
	must(t, err)
	says(t, fails(w, 7, "restore", "--auto", "--no-wait", "--pgdata", q.Data), "take-over", "near")
	untouched(t, q.Data)
	w.RestoreFilesInto(q, "--auto", "--take-over", "near")
	// That node is lost before anything is shipped.
	in("far", "pod-3")
	q, err = w.Stage.NewServer("again")
	must(t, err)
	text := restoreLog(w, q.Data, "--take-over", "near")
	for _, key := range []string{first, second} {
		from, _, _ := strings.Cut(key[strings.LastIndex(key, "/")+1:], "-")
		says(t, text, "has no WAL from 0/"+strings.ToUpper(strings.TrimLeft(from, "0"))+" to ")
	}
	w.Start(q)
	report := w.Judge(q, ledger.Options{Kill: kill, RPO: world.Long})
	if report.Lost == 0 || report.Present == 0 {
		t.Errorf("%d rows are there, %d are lost", report.Present, report.Lost)
	}
	o, err = w.Stage.Run(w.Cloud, w.Root, q, "--take-over", "near")
	must(t, err)
	must(t, o.Protected(whole(w)))
	// A snapshot has ended the segment before, and what is left of its chunks is not needed any more.
	for deadline := whole(w); growing(w) < 4; {
		must(t, deadline.Err())
		must(t, q.Exec(whole(w), "create table if not exists more (t text)", "insert into more select md5(g::text) from generate_series(1, 1000) g"))
		caughtUp(w, o)
	}
	w.Crash(q, o)
	removeChunk(w, 2)
	in("far", "pod-4")
	later := w.Stage.Dir + "/later"
	says(t, fails(w, 6, "restore", "--auto", "--no-wait", "--pgdata", later, "--take-over", "near"), "has no WAL from", "accept that loss")
	untouched(t, later)

	// A replica may lack any object, also the one that says which database this is.
	must(t, w.Cloud.RemoveObject(whole(w), w.Root, "outrider/cluster.json"))
	in("third", "pod-5")
	none := w.Stage.Dir + "/none"
	says(t, fails(w, 7, "restore", "--auto", "--no-wait", "--pgdata", none), "take-over", "far")
	says(t, fails(w, 6, "restore", "--auto", "--no-wait", "--pgdata", none, "--take-over", "far"), "outrider/cluster.json")
	untouched(t, none)
}

// restoreLog lets an init container restore, and returns its log.
func restoreLog(w *world.World, dir string, args ...string) string {
	w.T.Helper()
	proc, err := w.Stage.Start("restore", w.Stage.Outrider(w.Cloud, w.Root, append([]string{"restore", "--auto", "--pgdata", dir}, args...)...))
	must(w.T, err)
	must(w.T, proc.Wait(whole(w)))
	return proc.Tail(20)
}

// chunks are the keys of the archive's chunks of WAL, in their order.
func chunks(w *world.World) []string {
	w.T.Helper()
	var keys []string
	for key := range objects(w, w.Root) {
		if strings.HasPrefix(key, "outrider/tail/") {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys
}

// growing is how many chunks the last segment has.
func growing(w *world.World) int {
	w.T.Helper()
	keys := chunks(w)
	last := path.Dir(path.Dir(keys[len(keys)-1]))
	return len(slices.DeleteFunc(keys, func(key string) bool { return path.Dir(path.Dir(key)) != last }))
}

// removeChunk removes the chunk of WAL that is so many before the end of the archive, and returns its key.
func removeChunk(w *world.World, before int) string {
	w.T.Helper()
	keys := chunks(w)
	if len(keys) <= before {
		w.T.Fatalf("the archive ends with %d chunks", len(keys))
	}
	key := keys[len(keys)-before]
	must(w.T, w.Cloud.RemoveObject(whole(w), w.Root, key))
	return key
}
