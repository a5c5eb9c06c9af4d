package drain

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/wal"
)

// world is a server, its files and its shipping, as a stop meets them.
type world struct {
	mu         sync.Mutex
	steps      []string
	alive      []bool // answers to Alive, the last one for ever
	flushed    wal.LSN
	durable    wal.LSN
	checkpoint time.Duration
	stuck      bool // the store is away
	control    wal.Control
	end        wal.LSN
	endErr     error
	valid      wal.LSN
	other      error // why the directory is not the one that was shipped
	receipts   []archive.Receipt
	hangs      bool          // Postgres does not say how far WAL is flushed
	probe      time.Duration // what each answer to Alive takes
	unknown    error         // it cannot be told whether Postgres lives
}

func (w *world) step(s string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.steps = append(w.steps, s)
}

func (w *world) Checkpoint(ctx context.Context) error {
	w.step("checkpoint")
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(w.checkpoint):
		return nil
	}
}

func (w *world) Flushed(ctx context.Context) (wal.Position, error) {
	if w.hangs {
		<-ctx.Done()
		return wal.Position{}, context.Cause(ctx)
	}
	return wal.Position{Timeline: 1, LSN: w.flushed}, nil
}
func (w *world) Durable() wal.Position { return wal.Position{Timeline: 1, LSN: w.durable} }

func (w *world) WaitDurable(ctx context.Context, p wal.Position) error {
	w.step("wait")
	if w.stuck {
		<-ctx.Done()
		return context.Cause(ctx)
	}
	w.durable = max(w.durable, p.LSN)
	return nil
}

func (w *world) ShipTo(ctx context.Context, to wal.LSN) error {
	w.step("ship " + to.String())
	if w.stuck {
		<-ctx.Done()
		return context.Cause(ctx)
	}
	w.durable = max(w.durable, to)
	return nil
}
func (w *world) SealRest(context.Context, bool) error { w.step("seal"); return nil }
func (w *world) Sweep(context.Context) error          { return nil }
func (w *world) compare() error                       { return w.other }

func (w *world) Alive(context.Context) (bool, error) {
	time.Sleep(w.probe)
	if w.unknown != nil {
		return false, w.unknown
	}
	a := w.alive[0]
	if len(w.alive) > 1 {
		w.alive = w.alive[1:]
	}
	return a, nil
}
func (w *world) Control() (wal.Control, error)            { return w.control, nil }
func (w *world) ShutdownEnd(wal.Control) (wal.LSN, error) { return w.end, w.endErr }
func (w *world) ValidEnd(wal.Position) (wal.LSN, error)   { return w.valid, nil }
func (w *world) PutReceipt(_ context.Context, r archive.Receipt) error {
	w.step("receipt")
	w.mu.Lock()
	defer w.mu.Unlock()
	w.receipts = append(w.receipts, r)
	return nil
}

func (w *world) finish(t *testing.T) (archive.Receipt, error) {
	t.Helper()
	f := Finisher{Local: w, Ship: w, Receipts: w, Server: w, Compare: w.compare, Linger: time.Second, Log: slog.New(slog.DiscardHandler)}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	return f.Finish(ctx, archive.Receipt{Epoch: 1})
}

func TestPrepareAnswersWithinItsBudget(t *testing.T) {
	for name, c := range map[string]struct {
		world    *world
		complete bool
		within   time.Duration
	}{
		"all is well":                  {world: &world{flushed: 100}, complete: true, within: 0},
		"a checkpoint without end":     {world: &world{flushed: 100, checkpoint: time.Hour}, complete: true, within: 14 * time.Second},
		"a store that does not answer": {world: &world{flushed: 100, stuck: true}, within: 20 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := c.world
				p := &Preparer{Now: func() (Server, Shipping, error) { return w, w, nil }}
				started := time.Now()
				o := p.Prepare(t.Context(), "test", Budget(2*time.Minute))
				if took := time.Since(started); took > c.within {
					t.Errorf("it took %s, of at most %s", took, c.within)
				}
				if o.Complete() != c.complete {
					t.Errorf("complete is %t: %+v", o.Complete(), o)
				}
			})
		})
	}
}

func TestPrepareIsOneFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{flushed: 100, checkpoint: 5 * time.Second}
		runs := 0
		p := &Preparer{Now: func() (Server, Shipping, error) { return w, w, nil }, Done: func(Outcome) { runs++ }}
		gone, cancel := context.WithCancel(t.Context())
		var group sync.WaitGroup
		group.Go(func() { p.Prepare(gone, "hung up", 20*time.Second) })
		synctest.Wait()
		var o Outcome
		group.Go(func() { o = p.Prepare(t.Context(), "stays", 20*time.Second) })
		time.Sleep(time.Second)
		cancel() // the first caller hangs up; the second must still get what was begun
		group.Wait()
		if n := len(slices.DeleteFunc(w.steps, func(s string) bool { return s != "checkpoint" })); n != 1 {
			t.Errorf("%d checkpoints for two callers", n)
		}
		if runs != 1 {
			t.Errorf("one run was told of %d times", runs)
		}
		if !o.Complete() {
			t.Errorf("the second caller got %+v", o)
		}
	})
}

// Whoever comes right after a preparation gets its outcome, but only where another one could do nothing more.
func TestPrepareAnswersTwice(t *testing.T) {
	for name, c := range map[string]struct {
		pause  time.Duration
		change func(w *world)
		reason string // of the second; that of the first if empty
		runs   int
	}{
		"at once":                      {pause: time.Second, runs: 1},
		"for another reason":           {reason: "notice", runs: 2},
		"later":                        {pause: 3 * time.Second, runs: 2},
		"something was flushed":        {change: func(w *world) { w.flushed++ }, runs: 2},
		"it was, and is durable":       {change: func(w *world) { w.flushed++; w.durable++ }, runs: 2},
		"another archive":              {change: func(w *world) { w.durable = 0 }, runs: 2},
		"the server does not answer":   {change: func(w *world) { w.hangs = true }, runs: 2},
		"there was no checkpoint":      {change: func(w *world) { w.checkpoint = 0 }, runs: 2},
		"the store was away until now": {change: func(w *world) { w.stuck = false }, runs: 2},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, runs := &world{flushed: 100}, 0
				switch name {
				case "there was no checkpoint":
					w.checkpoint = time.Hour
				case "the store was away until now":
					w.stuck = true
				}
				p := &Preparer{Now: func() (Server, Shipping, error) { return w, w, nil }, Done: func(Outcome) { runs++ }}
				p.Prepare(t.Context(), "prestop", 20*time.Second)
				time.Sleep(c.pause)
				if c.change != nil {
					c.change(w)
				}
				started := time.Now()
				o := p.Prepare(t.Context(), cmp.Or(c.reason, "prestop"), 20*time.Second)
				if runs != c.runs {
					t.Errorf("%d runs, want %d", runs, c.runs)
				}
				if !w.hangs && !o.Complete() || w.hangs && time.Since(started) > 20*time.Second {
					t.Errorf("after %s the answer is %+v", time.Since(started), o)
				}
			})
		})
	}
}

