package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"outrider.dev/e2e/bench/usage"
	"outrider.dev/e2e/stage"
)

const (
	segmentSize = 16 << 20
	// Target of the CPU time per GiB of WAL, to pgBackRest's.
	walCPUTarget = 0.7
)

// backlog has WAL pile up while nobody ships it, and then shipped as fast as it goes, by Outrider and by pgBackRest.
func backlog(ctx context.Context, b *bench) error {
	k, err := b.pileUp(ctx)
	if err != nil {
		return err
	}
	peer := b.pgbackrest()
	if peer != nil {
		if err := peer.copySegments(ctx, k.server.Data, k.names); err != nil {
			return err
		}
	}
	var ours, theirs, ourWall, theirWall, memory []float64
	gib := float64(len(k.names)) * segmentSize / (1 << 30)
	for i := range b.rounds {
		s, raw, err := k.ship(ctx)
		if err != nil {
			return err
		}
		say("round %d: outrider shipped %.0f MiB: %.2f s CPU, %.2f s wall, %.0f MiB resident", i+1, raw*1024, s.CPU, s.Wall, mib(s.Peak))
		ours, ourWall, memory = append(ours, s.CPU/raw), append(ourWall, s.Wall/raw), append(memory, mib(s.Peak))
		if peer == nil {
			continue
		}
		if s, err = peer.push(ctx, k.names); err != nil {
			return err
		}
		say("round %d: pgbackrest shipped %.0f MiB: %.2f s CPU, %.2f s wall", i+1, gib*1024, s.CPU, s.Wall)
		theirs, theirWall = append(theirs, s.CPU/gib), append(theirWall, s.Wall/gib)
	}
	b.report.against("CPU of shipping WAL, backlog", "s/GiB", walCPUTarget, ours, theirs)
	b.report.against("wall time of shipping WAL, backlog", "s/GiB", 0, ourWall, theirWall)
	b.report.value("memory, backlog, peak resident", "MiB", shippingMemory, memory...)
	return nil
}

// pile is WAL that was never shipped.
type pile struct {
	b      *bench
	server *stage.Server
	root   string
	saved  string   // the cloud's data from before the pile
	names  []string // of the segments
	from   uint64   // where it begins
}

func (b *bench) pileUp(ctx context.Context) (*pile, error) {
	cloud, err := b.stage.StartCloud(ctx)
	if err != nil {
		return nil, err
	}
	keep := fmt.Sprintf("wal_keep_size = %dMB", 32*b.segments)
	p, err := b.server(ctx, "pile", 100, "shared_buffers = 1GB", "max_wal_size = 16GB", keep)
	if err != nil {
		return nil, err
	}
	k := &pile{b: b, server: p, root: stage.Root("pile"), saved: filepath.Join(b.stage.Dir, "saved")}
	o, err := b.protect(ctx, cloud, k.root, p)
	if err != nil {
		return nil, err
	}
	// Everything before the pile is whole segments, so that the pile is too.
	if err := p.Exec(ctx, "checkpoint; select pg_switch_wal()"); err != nil {
		return nil, err
	}
	from, err := flushed(ctx, p)
	if err != nil {
		return nil, err
	}
	if err := durable(ctx, o, from); err != nil {
		return nil, err
	}
	if err := errors.Join(quit(ctx, o), stopCloud(ctx, cloud)); err != nil {
		return nil, err
	}
	if err := b.copyTree(ctx, filepath.Join(b.stage.Dir, "cloud"), k.saved); err != nil {
		return nil, err
	}
	k.from = from
	first := (from + segmentSize - 1) / segmentSize
	last := first + uint64(b.segments)
	for at := from; at < last*segmentSize; {
		if _, err := p.Pgbench(ctx, "-n", "-c", "8", "-j", "2", "-T", "10"); err != nil {
			return nil, err
		}
		if at, err = flushed(ctx, p); err != nil {
			return nil, err
		}
	}
	for n := first; n < last; n++ {
		k.names = append(k.names, fmt.Sprintf("%08X%08X%08X", 1, n>>8, n&0xff))
	}
	say("%d segments have piled up", len(k.names))
	return k, nil
}

// ship has outrider ship the pile, and what follows it, into the archive as it was before, and returns how many GiB that
// were.
func (k *pile) ship(ctx context.Context) (s spent, gib float64, err error) {
	b := k.b
	data := filepath.Join(b.stage.Dir, "cloud")
	if err := os.RemoveAll(data); err != nil {
		return s, 0, err
	}
	if err := b.copyTree(ctx, k.saved, data); err != nil {
		return s, 0, err
	}
	cloud, err := b.stage.StartCloud(ctx)
	if err != nil {
		return s, 0, err
	}
	end, err := flushed(ctx, k.server)
	if err != nil {
		return s, 0, err
	}
	began := time.Now()
	o, err := b.stage.Run(cloud, k.root, k.server)
	if err != nil {
		return s, 0, err
	}
	if err := durable(ctx, o, end); err != nil {
		return s, 0, err
	}
	s.Wall = time.Since(began).Seconds()
	used, err := usage.CPU(o.PID())
	if err != nil {
		return s, 0, err
	}
	m, err := usage.MemoryOf(o.PID())
	if err != nil {
		return s, 0, err
	}
	s.CPU, s.Peak = used.Seconds(), m.Peak
	return s, float64(end-k.from) / (1 << 30), errors.Join(quit(ctx, o), stopCloud(ctx, cloud))
}

// stopCloud ends devcloud so that all it acknowledged is on disk.
func stopCloud(ctx context.Context, c *stage.Cloud) error {
	if err := c.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	return c.Wait(ctx)
}

// copyTree copies a directory with its owners.
func (b *bench) copyTree(ctx context.Context, from, to string) error {
	_, err := b.timed(ctx, b.stage.Command("/bin/cp", "-a", "--", from, to))
	return err
}
