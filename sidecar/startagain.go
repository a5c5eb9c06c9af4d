package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/epoch"
)

// letStart notes at the receipt of the last stop that a server may write to the same disk again. It does so before
// anything is shipped, and if its node is lost by then, that receipt must not be the last word. What it says of the stop
// itself stays true. As long as the archive cannot be asked nothing can be noted, and a server may start all the same: see
// admitted.
func (a *app) letStart(ctx context.Context, r root, dir string) error {
	was, err := lastReceipt(ctx, r.Archive)
	if err != nil || was == nil || !was.Clean || was.Running {
		return err
	}
	writer, err := a.identity(dir)
	if err != nil {
		return err
	}
	was.StartedAgain = &archive.StartedAgain{At: time.Now().UTC(), Writer: writer}
	if err := r.PutReceipt(ctx, *was); err != nil {
		return fmt.Errorf("noting at the receipt of epoch %d that its disk is started again: %w", was.Epoch, err)
	}
	a.log.Info("the last stop was clean, its disk is started again", "epoch", was.Epoch, "writer", epoch.Describe(writer))
	return nil
}

// lastReceipt is that of the last epoch that had a server; nil if it left none. A restore that was given up has neither
// receipt nor heartbeat.
func lastReceipt(ctx context.Context, arch *archive.Archive) (*archive.Receipt, error) {
	all, err := arch.Epochs(ctx)
	if err != nil {
		return nil, err
	}
	for _, e := range slices.Backward(all) {
		r, err := arch.Receipt(ctx, e.Number)
		if err == nil {
			return &r, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		if _, _, err := arch.Heartbeat(ctx, e.Number); err == nil || !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	return nil, nil
}