func TestFinishBelievesOnlyFiles(t *testing.T) {
	clean := wal.Control{State: wal.StateShutDown, CheckPoint: 900, CheckPointTimeline: 1}
	another := clean
	another.SystemIdentifier = 2
	errOther := errors.New("the bytes are others")
	for name, c := range map[string]struct {
		world   *world
		clean   bool
		durable wal.LSN
		err     error
	}{
		"a clean stop":                         {world: &world{alive: []bool{false}, control: clean, end: 1020}, clean: true, durable: 1020},
		"Postgres lives":                       {world: &world{alive: []bool{true}, flushed: 500, control: clean, end: 1020}, durable: 500},
		"Postgres goes while we wait":          {world: &world{alive: []bool{true, true, false}, flushed: 500, control: clean, end: 1020}, clean: true, durable: 1020},
		"a crash":                              {world: &world{alive: []bool{false}, control: wal.Control{State: wal.StateInProduction}, valid: 700}, durable: 700},
		"no checkpoint where it should be":     {world: &world{alive: []bool{false}, control: clean, endErr: wal.ErrNotClean, valid: 700}, durable: 700, err: ErrNotAll},
		"stopped on a timeline nobody shipped": {world: &world{alive: []bool{false}, control: wal.Control{State: wal.StateShutDown, CheckPointTimeline: 2}, end: 1020}, err: ErrNotAll},
		"the store is away":                    {world: &world{alive: []bool{false}, control: clean, end: 1020, stuck: true}, err: ErrNotAll},
		"the directory was replaced":           {world: &world{alive: []bool{false}, control: clean, end: 1020, other: errOther}, err: ErrNotAll},
		"it was, and crashed":                  {world: &world{alive: []bool{false}, control: wal.Control{State: wal.StateInProduction}, valid: 700, other: errOther}, err: errOther},
		"it was, and a server lives on it":     {world: &world{alive: []bool{true}, flushed: 500, other: errOther}, err: errOther},
		"it is another database's":             {world: &world{alive: []bool{false}, control: another, end: 1020}, err: ErrNotAll},
		"it is from before":                    {world: &world{alive: []bool{false}, control: clean, end: 1020, durable: 1100}, durable: 1100, err: ErrNotAll},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := c.world
				r, err := w.finish(t)
				if !errors.Is(err, c.err) || c.err == nil && err != nil {
					t.Fatalf("error %v, want %v", err, c.err)
				}
				if errors.Is(err, ErrOther) && slices.Contains(w.steps, "seal") {
					t.Errorf("files of another history were sealed: %v", w.steps)
				}
				if r.Clean != c.clean || r.Durable != c.durable {
					t.Errorf("clean %t durable %s (%s), want %t and %s", r.Clean, r.Durable, r.Reason, c.clean, c.durable)
				}
				if len(w.receipts) == 0 || w.receipts[len(w.receipts)-1].Clean != c.clean || r.Reason == "" {
					t.Errorf("the receipts are %+v", w.receipts)
				}
			})
		})
	}
}

// The last two seconds may be all there is: what is flushed goes up before anything else, and a receipt that does
// not say clean is there before Postgres is waited for.
func TestFinishShipsFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{alive: []bool{true}, flushed: 500}
		if _, err := w.finish(t); err != nil {
			t.Fatal(err)
		}
		if len(w.steps) < 2 || w.steps[0] != "ship 0/1F4" || w.steps[1] != "receipt" {
			t.Errorf("the steps were %v", w.steps)
		}
		if w.receipts[0].Clean {
			t.Error("Postgres lives, and the receipt says clean")
		}
	})
}

// A probe of a server that hangs takes as long as its timeout, and there may be two seconds in all.
func TestFinishShipsBeforeTheProbeAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{alive: []bool{true}, flushed: 500, probe: 10 * time.Second}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		done := make(chan error, 1)
		go func() {
			f := Finisher{Local: w, Ship: w, Receipts: w, Server: w, Linger: time.Second, Log: slog.New(slog.DiscardHandler), Compare: w.compare}
			_, err := f.Finish(ctx, archive.Receipt{Epoch: 1})
			done <- err
		}()
		time.Sleep(time.Second)
		w.mu.Lock()
		steps, receipts := slices.Clone(w.steps), slices.Clone(w.receipts)
		w.mu.Unlock()
		if len(steps) < 2 || steps[0] != "ship 0/1F4" || steps[1] != "receipt" || receipts[0].Clean || receipts[0].Durable != 500 {
			t.Errorf("a second into the stop the steps were %v, the receipts %+v", steps, receipts)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// A server that lives and cannot be asked, or does not answer: what validates on its disk goes up, in time.
func TestFinishWithoutAnAnswer(t *testing.T) {
	for _, hangs := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			w := &world{alive: []bool{true}, valid: 700, hangs: hangs}
			f := Finisher{Local: w, Ship: w, Receipts: w, Linger: time.Second, Log: slog.New(slog.DiscardHandler), Compare: w.compare}
			if hangs {
				f.Server = w
			}
			began := time.Now()
			r, err := f.Finish(t.Context(), archive.Receipt{Epoch: 1})
			if err != nil || r.Clean || r.Durable != 700 {
				t.Errorf("hangs: %t: the receipt is %+v, %v", hangs, r, err)
			}
			if took := time.Since(began); took > 3*time.Second {
				t.Errorf("hangs: %t: it took %s", hangs, took)
			}
		})
	}
}

