package world

import (
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"outrider.dev/e2e/ledger"
	"outrider.dev/e2e/stage"
)

// RPO is the promise that outrider is asked to keep.
const RPO = time.Second

// slack is what losses after a crash may exceed the promise by. Zero is for `make soak`, where nothing else runs. In
// the tests two packages share two cores with the race detector: there a crash is judged by what it leaves (a prefix
// of history, nothing foreign, nothing damaged), and the age of the oldest loss only against standing still.
const slack = 20 * time.Second

// Judged is the RPO that losses after a crash are judged by: RPO in the soak (OUTRIDER_SOAK=1), far more in tests.
func Judged() time.Duration {
	if Soak() {
		return RPO
	}
	return RPO + slack
}

// Soak tells whether this is the long run on an otherwise quiet machine, with programs as they are shipped.
func Soak() bool { return os.Getenv("OUTRIDER_SOAK") != "" }

// World is one test's cloud, its databases, and the ledger that judges them. Methods that need a person to look at
// what went wrong fail the test.
type World struct {
	T      *testing.T
	Stage  *stage.Stage
	Cloud  *stage.Cloud
	Ledger *ledger.Ledger
	Book   string // the ledger's journal
	Root   string // of the database in the archive
	Rand   *rand.Rand

	programs   *Programs
	segmentMiB int
}

// New makes a world that is gone after the test. Everything random in it comes from OUTRIDER_SEED, which is printed.
// Servers have WAL segments of so many MiB.
func New(t *testing.T, p *Programs, segmentMiB int) *World {
	t.Helper()
	return newWorld(t, p, p.dir, segmentMiB)
}

// NewPlain is New with programs without the race detector.
func NewPlain(t *testing.T, p *Programs, segmentMiB int) *World {
	t.Helper()
	dir, err := p.Plain()
	Must(t, err)
	return newWorld(t, p, dir, segmentMiB)
}

func newWorld(t *testing.T, p *Programs, bin string, segmentMiB int) *World {
	t.Helper()
	seed := Number(t, "OUTRIDER_SEED", uint64(time.Now().UnixNano()))
	t.Logf("OUTRIDER_SEED=%d", seed)
	s, err := stage.New(bin)
	Must(t, err)
	t.Cleanup(func() { closeStage(t, s) })
	w := &World{
		T: t, Stage: s, Rand: rand.New(rand.NewPCG(seed, 0)), Root: stage.Root("a"), Book: filepath.Join(s.Dir, "ledger.journal"),
		programs: p, segmentMiB: segmentMiB,
	}
	w.Cloud, err = s.StartCloud(w.Deadline(time.Minute))
	Must(t, err)
	w.Ledger, err = ledger.Open(w.Book)
	Must(t, err)
	t.Cleanup(func() { Must(t, w.Ledger.Close()) })
	return w
}

// closeStage looks for what no program may do, whatever the test was about, and leaves the logs of a failure.
func closeStage(t *testing.T, s *stage.Stage) {
	t.Helper()
	s.Stop()
	logs, err := filepath.Glob(filepath.Join(s.Dir, "*-outrider*.log"))
	Must(t, err)
	for _, path := range logs {
		b, err := os.ReadFile(path)
		Must(t, err)
		for _, sign := range []string{"WARNING: DATA RACE", "panic: ", "fatal error: "} {
			if i := strings.Index(string(b), sign); i >= 0 {
				t.Errorf("%s: %s", filepath.Base(path), b[i:min(len(b), i+3000)])
			}
		}
	}
	if t.Failed() {
		t.Logf("logs are left in %s", s.Dir)
		return
	}
	Must(t, s.Close())
}

// Number is a number from the environment.
func Number(t *testing.T, name string, otherwise uint64) uint64 {
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

// Must fails the test on an error.
func Must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Deadline is a context that ends with the test, or after d.
func (w *World) Deadline(d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(w.T.Context(), d)
	w.T.Cleanup(cancel)
	return ctx
}

// Long is enough for anything that is waited for, on a loaded machine too.
const Long = 90 * time.Second

// Until waits until ask says yes.
func (w *World) Until(what string, ask func(ctx context.Context) bool) {
	w.T.Helper()
	ctx := w.Deadline(Long)
	Must(w.T, stage.Until(ctx, what, func() (bool, error) { return ask(ctx), nil }))
}

// Work lets the load go on for at least this long.
func (w *World) Work(least time.Duration) {
	time.Sleep(least + time.Duration(w.Rand.Int64N(int64(least)/2+1)))
}

// Faults arms faults of the store, given as JSON; without any all are taken away.
func (w *World) Faults(faults ...string) {
	w.T.Helper()
	Must(w.T, w.Cloud.Faults(w.Deadline(Long), faults...))
}

// CutOff takes all faults away, with the requests that hang in them: the store is started again.
func (w *World) CutOff() {
	w.T.Helper()
	w.Cloud.Kill()
	Must(w.T, w.Cloud.Restart(w.Deadline(Long)))
}

// Control turns a switch of the cloud.
func (w *World) Control(method, path, body string) {
	w.T.Helper()
	_, err := w.Cloud.Control(w.Deadline(Long), method, path, body)
	Must(w.T, err)
}
