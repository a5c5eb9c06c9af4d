package main

import (
	"context"
	"fmt"
	"time"

	"outrider.dev/e2e/bench/usage"
	"outrider.dev/e2e/stage"
)

// serverTarget is how much CPU Outrider may use in relation to its server under load, in percent.
const serverTarget = 3

// serverCost gives a server a fixed number of transactions, with Outrider beside it and without, and compares the CPU
// time of everything that belongs to it.
func serverCost(ctx context.Context, b *bench) error {
	cloud, err := b.stage.StartCloud(ctx)
	if err != nil {
		return err
	}
	p, err := b.server(ctx, "busy", 20, "shared_buffers = 1GB", "max_wal_size = 8GB")
	if err != nil {
		return err
	}
	var without, with, own, share, rate []float64
	for i := range b.rounds {
		alone, err := b.work(ctx, p, nil)
		if err != nil {
			return err
		}
		o, err := b.protect(ctx, cloud, stage.Root("busy"), p)
		if err != nil {
			return err
		}
		together, err := b.work(ctx, p, o)
		if err != nil {
			return err
		}
		if err := quit(ctx, o); err != nil {
			return err
		}
		say("round %d: %d transactions: server alone %.2f s CPU, %.0f/s; with outrider %.2f s + %.2f s, %.0f/s", i+1, b.transactions,
			alone.server, alone.rate, together.server, together.outrider, together.rate)
		say("round %d: %.0f MiB of WAL", i+1, together.gib*1024)
		without, with = append(without, alone.server), append(with, together.server+together.outrider)
		own, share = append(own, together.outrider), append(share, 100*together.outrider/together.server)
		rate = append(rate, together.outrider/together.gib)
	}
	r := b.report
	title := fmt.Sprintf(", %d transactions", b.transactions)
	r.value("CPU of the server alone"+title, "s", 0, without...)
	r.value("CPU of server and outrider"+title, "s", 0, with...)
	r.value("CPU of outrider alone"+title, "s", 0, own...)
	r.value("CPU of shipping WAL, under load", "s/GiB", 0, rate...)
	r.value("CPU of outrider in relation to the server's", "%", serverTarget, share...)
	r.value("difference of the medians with and without", "%", 0, 100*(spreadOf(with).Median/spreadOf(without).Median-1))
	return nil
}

// worked is what a number of transactions has cost.
type worked struct {
	server, outrider float64 // seconds
	rate             float64 // transactions per second
	gib              float64 // of WAL
}

func (b *bench) work(ctx context.Context, p *stage.Server, o *stage.Outrider) (w worked, err error) {
	if err := p.Exec(ctx, "truncate pgbench_history"); err != nil {
		return w, err
	}
	for _, table := range []string{"pgbench_branches", "pgbench_tellers", "pgbench_accounts"} {
		if err := p.Exec(ctx, "vacuum "+table); err != nil {
			return w, err
		}
	}
	if err := p.Exec(ctx, "checkpoint"); err != nil {
		return w, err
	}
	postmaster, err := usage.Postmaster(p.Data)
	if err != nil {
		return w, err
	}
	used := func() (server, outrider time.Duration, err error) {
		if o != nil {
			if outrider, err = usage.CPU(o.PID()); err != nil {
				return 0, 0, err
			}
		}
		server, err = usage.TreeCPU(postmaster)
		return server, outrider, err
	}
	from, err := flushed(ctx, p)
	if err != nil {
		return w, err
	}
	server, outrider, err := used()
	if err != nil {
		return w, err
	}
	const clients = 8
	began := time.Now()
	if _, err := p.Pgbench(ctx, "-n", "-c", fmt.Sprint(clients), "-j", "2", "-t", fmt.Sprint(max(1, b.transactions/clients))); err != nil {
		return w, err
	}
	took := time.Since(began)
	to, err := flushed(ctx, p)
	if err != nil {
		return w, err
	}
	if o != nil {
		if err := durable(ctx, o, to); err != nil {
			return w, err
		}
	}
	s, u, err := used()
	return worked{
		server: (s - server).Seconds(), outrider: (u - outrider).Seconds(), rate: float64(b.transactions) / took.Seconds(),
		gib: float64(to-from) / (1 << 30),
	}, err
}