// Whether Postgres lives cannot be told. What it has flushed goes up all the same, and so does what validates on the
// disk; nobody claims that it was clean.
func TestFinishShipsWhatItCanTell(t *testing.T) {
	for name, server := range map[string]bool{"with a session": true, "without": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := &world{flushed: 500, valid: 700, unknown: errors.New("no answer"), control: wal.Control{State: wal.StateShutDown}, end: 700}
				f := Finisher{Local: w, Ship: w, Receipts: w, Linger: time.Second, Log: slog.New(slog.DiscardHandler), Compare: w.compare}
				if server {
					f.Server = w
				}
				r, err := f.Finish(t.Context(), archive.Receipt{Epoch: 1})
				if !errors.Is(err, w.unknown) {
					t.Errorf("error %v, want %v", err, w.unknown)
				}
				if r.Clean || r.Durable != 700 || r.LocalEnd != 0 || !strings.Contains(r.Reason, "no answer") {
					t.Errorf("the receipt is %+v", r)
				}
			})
		})
	}
}

// A writer that was superseded and did not know it yet does not call its stop clean, whatever its files say: who took
// over may have gone on from before its end. Nor does one that cannot find out. One that finds out in time does.
func TestFinishAsksWhoOwnsTheArchive(t *testing.T) {
	clean := wal.Control{State: wal.StateShutDown, CheckPoint: 900, CheckPointTimeline: 1}
	away := errors.New("connection refused")
	for name, c := range map[string]struct {
		alive      bool
		answers    []error // the last one for ever
		hangs      bool    // there is none
		clean      bool
		superseded bool
		err        error
		says       string
		within     time.Duration
	}{
		"it is ours":                {answers: []error{nil}, clean: true},
		"another one has it":        {answers: []error{ErrOvertaken}, superseded: true, err: ErrOvertaken, says: "another writer"},
		"ours, but told late":       {answers: []error{away, away, nil}, clean: true, within: 2 * time.Second},
		"another one's, told late":  {answers: []error{away, ErrOvertaken}, superseded: true, err: ErrOvertaken, says: "another writer", within: time.Second},
		"it cannot be told":         {answers: []error{away}, err: ErrNotAll, says: "it could not be told whether another writer", within: time.Minute},
		"no answer":                 {hangs: true, err: ErrNotAll, says: "it could not be told whether another writer", within: time.Minute},
		"Postgres lives":            {alive: true, answers: []error{nil}, says: "still running", within: time.Second},
		"it lives, and no answer":   {alive: true, hangs: true, says: "still running", within: 3 * time.Second},
		"it lives in another's one": {alive: true, answers: []error{ErrOvertaken}, superseded: true, err: ErrOvertaken, says: "still running", within: time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := &world{alive: []bool{c.alive}, flushed: 500, control: clean, end: 1020}
				f := Finisher{Local: w, Ship: w, Receipts: w, Server: w, Compare: w.compare, Linger: time.Second, Log: slog.New(slog.DiscardHandler)}
				f.Owner = func(ctx context.Context) error {
					if c.hangs {
						<-ctx.Done()
						return context.Cause(ctx)
					}
					err := c.answers[0]
					c.answers = c.answers[min(1, len(c.answers)-1):]
					return err
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				began := time.Now()
				r, err := f.Finish(ctx, archive.Receipt{Epoch: 1})
				if !errors.Is(err, c.err) || c.err == nil && err != nil {
					t.Errorf("error %v, want %v", err, c.err)
				}
				if r.Clean != c.clean || r.Superseded != c.superseded || !strings.Contains(r.Reason, c.says) {
					t.Errorf("the receipt is %+v", r)
				}
				if took := time.Since(began); took > c.within+100*time.Millisecond {
					t.Errorf("it took %s", took)
				}
				if c.superseded && slices.Contains(w.steps, "seal") {
					t.Errorf("segments were sealed in another writer's archive: %v", w.steps)
				}
				for i, r := range w.receipts[:len(w.receipts)-1] {
					if r.Clean {
						t.Errorf("receipt %d of %d says clean before it was known", i+1, len(w.receipts))
					}
				}
			})
		})
	}
}
