// Command demo shows what Outrider does, on a real PostgreSQL server and real data, in three scenes: a spot notice
// that is answered in order, a node that is lost without warning, and the way back from each. Everything it prints
// was measured in this run. Its last line is one JSON object.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"outrider.dev/e2e/stage"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	bin := flag.String("bin", "bin", "directory of the programs outrider and devcloud")
	load := flag.Duration("load", 12*time.Second, "how long each scene works before its node goes")
	keep := flag.Bool("keep", false, "leave the directory with all logs behind")
	flag.Parse()
	err := run(ctx, *bin, *load, *keep)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// result is the last line.
type result struct {
	GracefulLostRows         int     `json:"graceful_lost_rows"`
	GracefulNoticeToDurable  float64 `json:"graceful_notice_to_durable_seconds"`
	GracefulStopSeconds      float64 `json:"graceful_stop_seconds"`
	GracefulReceiptClean     bool    `json:"graceful_receipt_clean"`
	GracefulRestoreSeconds   float64 `json:"graceful_restore_seconds"`
	CrashLostRows            int     `json:"crash_lost_rows"`
	CrashLostRowsOlderRPO    int     `json:"crash_lost_rows_older_than_rpo"`
	CrashRPOSeconds          float64 `json:"crash_rpo_seconds"`
	PromisedRPOSeconds       float64 `json:"promised_rpo_seconds"`
	RestoreSeconds           float64 `json:"restore_seconds"`
	CommitsAcknowledged      int     `json:"commits_acknowledged"`
	WorstUnshippedAgeSeconds float64 `json:"worst_unshipped_age_seconds"`
	SnapshotRawBytes         int64   `json:"snapshot_raw_bytes"`
	StockLayoutOK            bool    `json:"stock_layout_ok"`
	TookSeconds              float64 `json:"took_seconds"`
}

func run(ctx context.Context, bin string, load time.Duration, keep bool) error {
	started := time.Now()
	bin, err := filepath.Abs(bin)
	if err != nil {
		return err
	}
	s, err := stage.New(bin)
	if err != nil {
		return err
	}
	d := &demo{stage: s, load: load, root: stage.Root("demo")}
	err = d.play(ctx)
	d.result.TookSeconds = round(time.Since(started).Seconds())
	switch {
	case keep || err != nil:
		say("\nThe logs of everything are in %s.", s.Dir)
		s.Stop()
	default:
		err = errors.Join(err, s.Close())
	}
	if err == nil {
		err = d.verdict()
	}
	line, jerr := json.Marshal(d.result)
	if err = errors.Join(err, jerr); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
	}
	say("%s", line)
	if err != nil {
		return errors.New("a promise was not kept, or could not be shown: see above")
	}
	return nil
}

// verdict holds the measured figures against the promises.
func (d *demo) verdict() error {
	var errs []error
	r := d.result
	if r.GracefulLostRows != 0 || !r.GracefulReceiptClean {
		errs = append(errs, fmt.Errorf("the orderly stop lost %d rows (receipt clean: %t): promised are 0 and a clean receipt", r.GracefulLostRows, r.GracefulReceiptClean))
	}
	if r.CrashLostRowsOlderRPO != 0 {
		errs = append(errs, fmt.Errorf("the crash lost %d rows that had been acknowledged for longer than the promised %s", r.CrashLostRowsOlderRPO, rpo))
	}
	if !r.StockLayoutOK {
		errs = append(errs, errors.New("the archive is not laid out as stock tools expect it"))
	}
	return errors.Join(errs...)
}

func say(format string, args ...any) { fmt.Fprintf(os.Stdout, format+"\n", args...) }

func round(x float64) float64 { return float64(int64(x*1000+0.5)) / 1000 }
