// Package cycles repeats what must never lose anything: load, death, restore, comparison. OUTRIDER_CYCLES says how
// often (a few by default, 50 in the soak), OUTRIDER_SEED repeats one run.
package cycles

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"outrider.dev/e2e/ledger"
	"outrider.dev/e2e/stage"
)

// rpo is the promise that crashes are judged by.
const rpo = time.Second

var bin string

func TestMain(m *testing.M) {
	code, err := build(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// build makes the programs with the race detector in them.
func build(m *testing.M) (int, error) {
	dir, err := os.MkdirTemp("", "outrider-bin-")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		return 1, err
	}
	for name, pkg := range map[string]string{"outrider": "outrider.dev/sidecar", "devcloud": "outrider.dev/e2e/devcloud"} {
		out, err := exec.Command("go", "build", "-race", "-o", filepath.Join(dir, name), pkg).CombinedOutput()
		if err != nil {
			return 1, fmt.Errorf("building %s: %w: %s", pkg, err, out)
		}
	}
	bin = dir
	return m.Run(), nil
}

func number(t *testing.T, name string, otherwise uint64) uint64 {
	t.Helper()
	v := os.Getenv(name)
	if v == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(v, 10, 64)
	if err != nil {
		t.Fatalf("%s=%q: %v", name, v, err)
	}
	return n
}

// world is one database through all its lives.
type world struct {
	t      *testing.T
	rng    *rand.Rand
	stage  *stage.Stage
	cloud  *stage.Cloud
	ledger *ledger.Ledger
	book   string
	root   string
	server *stage.Server
}

func newWorld(t *testing.T, name string) *world {
	t.Helper()
	seed := number(t, "OUTRIDER_SEED", uint64(time.Now().UnixNano()))
	t.Logf("OUTRIDER_SEED=%d", seed)
	s, err := stage.New(bin)
	must(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("logs are left in %s", s.Dir)
			s.Stop()
			return
		}
		must(t, s.Close())
	})
	w := &world{t: t, rng: rand.New(rand.NewPCG(seed, 0)), stage: s, root: stage.Root(name), book: filepath.Join(s.Dir, "ledger.journal")}
	ctx := w.deadline(2 * time.Minute)
	w.cloud, err = s.StartCloud(ctx)
	must(t, err)
	w.ledger, err = ledger.Open(w.book)
	must(t, err)
	t.Cleanup(func() { must(t, w.ledger.Close()) })
	w.server, err = s.NewServer("n0")
	must(t, err)
	must(t, w.server.Init(ctx, "max_prepared_transactions = 10", "max_wal_size = 256MB", "checkpoint_timeout = 30s"))
	must(t, w.server.Start())
	must(t, w.server.Ready(ctx))
	return w
}

