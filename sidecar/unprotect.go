package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/spf13/cobra"

	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/postgres"
)

func newUnprotectCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "unprotect",
		Short: "Drop the replication slot and end the epoch: the server is on its own again",
		Long: "Drops the replication slot with which Outrider keeps WAL on the server, and says so in the archive, which stays as\n" +
			"it is. Stop `outrider run` first, or it makes the slot anew. Without this a server that nobody ships any more keeps\n" +
			"its WAL until the disk is full.",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.unprotect(cmd.Context()) },
	}
	a.envFlag(cmd.Flags(), "listen", envListen, ":9850", "address on which `outrider run` would answer")
	a.passwordFlag(cmd.Flags())
	return cmd
}

func (a *app) unprotect(ctx context.Context) error {
	if r, err := askStatus(ctx, a.setting(envListen)); err == nil && r.State != stateSuperseded {
		return fmt.Errorf("%w: outrider run is running (%s): stop it first, or it makes the slot anew", archive.ErrConflict, r.State)
	}
	conn, err := postgres.Connect(ctx, postgres.Config{AppName: "outrider unprotect", PasswordFile: a.setting(envPasswordFile)})
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.DropSlot(ctx, slotName); err != nil {
		return err
	}
	server, err := conn.Server(ctx)
	if err != nil {
		return err
	}
	arch, err := a.openArchive(ctx)
	if err != nil {
		return fmt.Errorf("the slot is dropped, the archive does not know it: %w", err)
	}
	if err := endEpoch(ctx, arch, server); err != nil {
		return fmt.Errorf("the slot is dropped, the archive does not know it: %w", err)
	}
	fmt.Fprintln(a.stdout, "The replication slot is dropped. The server is on its own; its archive stays as it is.")
	return nil
}

// endEpoch says in the archive that the last epoch ended by request, if it was this server's.
func endEpoch(ctx context.Context, arch *archive.Archive, server postgres.Server) error {
	c, err := arch.Cluster(ctx)
	if errors.Is(err, fs.ErrNotExist) || err == nil && c.SystemIdentifier != server.SystemIdentifier {
		return nil
	}
	if err != nil {
		return err
	}
	all, err := arch.Epochs(ctx)
	if err != nil || len(all) == 0 {
		return err
	}
	last := all[len(all)-1]
	r, err := arch.Receipt(ctx, last.Number)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	r.Epoch, r.Writer, r.FinishedAt = last.Number, last.Writer, time.Now()
	r.Clean, r.Running, r.Reason = false, false, "unprotected by request: what was written since then is not in the archive"
	return arch.PutReceipt(ctx, r)
}
