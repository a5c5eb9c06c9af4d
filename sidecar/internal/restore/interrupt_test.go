package restore

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/archive/archivetest"
)

// A restore is ended at random requests and moments, again and again, and taken up by whatever Inspect says. The result
// is the same as without.
func TestInterruptedAnywhere(t *testing.T) {
	seed := rand.Uint64()
	rnd := rand.New(rand.NewPCG(seed, 0))
	s := tell(t)
	s.bulk(3)
	s.insert(6)
	want := contentOf(t, recovering(t, s.writer.a, Request{}, Options{}).dir)

	for round := range 8 {
		bucket := cloneBucket(t, s.bucket)
		a := archive.New(bucket)
		dir := filepath.Join(t.TempDir(), "data")
		var states []State
		for try := 0; ; try++ {
			interrupted := try < 4
			ctx, cancel := context.WithCancel(t.Context())
			if interrupted {
				cancelSomewhere(bucket, rnd, cancel)
			} else {
				bucket.Fault(nil)
			}
			state, err := Inspect(dir)
			must(t, err)
			states = append(states, state)
			done, err := takeUp(ctx, a, dir, state)
			cancel()
			if err != nil && !interrupted {
				t.Fatalf("seed %d, round %d, after %v: %v", seed, round, states, err)
			}
			if done {
				break
			}
		}
		if diff := differ(want, contentOf(t, dir)); diff != "" {
			t.Fatalf("seed %d, round %d, after %v: %s", seed, round, states, diff)
		}
		if round == 0 {
			wantRows(t, restored{t: t, dir: dir}.start(), 1, 2, 3, 4, 5, 6)
		}
	}
}

// The machine is lost after everything is laid down and before the marker says so: whatever has reached the disk then
// does not count.
func TestInterruptedBeforeTheMarker(t *testing.T) {
	s := tell(t)
	want := contentOf(t, recovering(t, s.writer.a, Request{}, Options{}).dir)
	for name, damage := range map[string]func(dir string){
		"all of it is there":     func(string) {},
		"the control file lacks": func(dir string) { must(t, os.Remove(filepath.Join(dir, "global", "pg_control"))) },
		"files are empty": func(dir string) {
			must(t, os.Truncate(filepath.Join(dir, "PG_VERSION"), 0))
			must(t, os.RemoveAll(filepath.Join(dir, "pg_xact")))
		},
		"more is there": func(dir string) { must(t, os.WriteFile(filepath.Join(dir, "base", "junk"), nil, 0o600)) },
	} {
		dir := recovering(t, s.writer.a, Request{}, Options{}).dir
		m, err := ReadMarker(dir)
		must(t, err)
		m.Phase = PhaseUnpacking
		must(t, m.write(dir))
		damage(dir)
		if _, err := Fill(t.Context(), s.writer.a, FillOptions{Dir: dir}); err == nil {
			t.Errorf("%s: a directory that is not unpacked was filled", name)
		}
		plan, err := NewPlan(t.Context(), s.writer.a, Request{})
		must(t, err)
		_, err = Restore(t.Context(), s.writer.a, plan, Options{Dir: dir})
		must(t, err)
		if diff := differ(want, contentOf(t, dir)); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

// cancelSomewhere cancels at a random request, or at a random moment between two.
func cancelSomewhere(b *archivetest.Bucket, rnd *rand.Rand, cancel context.CancelFunc) {
	var n atomic.Int64
	at := 1 + rnd.Int64N(60)
	late := time.Duration(rnd.Int64N(int64(20 * time.Millisecond)))
	now := rnd.IntN(2) == 0
	b.Fault(func(string, string) error {
		if n.Add(1) != at {
			return nil
		}
		if now {
			cancel()
			return context.Canceled
		}
		time.AfterFunc(late, cancel)
		return nil
	})
}

// takeUp does what the state of the directory calls for. It is done when all WAL is laid.
func takeUp(ctx context.Context, a *archive.Archive, dir string, state State) (bool, error) {
	switch state {
	case Absent, Empty, Unpacking:
		plan, err := NewPlan(ctx, a, Request{})
		if err != nil {
			return false, err
		}
		if _, err := Restore(ctx, a, plan, Options{Dir: dir}); err != nil {
			return false, err
		}
	case Recovering:
	default:
		return false, fmt.Errorf("%w: the directory is %s", errUnexpected, state)
	}
	res, err := Fill(ctx, a, FillOptions{Dir: dir})
	return res.Complete, err
}

var errUnexpected = errors.New("unexpected")

// contentOf is what a restore has made of a directory, without what is its own.
func contentOf(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	must(t, filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		if rel == markerPath("") || strings.HasPrefix(rel, ownDir) {
			return nil
		}
		fi, err := e.Info()
		if err != nil {
			return err
		}
		all[rel] = fi.Mode().String()
		if e.Type().IsRegular() {
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			all[rel] += string(b)
		}
		return nil
	}))
	if len(all) < 50 {
		t.Fatalf("%s holds %d files", dir, len(all))
	}
	return all
}

func differ(want, got map[string]string) string {
	var diff []string
	for name, w := range want {
		if g, ok := got[name]; !ok || g != w {
			diff = append(diff, name)
		}
	}
	for name := range got {
		if _, ok := want[name]; !ok {
			diff = append(diff, "new: "+name)
		}
	}
	if len(diff) == 0 {
		return ""
	}
	return fmt.Sprintf("%d files differ: %.200s", len(diff), strings.Join(diff, " "))
}
