package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/basebackup"
	"outrider.dev/sidecar/internal/postgres"
	"outrider.dev/sidecar/internal/wal"
)

func newBackupCommand(a *app) *cobra.Command {
	var full bool
	cmd := &cobra.Command{
		Use:   "backup",
		Short: "Take one snapshot now",
		Long: "Takes one snapshot now, beside an `outrider run` that ships the WAL which the snapshot needs.\n" +
			"It holds what changed since the last one, unless too much has, there is none on this timeline, or --full is given.",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.backup(cmd.Context(), full) },
	}
	cmd.Flags().BoolVar(&full, "full", false, "take a full snapshot")
	a.envFlag(cmd.Flags(), "pgdata", envPGData, "", "data directory of the server")
	a.passwordFlag(cmd.Flags())
	a.outputFlag(cmd)
	return cmd
}

func (a *app) backup(ctx context.Context, full bool) error {
	dir := a.setting(envPGData)
	if dir == "" {
		return usagef("outrider backup needs the data directory of the server: set PGDATA or --pgdata")
	}
	arch, err := a.openArchive(ctx)
	if err != nil {
		return err
	}
	pg := postgres.Config{AppName: "outrider backup", PasswordFile: a.setting(envPasswordFile)}
	conn, err := postgres.Connect(ctx, pg)
	if err != nil {
		return err
	}
	defer conn.Close()
	server, err := conn.Server(ctx)
	if err != nil {
		return err
	}
	cluster, err := arch.Cluster(ctx)
	if errors.Is(err, fs.ErrNotExist) {
		return coded{errors.New("nothing is shipped to this archive: a snapshot needs its WAL, so start outrider run first"), errNothing}
	}
	if err != nil {
		return err
	}
	if cluster.SystemIdentifier != server.SystemIdentifier {
		return fmt.Errorf("%w: the archive holds system identifier %d, the server is %d", archive.ErrConflict, cluster.SystemIdentifier, server.SystemIdentifier)
	}
	writer, err := a.identity(dir)
	if err != nil {
		return err
	}
	epochs, err := arch.Epochs(ctx)
	if err != nil || len(epochs) == 0 {
		return errors.Join(err, errors.New("no writer has claimed this archive: start outrider run first"))
	}
	known, err := onTimeline(ctx, arch.WAL(server.SegmentSize), server.Timeline)
	if err != nil {
		return err
	}
	bar := a.newProgress("snapshot")
	m, err := basebackup.New(basebackup.Config{
		Lists: arch, Known: known, Full: full,
		PGDATA: dir, Epoch: epochs[len(epochs)-1].Number, Instance: writer.Instance, Hostname: writer.Host,
		Server: backupServer{pg: pg, conn: conn, log: a.log}, Archive: arch, WAL: &polledDurable{w: arch.WAL(server.SegmentSize)},
		Log: a.log, Progress: func(p basebackup.Progress) { bar.set(p.Bytes, p.TotalBytes) },
	}).Take(ctx)
	bar.close()
	if err != nil {
		return err
	}
	return a.show(m, func(w io.Writer) {
		fmt.Fprintf(w, "%s: %s of data, %s stored, %.1f s, %d bad pages\n", m.Name, bytesText(m.RawSize), bytesText(m.StoredSize),
			m.StopTime.Sub(m.StartTime).Seconds(), len(m.Checksums.Bad))
		if d := m.Delta; d != nil {
			fmt.Fprintf(w, "changed since %s: %s of %s\n", d.Parent, bytesText(d.ChangedBytes), bytesText(d.DataBytes))
		}
	})
}

// onTimeline are the snapshots that a delta may be built on: those of the server's timeline, and what they are built
// on. Whether one of an earlier timeline leads to this server only `outrider run` knows.
func onTimeline(ctx context.Context, w *archive.WAL, t wal.Timeline) ([]archive.Backup, error) {
	all, err := w.Backups(ctx)
	if err != nil || !slices.ContainsFunc(all, func(b archive.Backup) bool { return b.Timeline() == t }) {
		return nil, err
	}
	inv, err := w.Inventory(ctx)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all, func(b archive.Backup) bool { return b.Timeline() > t || inv.Overtaken(b) }), nil
}

// polledDurable learns from the archive how far the `outrider run` beside us has shipped.
type polledDurable struct {
	w *archive.WAL
}

// durablePatience is how long the archive may take to get what the snapshot needs.
const durablePatience = 2 * time.Minute

// WaitDurable implements basebackup.Durable.
func (d *polledDurable) WaitDurable(ctx context.Context, p wal.Position) error {
	ctx, cancel := context.WithTimeoutCause(ctx, durablePatience, errors.New("nobody seems to ship this server's WAL: is outrider run running?"))
	defer cancel()
	for {
		inv, err := d.w.Inventory(ctx)
		if err == nil {
			// What is asked for is the end of the snapshot: the segment that holds it has to be there from its start.
			at := d.w.Size.Floor(p.LSN - 1)
			if inv.End(p.Timeline, at) >= p.LSN {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("waiting until %s is in the archive: %w", p, context.Cause(ctx)), err)
		case <-time.After(time.Second):
		}
	}
}
