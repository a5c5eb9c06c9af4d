package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/epoch"
)

// claimEpoch takes an epoch, or goes on with its own. Without a server this is a stop, which writes a receipt at once.
func (g *guard) claimEpoch(ctx context.Context, r epoch.Request, serves bool) (e archive.Epoch, continued bool, err error) {
	e, continued, err = epoch.Claim(ctx, g.arch, r)
	if err == nil && continued && serves {
		err = g.goesOn(ctx, e)
	}
	return e, continued, err
}

// goesOn takes back what the receipt of an earlier stop says of an epoch that is continued. Until the next stop nothing
// is proven: whoever finds this writer gone must not be told that it ended clean. How far its WAL was durable then stays
// a promise.
func (g *guard) goesOn(ctx context.Context, e archive.Epoch) error {
	was, err := g.arch.Receipt(ctx, e.Number)
	if errors.Is(err, fs.ErrNotExist) || err == nil && was.Running {
		return nil
	}
	if err == nil {
		err = g.arch.PutReceipt(ctx, archive.Receipt{
			Epoch: e.Number, Running: true, Reason: "the epoch goes on: its writer has come back after a stop",
			Timeline: was.Timeline, Durable: was.Durable, FinishedAt: time.Now(), Writer: g.writer,
		})
	}
	if err != nil {
		return fmt.Errorf("taking back the receipt of epoch %d, which goes on: %w", e.Number, err)
	}
	return nil
}
