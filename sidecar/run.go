package main

import (
	"context"
	"errors"
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
	"outrider.dev/sidecar/internal/journal"
	"outrider.dev/sidecar/internal/notice"
	"outrider.dev/sidecar/internal/postgres"
	"outrider.dev/sidecar/internal/ship"
	"outrider.dev/sidecar/internal/wal"
	"outrider.dev/sidecar/policy"
)

// runConfig is what `outrider run` needs to know.
type runConfig struct {
	policy   policy.Policy
	pgdata   string
	listen   string
	metadata string // base URL of the metadata service; "" for none
	writer   archive.Identity
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
	a.policyFlags(cmd.Flags(), "rpo", "rto", "backup-schedule", "retention", "min-backups", "grace", "superseded", "take-over", "adopt",
		"max-wal-backlog", "storage-class", "encryption", "archiving")
	return cmd
}

// run reads the configuration and runs until the first signal, and then until everything is shipped.
func (a *app) run(ctx context.Context) error {
	p, _, err := a.policy()
	if err != nil {
		return err
	}
	c := runConfig{policy: p, pgdata: a.setting(envPGData), listen: a.setting(envListen), metadata: a.setting(envMetadataURL), log: a.log}
	if c.pgdata == "" {
		return usagef("outrider run needs the data directory of the server: set PGDATA or --pgdata")
	}
	env := func(name string) string { v, _ := a.env(name); return v }
	if c.writer, err = identify(env, c.pgdata, version()); err != nil {
		return err
	}
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	r, err := a.openOurs(ctx, p, c.pgdata, reg)
	if err != nil {
		return err
	}
	if p.Archiving == policy.Off {
		return a.runClone(ctx, c, r)
	}
	return protectServer(ctx, c, r, reg)
}

// openOurs opens the root of the database in pgdata and makes sure that objects there can be created only once. The
// store's being away is waited out: Postgres keeps its WAL meanwhile.
func (a *app) openOurs(ctx context.Context, p policy.Policy, pgdata string, reg prometheus.Registerer) (root, error) {
	for {
		var sysid uint64
		if c, err := wal.ReadControl(pgdata); err == nil {
			sysid = c.SystemIdentifier
		}
		r, err := a.openGeneration(ctx, p, sysid, reg)
		if err == nil {
			err = r.bucket.Probe(ctx)
		}
		if err == nil || exitOf(err) != exitUnknown && !errors.Is(err, errStore) || ctx.Err() != nil {
			return r, err
		}
		a.log.Warn("the archive cannot be reached yet, it is tried again", "archive", p.Archive, "error", err)
		select {
		case <-ctx.Done():
			return r, context.Cause(ctx)
		case <-time.After(refusedInterval):
		}
	}
}

// protectServer builds the graph of the README's picture and runs it. soft ends at the first signal: what was begun
// is then finished, and only after that everything ends.
func protectServer(soft context.Context, c runConfig, r root, reg *prometheus.Registry) error {
	hard, cancel := context.WithCancel(context.WithoutCancel(soft))
	defer cancel()
	var lc net.ListenConfig
	listener, err := lc.Listen(soft, "tcp", c.listen)
	if err != nil {
		return fmt.Errorf("listening for probes and scrapes: %w: choose another address with --listen", err)
	}
	g := newGuard(c, r, reg)
	reg.MustRegister(newCollector(g))

	group, ctx := errgroup.WithContext(hard)
	group.Go(func() error { return serve(ctx, listener, g.routes(hard, reg)) })
	group.Go(func() error { return g.journal.Run(ctx) })
	group.Go(func() error { return g.fillSpool(ctx, r.Archive) })
	if c.metadata != "" {
		w := notice.New(notice.Config{BaseURL: c.metadata, Log: c.log, Registerer: reg})
		group.Go(func() error { return w.Run(ctx, func(n notice.Notice) { g.onNotice(hard, n) }) })
	}
	group.Go(func() error {
		defer cancel() // everything else serves this
		return g.protect(soft, hard)
	})
	return group.Wait()
}

// runClone is what runs beside a throw-away clone: it sees the restore to its end and archives nothing.
func (a *app) runClone(ctx context.Context, c runConfig, r root) error {
	a.log.Info("archiving is off: nothing of this server is kept", "archive", r.location)
	g := newGuard(c, r, prometheus.NewRegistry())
	if err := g.fillSpool(ctx, r.Archive); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

func newGuard(c runConfig, r root, reg prometheus.Registerer) *guard {
	g := &guard{
		policy: c.policy, arch: r.Archive, writer: c.writer, log: c.log, reg: reg,
		dir:     localFiles{pgdata: filepath.Clean(c.pgdata), pg: postgres.Config{AppName: "outrider"}},
		journal: journal.New(r.Archive, c.log),
		ships:   ship.NewMetrics(reg),
		backups: basebackup.NewMetrics(reg),
	}
	g.board = newBoard(r.location, c.writer.Version, func(from, to protection, reason string) {
		c.log.Info("protection has changed", "from", string(from), "to", string(to), "reason", reason)
		g.journal.Note("state", "from", string(from), "to", string(to), "reason", reason)
	})
	g.prepare = &drain.Preparer{Now: g.underway, Log: c.log}
	return g
}
