package world

import (
	"context"
	"syscall"

	"outrider.dev/e2e/ledger"
	"outrider.dev/e2e/stage"
)

// Fresh is a new database that does not run yet.
func (w *World) Fresh(name string, settings ...string) *stage.Server {
	w.T.Helper()
	ctx := w.Deadline(Long)
	data, err := w.programs.template(ctx, w.segmentMiB)
	Must(w.T, err)
	p, err := w.Stage.NewServer(name)
	Must(w.T, err)
	Must(w.T, p.CopyFrom(ctx, data))
	Must(w.T, p.Configure(settings...))
	return p
}

// Database is a new database that runs.
func (w *World) Database(name string, settings ...string) *stage.Server {
	w.T.Helper()
	p := w.Fresh(name, settings...)
	w.Start(p)
	return p
}

// Start starts a server and waits until it takes a write.
func (w *World) Start(p *stage.Server) {
	w.T.Helper()
	Must(w.T, p.Start())
	Must(w.T, p.Ready(w.Deadline(Long)))
}

// Outrider starts `outrider run` beside a server.
func (w *World) Outrider(p *stage.Server, args ...string) *stage.Outrider {
	w.T.Helper()
	o, err := w.Stage.Run(w.Cloud, w.Root, p, append([]string{"--rpo", RPO.String()}, args...)...)
	Must(w.T, err)
	return o
}

// Protect starts outrider and waits until it protects.
func (w *World) Protect(p *stage.Server, args ...string) *stage.Outrider {
	w.T.Helper()
	o := w.Outrider(p, args...)
	Must(w.T, o.Protected(w.Deadline(Long)))
	return o
}

// Load runs the ledger against a server until stop is called, and returns when the first rows are acknowledged.
func (w *World) Load(p *stage.Server, change ...func(*ledger.Config)) (stop func()) {
	w.T.Helper()
	ctx, cancel := context.WithCancel(w.T.Context())
	done := make(chan struct{})
	c := ledger.Config{ConnString: p.ConnString(), Connections: 4, Rate: 300, PayloadBytes: 2000 + w.Rand.IntN(6000), PreparedEvery: 15}
	for _, f := range change {
		f(&c)
	}
	before := w.Acknowledged()
	go func() {
		defer close(done)
		// It ends in an error when its server does; what counts is what it wrote down.
		_ = w.Ledger.Run(ctx, c)
	}()
	w.T.Cleanup(cancel)
	w.Until("the first commits", func(context.Context) bool { return w.Acknowledged() > before+20 })
	return func() {
		cancel()
		<-done
	}
}

// Acknowledged is how many commits were acknowledged so far.
func (w *World) Acknowledged() int64 { return w.Ledger.Stats().Acknowledged }

// StopServer shuts a server down; see stage.Server.Signal.
func (w *World) StopServer(p *stage.Server, how syscall.Signal) {
	w.T.Helper()
	Must(w.T, p.Stop(w.Deadline(Long), how))
}

// Finish tells outrider to go, and waits until it has gone with everything shipped.
func (w *World) Finish(o *stage.Outrider) {
	w.T.Helper()
	if code := w.Terminate(o); code != 0 {
		w.T.Fatalf("outrider ended with exit code %d: %s", code, o.Tail(10))
	}
}

// Terminate tells outrider to go and returns its exit code.
func (w *World) Terminate(o *stage.Outrider) int {
	w.T.Helper()
	Must(w.T, o.Signal(syscall.SIGTERM))
	return w.ExitCode(o)
}

// ExitCode waits for the end of outrider.
func (w *World) ExitCode(o *stage.Outrider) int {
	w.T.Helper()
	ctx := w.Deadline(Long)
	err := o.Wait(ctx)
	if ctx.Err() != nil {
		w.T.Fatalf("%v: %s", err, o.Tail(10))
	}
	return stage.ExitCode(err)
}

// Crash ends server and outrider at once, as the loss of a machine does, and writes down when.
func (w *World) Crash(p *stage.Server, o *stage.Outrider) ledger.Instant {
	w.T.Helper()
	o.Kill()
	p.Kill()
	kill, err := w.Ledger.MarkKill()
	Must(w.T, err)
	return kill
}

// RestoreFiles rebuilds a directory from the archive with `outrider restore` and starts nothing.
func (w *World) RestoreFiles(name string, args ...string) *stage.Server {
	w.T.Helper()
	p, err := w.Stage.NewServer(name)
	Must(w.T, err)
	w.RestoreFilesInto(p, args...)
	return p
}

// RestoreFilesInto is RestoreFiles into the directory of a server that does not run.
func (w *World) RestoreFilesInto(p *stage.Server, args ...string) {
	w.T.Helper()
	_, err := w.Stage.Restore(w.Deadline(2*Long), w.Cloud, w.Root, p, args...)
	Must(w.T, err)
}

// Restore rebuilds a server from the archive and starts it.
func (w *World) Restore(name string, args ...string) *stage.Server {
	w.T.Helper()
	p := w.RestoreFiles(name, args...)
	w.Start(p)
	return p
}

// Judge compares a server with the ledger. Without a kill nothing acknowledged may be missing.
func (w *World) Judge(p *stage.Server, o ledger.Options) ledger.Report {
	w.T.Helper()
	report, err := ledger.Verify(w.Deadline(Long), p.ConnString(), w.Book, o)
	Must(w.T, err)
	return report
}

// NothingLost fails the test if anything acknowledged is missing on a server.
func (w *World) NothingLost(p *stage.Server) ledger.Report {
	w.T.Helper()
	r := w.Judge(p, ledger.Options{})
	if err := r.Err(); err != nil {
		w.T.Fatalf("%s: %v", p.Name, err)
	}
	if r.Acknowledged == 0 {
		w.T.Fatal("the ledger has nothing to judge")
	}
	return r
}
