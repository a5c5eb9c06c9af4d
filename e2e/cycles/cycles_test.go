// Package cycles repeats what must never lose anything: load, death, restore, comparison. OUTRIDER_CYCLES says how
// often (a few by default, 50 in the soak), OUTRIDER_SEED repeats one run.
package cycles

import (
	"fmt"
	"os"
	"syscall"
	"testing"
	"time"

	"outrider.dev/e2e/ledger"
	"outrider.dev/e2e/stage"
	"outrider.dev/e2e/stock"
	"outrider.dev/e2e/world"
)

var programs *world.Programs

func TestMain(m *testing.M) {
	os.Exit(world.Run(m, func(p *world.Programs) { programs = p }))
}

// life is one database through all its lives.
type life struct {
	*world.World
	server *stage.Server
}

func begin(t *testing.T) *life {
	t.Helper()
	newWorld := world.New
	if world.Soak() {
		newWorld = world.NewPlain
	}
	w := newWorld(t, programs, 16)
	return &life{World: w, server: w.Database("n0")}
}

// comeBack restores into an empty directory and returns what the ledger finds.
func (l *life) comeBack(cycle int, o ledger.Options) ledger.Report {
	l.T.Helper()
	world.Must(l.T, l.server.Remove())
	l.server = l.Restore(fmt.Sprintf("n%d", cycle))
	return l.Judge(l.server, o)
}

func TestCrashes(t *testing.T) {
	l := begin(t)
	cycles := int(world.Number(t, "OUTRIDER_CYCLES", 3))
	worst := 0.0
	for cycle := 1; cycle <= cycles; cycle++ {
		o := l.Protect(l.server)
		stop := l.Load(l.server)
		l.Work(2 * time.Second)
		what := l.die(o)
		kill := l.Crash(l.server, o)
		stop()
		l.Faults()
		report := l.comeBack(cycle, ledger.Options{Kill: kill, RPO: world.Judged()})
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
	l.stock()
}

// stock reads the archive as tools do that know no chunks: what the crashes left in them must be no hole.
func (l *life) stock() {
	l.T.Helper()
	o := l.Protect(l.server)
	l.Load(l.server)()
	l.StopServer(l.server, syscall.SIGINT)
	l.Finish(o)
	k := l.Cloud.Keys()
	a, err := stock.Open(stock.Config{Prefix: l.Root, Endpoint: l.Cloud.OSS, Region: stage.Region, KeyID: k.ID, Secret: k.Secret})
	world.Must(l.T, err)
	world.Must(l.T, a.Check(l.Deadline(3*time.Minute)))
}

// die does what happens before the node goes: nothing, the death of one side first, or a store that stumbles.
func (l *life) die(o *stage.Outrider) string {
	switch l.Rand.IntN(4) {
	case 0:
		return "both at once"
	case 1:
		// The sidecar dies first and is back in time: a restarted container.
		o.Kill()
		again := l.Protect(l.server)
		l.Work(time.Second)
		*o = *again
		return "sidecar restarted, then both"
	case 2:
		l.server.Kill()
		l.Start(l.server)
		world.Must(l.T, o.Protected(l.Deadline(time.Minute)))
		l.Work(2 * time.Second)
		return "Postgres crashed and recovered in place, then both"
	default:
		l.Faults(`{"op":"put","kind":"reset_after","probability":0.1}`, `{"op":"put","kind":"status","status":503,"probability":0.1}`,
			`{"op":"list","kind":"status","status":500,"probability":0.1}`)
		l.Work(3 * time.Second)
		return "a stumbling store, then both"
	}
}

func TestOrderlyStops(t *testing.T) {
	l := begin(t)
	cycles := int(world.Number(t, "OUTRIDER_CYCLES", 3))
	for cycle := 1; cycle <= cycles; cycle++ {
		o := l.Protect(l.server)
		stop := l.Load(l.server)
		l.Work(time.Second)
		if l.Rand.IntN(4) > 0 {
			world.Must(t, o.PreStop(l.Deadline(time.Minute)))
		}
		l.StopServer(l.server, syscall.SIGINT)
		stop()
		l.Finish(o)
		report := l.comeBack(cycle, ledger.Options{})
		t.Logf("cycle %d: %d acknowledged, %d lost", cycle, report.Acknowledged, report.Lost)
		if err := report.Err(); err != nil {
			t.Fatalf("cycle %d: %v", cycle, err)
		}
	}
}
