package main

import (
	"context"

	"outrider.dev/e2e/stage"
	"outrider.dev/e2e/stock"
)

// stock reads the archive as tools that know nothing of Outrider do.
func (d *demo) stock(ctx context.Context) error {
	say("\n== Scene 3: the archive is not a prison ==")
	keys := d.cloud.Keys()
	a, err := stock.Open(stock.Config{Prefix: d.root, Endpoint: d.cloud.OSS, Region: stage.Region, KeyID: keys.ID, Secret: keys.Secret})
	if err != nil {
		return err
	}
	names, err := a.Backups(ctx)
	if err != nil {
		return err
	}
	if err := a.Check(ctx); err != nil {
		say("  a reader of the WAL-G layout stumbles: %v", err)
		return nil
	}
	d.result.StockLayoutOK = true
	say("  a reader of the WAL-G layout, with another SDK and other code, found %d snapshots and read every part and every WAL segment without a hole.", len(names))
	return nil
}