func (w *world) deadline(d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(w.t.Context(), d)
	w.t.Cleanup(cancel)
	return ctx
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// load runs the ledger until stop is called.
func (w *world) load() (stop func()) {
	ctx, cancel := context.WithCancel(w.t.Context())
	done := make(chan error, 1)
	config := ledger.Config{ConnString: w.server.ConnString(), Connections: 4, Rate: 300, PayloadBytes: 2000 + w.rng.IntN(6000), PreparedEvery: 15}
	go func() { done <- w.ledger.Run(ctx, config) }()
	return func() { cancel(); <-done }
}

// protect starts outrider and waits until it protects.
func (w *world) protect() *stage.Outrider {
	w.t.Helper()
	o, err := w.stage.Run(w.cloud, w.root, w.server, "--rpo", rpo.String())
	must(w.t, err)
	must(w.t, o.Protected(w.deadline(90*time.Second)))
	return o
}

// comeBack restores into an empty directory and returns what the ledger finds.
func (w *world) comeBack(cycle int, o ledger.Options) ledger.Report {
	w.t.Helper()
	must(w.t, w.server.Remove())
	next, err := w.stage.NewServer(fmt.Sprintf("n%d", cycle))
	must(w.t, err)
	ctx := w.deadline(3 * time.Minute)
	_, err = w.stage.Restore(ctx, w.cloud, w.root, next)
	must(w.t, err)
	must(w.t, next.Start())
	must(w.t, next.Ready(ctx))
	w.server = next
	report, err := ledger.Verify(ctx, next.ConnString(), w.book, o)
	must(w.t, err)
	return report
}

func (w *world) work(least time.Duration) {
	time.Sleep(least + time.Duration(w.rng.Int64N(int64(2*time.Second))))
}

func TestCrashes(t *testing.T) {
	w := newWorld(t, "crashes")
	cycles := int(number(t, "OUTRIDER_CYCLES", 3))
	worst := 0.0
	for cycle := 1; cycle <= cycles; cycle++ {
		o := w.protect()
		stop := w.load()
		w.work(2 * time.Second)
		what := w.die(o)
		o.Kill()
		w.server.Kill()
		kill, err := w.ledger.MarkKill()
		must(t, err)
		stop()
		w.calm()
		report := w.comeBack(cycle, ledger.Options{Kill: kill, RPO: rpo})
		age := 0.0
		if report.OldestLostAge != nil {
			age = *report.OldestLostAge
		}
		worst = max(worst, age)
		t.Logf("cycle %d: %s: %d acknowledged, %d lost, the oldest %.3f s before the kill", cycle, what, report.Acknowledged, report.Lost, age)
		if err := report.Err(); err != nil {
			t.Fatalf("cycle %d (%s): %v", cycle, what, err)
		}
	}
	t.Logf("%d crashes, the oldest loss was acknowledged %.3f s before its kill", cycles, worst)
}

// die does what happens before the node goes: nothing, the death of one side first, or a store that stumbles.
func (w *world) die(o *stage.Outrider) string {
	switch w.rng.IntN(4) {
	case 0:
		return "both at once"
	case 1:
		// The sidecar dies first and is back in time: a restarted container.
		o.Kill()
		again := w.protect()
		w.work(time.Second)
		*o = *again
		return "sidecar restarted, then both"
	case 2:
		w.server.Kill()
		must(w.t, w.server.Start())
		must(w.t, w.server.Ready(w.deadline(time.Minute)))
		must(w.t, o.Protected(w.deadline(time.Minute)))
		w.work(2 * time.Second)
		return "Postgres crashed and recovered in place, then both"
	default:
		_, err := w.cloud.Control(w.t.Context(), "PUT", "faults", `[
			{"op":"put","kind":"reset_after","probability":0.1},{"op":"put","kind":"status","status":503,"probability":0.1},
			{"op":"list","kind":"status","status":500,"probability":0.1}]`)
		must(w.t, err)
		w.work(3 * time.Second)
		return "a stumbling store, then both"
	}
}

func (w *world) calm() {
	_, err := w.cloud.Control(w.t.Context(), "DELETE", "faults", "")
	must(w.t, err)
}

func TestOrderlyStops(t *testing.T) {
	w := newWorld(t, "stops")
	cycles := int(number(t, "OUTRIDER_CYCLES", 3))
	for cycle := 1; cycle <= cycles; cycle++ {
		o := w.protect()
		stop := w.load()
		w.work(time.Second)
		ctx := w.deadline(time.Minute)
		if w.rng.IntN(4) > 0 {
			must(t, o.PreStop(ctx))
		}
		must(t, w.server.Stop(ctx, syscall.SIGINT))
		stop()
		must(t, o.Signal(syscall.SIGTERM))
		if err := o.Wait(ctx); err != nil {
			t.Fatalf("cycle %d: outrider ended with %v: %s", cycle, err, o.Tail(10))
		}
		report := w.comeBack(cycle, ledger.Options{})
		t.Logf("cycle %d: %d acknowledged, %d lost", cycle, report.Acknowledged, report.Lost)
		if err := report.Err(); err != nil {
			t.Fatalf("cycle %d: %v", cycle, err)
		}
	}
}
