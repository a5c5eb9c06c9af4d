package main

import (
	"context"
	"fmt"
	"time"

	"outrider.dev/e2e/bench/usage"
	"outrider.dev/e2e/stage"
)

// Targets of memory, in MiB, and of the age of commits, in seconds.
const (
	shippingMemory = 64
	copyingMemory  = 256
	ageTarget      = 1
)

// shipping watches memory and the age of what is unshipped under different loads: transactions, whose WAL goes up in
// chunks and is sealed later, and bulk loads, which write segments faster than chunks are made, so that they go up
// whole: one that compresses as a table does, and one that does not compress at all, which is the worst case for memory.
func shipping(ctx context.Context, b *bench) error {
	cloud, err := b.stage.StartCloud(ctx)
	if err != nil {
		return err
	}
	p, err := b.server(ctx, "load", 30, "shared_buffers = 512MB", "max_wal_size = 4GB")
	if err != nil {
		return err
	}
	o, err := b.protect(ctx, cloud, stage.Root("load"), p)
	if err != nil {
		return err
	}
	// What the first snapshot needed is given back just after it, and is not what is asked for.
	if err := rest(ctx, time.Second); err != nil {
		return err
	}
	err = b.underLoad(ctx, o, p, "pgbench -c 8", func(ctx context.Context) error {
		_, err := p.Pgbench(ctx, "-n", "-c", "8", "-j", "2", "-T", fmt.Sprint(int(b.load.Seconds())))
		return err
	})
	if err != nil {
		return err
	}
	for _, l := range []struct{ name, content string }{
		{"bulk load", "i, i % 100 as branch, 0 as balance, repeat(' ', 84) as filler"},
		{"bulk load of noise", "i, sha512(i::text::bytea) || sha512((-i)::text::bytea) as noise"},
	} {
		if err := b.bulk(ctx, o, p, l.name, l.content); err != nil {
			return err
		}
	}
	return quit(ctx, o)
}

func rest(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}

// bulk writes a table over and over. Its rows are made before, which takes longer than writing them.
func (b *bench) bulk(ctx context.Context, o *stage.Outrider, p *stage.Server, name, content string) error {
	if err := p.Exec(ctx, "create unlogged table source as select "+content+" from generate_series(1, 400000) i"); err != nil {
		return err
	}
	err := b.underLoad(ctx, o, p, name, func(ctx context.Context) error {
		for end := time.Now().Add(b.load / 3); time.Now().Before(end); {
			if err := p.Exec(ctx, "create table bulk as select * from source; drop table bulk"); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return p.Exec(ctx, "drop table source")
}

func (b *bench) underLoad(ctx context.Context, o *stage.Outrider, p *stage.Server, name string, load func(context.Context) error) error {
	from, err := flushed(ctx, p)
	if err != nil {
		return err
	}
	cpu, err := usage.CPU(o.PID())
	if err != nil {
		return err
	}
	w, err := watch(ctx, o, true)
	if err != nil {
		return err
	}
	began := time.Now()
	if err := load(ctx); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	took := time.Since(began)
	to, err := flushed(ctx, p)
	if err != nil {
		return err
	}
	if err := durable(ctx, o, to); err != nil {
		return err
	}
	peak, err := w.stop(o)
	if err != nil {
		return err
	}
	used, err := usage.CPU(o.PID())
	if err != nil {
		return err
	}
	say("%s: %.0f MiB of WAL in %.0f s; outrider used %.2f s of CPU, being asked for its state %d times included", name,
		mib(int64(to-from)), took.Seconds(), (used - cpu).Seconds(), len(w.ages))
	r := b.report
	r.value("memory, "+name+", peak resident", "MiB", shippingMemory, mib(peak))
	r.value("memory, "+name+", peak anonymous", "MiB", 0, mib(w.anonymous))
	r.value("memory, "+name+", Go heap", "MiB", 0, mib(w.heap))
	r.value("age of unshipped commits, "+name+", p50", "s", 0, percentile(w.ages, 50))
	r.value("age of unshipped commits, "+name+", p99", "s", ageTarget, percentile(w.ages, 99))
	r.value("age of unshipped commits, "+name+", worst", "s", 0, percentile(w.ages, 100))
	return nil
}
