package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"outrider.dev/e2e/bench/usage"
	"outrider.dev/e2e/stage"
)

// Targets in relation to pgBackRest.
const (
	snapshotTarget = 0.7
	restoreTarget  = 0.7
)

// costs collects one kind of figure of many rounds.
type costs struct{ wall, cpu, memory []float64 }

func (c *costs) add(s spent) {
	c.wall, c.cpu, c.memory = append(c.wall, s.Wall), append(c.cpu, s.CPU), append(c.memory, mib(s.Peak))
}

// snapshots copies a database as a whole into the archive and back, both times beside pgBackRest.
func snapshots(ctx context.Context, b *bench) error {
	cloud, err := b.stage.StartCloud(ctx)
	if err != nil {
		return err
	}
	p, err := b.server(ctx, "source", b.scale, "shared_buffers = 1GB", "max_wal_size = 8GB")
	if err != nil {
		return err
	}
	if _, err := p.Pgbench(ctx, "-n", "-c", "8", "-j", "2", "-T", "20"); err != nil {
		return err
	}
	peer := b.pgbackrest()
	if peer != nil {
		if err := peer.serve(ctx, p); err != nil {
			return err
		}
	}
	var take, bring, theirTake, theirBring costs
	var raw int64
	for i := range b.rounds {
		root := stage.Root(fmt.Sprintf("source%d", i))
		s, n, err := b.takeSnapshot(ctx, cloud, root, p)
		if err != nil {
			return err
		}
		raw = n
		take.add(s)
		say("round %d: outrider copied %.0f MiB: %.2f s CPU, %.2f s wall, %.0f MiB resident", i+1, mib(raw), s.CPU, s.Wall, mib(s.Peak))
		if s, err = b.bringBack(ctx, cloud, root, fmt.Sprintf("ours%d", i)); err != nil {
			return err
		}
		bring.add(s)
		say("round %d: outrider restored it: %.2f s CPU, %.2f s wall, %.0f MiB resident", i+1, s.CPU, s.Wall, mib(s.Peak))
		if peer == nil {
			continue
		}
		if s, err = peer.backup(ctx); err != nil {
			return err
		}
		theirTake.add(s)
		say("round %d: pgbackrest copied it: %.2f s CPU, %.2f s wall", i+1, s.CPU, s.Wall)
		if s, err = peer.restore(ctx); err != nil {
			return err
		}
		theirBring.add(s)
		say("round %d: pgbackrest restored it: %.2f s CPU, %.2f s wall", i+1, s.CPU, s.Wall)
	}
	size := fmt.Sprintf(" %.1f GB", float64(raw)/1e9)
	r := b.report
	r.against("snapshot"+size+", CPU", "s", snapshotTarget, take.cpu, theirTake.cpu)
	r.against("snapshot"+size+", wall", "s", snapshotTarget, take.wall, theirTake.wall)
	r.value("memory, snapshot, peak resident", "MiB", copyingMemory, take.memory...)
	r.against("restore"+size+", CPU", "s", 0, bring.cpu, theirBring.cpu)
	r.against("restore"+size+", wall", "s", restoreTarget, bring.wall, theirBring.wall)
	r.value("memory, restore, peak resident", "MiB", copyingMemory, bring.memory...)
	return nil
}

// takeSnapshot runs outrider with an empty archive, which makes it take one at once. Its CPU is all that outrider has
// used until then, start and WAL included; the wall time is that of the snapshot.
func (b *bench) takeSnapshot(ctx context.Context, cloud *stage.Cloud, root string, p *stage.Server) (s spent, raw int64, err error) {
	o, err := b.protect(ctx, cloud, root, p)
	if err != nil {
		return s, 0, err
	}
	cpu, err := usage.CPU(o.PID())
	if err != nil {
		return s, 0, err
	}
	m, err := usage.MemoryOf(o.PID())
	if err != nil {
		return s, 0, err
	}
	var done struct {
		Seconds float64 `json:"seconds"`
		Raw     int64   `json:"raw_bytes"`
		Bad     int     `json:"bad_pages"`
	}
	if err := logged(o.Log, "snapshot taken", &done); err != nil {
		return s, 0, err
	}
	return spent{Wall: done.Seconds, CPU: cpu.Seconds(), Peak: m.Peak}, done.Raw, quit(ctx, o)
}

// bringBack restores into an empty directory, which is then removed.
func (b *bench) bringBack(ctx context.Context, cloud *stage.Cloud, root, name string) (s spent, err error) {
	p, err := b.stage.NewServer(name)
	if err != nil {
		return s, err
	}
	s, err = b.timed(ctx, b.stage.Outrider(cloud, root, "restore", "--pgdata", p.Data))
	return s, errors.Join(err, os.RemoveAll(p.Data))
}
