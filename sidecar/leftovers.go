package main

import (
	"bytes"
	"context"
	"time"

	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/wal"
)

// leftover is a complete segment of an ancestor that its writer could not seal any more: it lies in chunks, which
// stock tools do not see. To them it would be a hole in front of everything that came later.
type leftover struct {
	segment wal.Segment
	pieces  []archive.Piece
}

// maxLeftover is the largest segment that is put together in memory.
const maxLeftover = 64 << 20

// leftovers are those of the ancestry of a timeline; its own segments are sealed from their files. The one that holds a
// fork is complete in the child's copy. The ancestry is the server's own: the archive may not know a new timeline yet.
func leftovers(inv *archive.Inventory, files branch) []leftover {
	if inv.Size > maxLeftover {
		return nil
	}
	var found []leftover
	for _, leg := range files.ancestry().Legs {
		for seg := range inv.Chunks {
			if _, sealed := inv.Sealed[seg]; sealed || seg.Timeline != leg.Timeline || seg.End(inv.Size) > leg.To {
				continue
			}
			pieces := inv.Follow(seg.Timeline, seg.Start(inv.Size), seg.End(inv.Size))
			if n := len(pieces); n > 0 && pieces[n-1].To == seg.End(inv.Size) {
				found = append(found, leftover{segment: seg, pieces: pieces})
			}
		}
	}
	return found
}

// leftoverBudget bounds what a stop spends on sealing for a predecessor, after all that is the promise.
const leftoverBudget = 10 * time.Second

// sealLeftovers seals them, one caller at a time. Outrider's own restore does not need it, so a failure is only said.
func (v *voyage) sealLeftovers(ctx context.Context) {
	store := v.arch.WAL(v.server.SegmentSize)
	var failed []leftover
	for len(v.leftovers) > 0 && ctx.Err() == nil {
		l := v.leftovers[0]
		err := sealFromChunks(ctx, store, l, v.epoch.Number)
		name := l.segment.Name(store.Size)
		switch {
		case err == nil:
			v.note("sealed_for_predecessor", "segment", name)
		case ctx.Err() != nil:
			continue // it is for the stop to seal
		default:
			failed = append(failed, l)
			v.log.Warn("a segment that a predecessor left in chunks was not sealed: stock tools do not see it", "segment", name, "error", err)
		}
		v.leftovers = v.leftovers[1:]
	}
	v.leftovers = append(v.leftovers, failed...)
}

func sealFromChunks(ctx context.Context, store *archive.WAL, l leftover, epoch uint64) error {
	raw := make([]byte, 0, store.Size)
	for _, p := range l.pieces {
		b, err := store.ReadChunk(ctx, *p.Chunk)
		if err != nil {
			return err
		}
		raw = append(raw, b[p.From-p.Chunk.From:p.To-p.Chunk.From]...)
	}
	_, err := store.Seal(ctx, archive.SealRequest{Segment: l.segment, Epoch: epoch, Raw: bytes.NewReader(raw), Valid: int64(len(raw))})
	return err
}
