package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/basebackup"
	"outrider.dev/sidecar/internal/drain"
	"outrider.dev/sidecar/internal/evacuation"
	"outrider.dev/sidecar/internal/journal"
	"outrider.dev/sidecar/internal/notice"
	"outrider.dev/sidecar/internal/postgres"
	"outrider.dev/sidecar/internal/ship"
	"outrider.dev/sidecar/policy"
)

// runConfig is what `outrider run` needs to know.
type runConfig struct {
	policy   policy.Policy
	pgdata   string
	password string // file with the password of the server's role; "" for libpq's ways
	listen   string
	metadata string            // base URL of the metadata service; "" for none
	evacuate evacuation.Config // URL "" for nobody to ask
	identify func() (archive.Identity, error)
	log      *slog.Logger
}

const (
	envPGData = "PGDATA"
	envListen = "OUTRIDER_LISTEN"
)

func newRunCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Ship WAL, take snapshots, watch for notices; runs beside the server",
		Long: "Runs beside a server and keeps its archive. The server is reached as libpq reaches it (PGHOST, PGPORT, PGUSER, " +
			"PGPASSWORD, PGDATABASE).\nThe first SIGTERM or SIGINT ships what is left and writes the receipt; the second ends at once.",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.run(cmd.Context()) },
	}
	a.envFlag(cmd.Flags(), "pgdata", envPGData, "", "data directory of the server")
	a.envFlag(cmd.Flags(), "listen", envListen, ":9850", "address for /metrics, /livez, /readyz, /prestop and /status")
	a.passwordFlag(cmd.Flags())
	a.evacuationFlags(cmd.Flags())
	a.policyFlags(cmd.Flags(), "rpo", "rto", "request-budget", "backup-schedule", "retention", "min-backups", "grace", "superseded", "take-over", "adopt",
		"max-wal-backlog", "storage-class", "encryption", "archiving", "drill-max-age")
	return cmd
}

// run reads the configuration and runs until the first signal, and then until everything is shipped.
func (a *app) run(ctx context.Context) error {
	p, _, err := a.policy()
	if err != nil {
		return err
	}
	c := runConfig{policy: p, pgdata: a.setting(envPGData), password: a.setting(envPasswordFile), listen: a.setting(envListen), metadata: a.setting(envMetadataURL), evacuate: a.evacuation(), log: a.log}
	if c.pgdata == "" {
		return usagef("outrider run needs the data directory of the server: set PGDATA or --pgdata")
	}
	leanMemory(a.env, p.Memory.Limit)
	// Asked for each time a server is met: the directory may not be there yet, and may be another one later.
	c.identify = func() (archive.Identity, error) { return a.identity(c.pgdata) }
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	a.reg = reg
	g := newGuard(c, a.newDoor(p), reg)
	source := func(ctx context.Context) (*archive.Archive, error) { return a.restoreSource(ctx, p) }
	return g.run(ctx, c, reg, source)
}

// run builds the graph of the README's picture and runs it. soft ends at the first signal: what was begun is then
// finished, within the grace period, and only after that everything ends. Nothing that time may heal ends it before:
// the health of a sidecar is the availability of its Postgres.
func (g *guard) run(soft context.Context, c runConfig, reg *prometheus.Registry, source openSource) error {
	hard, cancel := context.WithCancelCause(context.WithoutCancel(soft))
	defer cancel(nil)
	var lc net.ListenConfig
	listener, err := lc.Listen(soft, "tcp", c.listen)
	if err != nil {
		return fmt.Errorf("listening for probes and scrapes: %w: choose another address with --listen", err)
	}
	defer context.AfterFunc(soft, func() { time.AfterFunc(c.policy.Grace, func() { cancel(errGraceOver) }) })()
	reg.MustRegister(newCollector(g))

	group, ctx := errgroup.WithContext(hard)
	group.Go(func() error { return serve(ctx, listener, g.routes(hard, reg)) })
	group.Go(func() error { return g.journal.Run(ctx) })
	group.Go(func() error { return g.watchAge(ctx) })
	group.Go(func() error { return g.fillSpool(ctx, source) })
	if c.metadata != "" {
		w := notice.New(notice.Config{BaseURL: c.metadata, Log: c.log, Registerer: reg})
		group.Go(func() error { return w.Run(ctx, func(n notice.Notice) { g.onNotice(hard, n) }) })
	}
	if g.asker != nil {
		group.Go(func() error { return g.asker.Run(until(ctx, soft)) })
	}
	if g.reports != nil {
		group.Go(func() error { return g.reports.Run(until(ctx, soft)) })
	}
	group.Go(func() error {
		defer cancel(nil) // everything else serves this
		if c.policy.Archiving == policy.Off {
			return g.accompany(soft)
		}
		return g.protect(soft, hard)
	})
	return group.Wait()
}

// errGraceOver says that a stop took longer than it may.
var errGraceOver = fmt.Errorf("%w: the time for stopping is over", drain.ErrNotAll)

func newGuard(c runConfig, d *door, reg prometheus.Registerer) *guard {
	g := &guard{
		policy: c.policy, door: d, identify: c.identify, log: c.log, reg: reg,
		dir:     localFiles{pgdata: filepath.Clean(c.pgdata), pg: postgres.Config{AppName: "outrider", PasswordFile: c.password}},
		journal: journal.New(d, c.log),
		ships:   ship.NewMetrics(reg),
		backups: basebackup.NewMetrics(reg),
	}
	g.board = newBoard(c.policy.Archive, version(), func(from, to protection, reason string) {
		c.log.Info("protection has changed", "from", string(from), "to", string(to), "reason", reason)
		g.journal.Note(eventState, "from", string(from), "to", string(to), "reason", reason)
		g.reportMove(to, reason)
	})
	if n := c.policy.RequestBudget; n > 0 {
		g.pacer = newPacer(n, c.policy.RPO, d.requests)
	}
	g.prepare = &drain.Preparer{Now: g.underway, Done: g.prepared}
	g.asker = g.newAsker(c.evacuate, reg)
	g.reports = newReporter(c.evacuate, c.log, reg)
	return g
}
