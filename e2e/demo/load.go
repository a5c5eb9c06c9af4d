package main

import (
	"context"
	"fmt"
	"time"

	"outrider.dev/e2e/ledger"
	"outrider.dev/e2e/stage"
)

// load is the ledger and pgbench at work against one server.
type load struct {
	cancel context.CancelFunc
	done   chan struct{}
	ledger *ledger.Ledger
}

func (d *demo) startLoad(ctx context.Context, p *stage.Server) *load {
	ctx, cancel := context.WithCancel(ctx)
	l := &load{cancel: cancel, done: make(chan struct{}), ledger: d.ledger}
	bench := make(chan struct{})
	go func() {
		defer close(bench)
		// It ends when its server does; what counts is what the ledger says.
		_, _ = p.Pgbench(ctx, "-n", "-c", "2", "-T", "600", "-R", "300", "-b", "tpcb-like")
	}()
	go func() {
		defer close(l.done)
		err := d.ledger.Run(ctx, ledger.Config{ConnString: p.ConnString(), Connections: 4, Rate: 200, PayloadBytes: 200, PreparedEvery: 20})
		if err != nil && ctx.Err() == nil {
			say("  the ledger ended: %v", err)
		}
		<-bench
	}()
	say("The ledger commits numbered rows and writes down each acknowledgement outside the database; pgbench adds its own load.")
	return l
}

// stop ends the load and returns how many commits were acknowledged so far.
func (l *load) stop() int64 {
	l.cancel()
	<-l.done
	return l.ledger.Stats().Acknowledged
}

// watch shows live what is unshipped.
func (d *demo) watch(ctx context.Context, o *stage.Outrider, long time.Duration) error {
	say("   time  committed   flushed to   durable to   unshipped   age of the oldest unshipped commit")
	started := time.Now()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for time.Since(started) < long {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
		st, err := o.Status(ctx)
		if err != nil {
			return fmt.Errorf("asking outrider: %w: %s", err, o.Tail(5))
		}
		age, bytes := "-", "-"
		if st.AgeSeconds != nil {
			age = fmt.Sprintf("%.3f s", *st.AgeSeconds)
			d.result.WorstUnshippedAgeSeconds = max(d.result.WorstUnshippedAgeSeconds, round(*st.AgeSeconds))
		}
		if st.UnshippedBytes != nil {
			bytes = fmt.Sprintf("%.1f kB", float64(*st.UnshippedBytes)/1e3)
		}
		say("  %4.0f s  %9d   %10s   %10s   %9s   %s", time.Since(started).Seconds(), d.ledger.Stats().Acknowledged, st.Flushed, st.Durable, bytes, age)
	}
	return nil
}
