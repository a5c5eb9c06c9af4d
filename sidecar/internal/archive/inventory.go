package archive

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"outrider.dev/sidecar/internal/wal"
)

// Inventory is what the root holds of WAL, read in one pass. It is a value: nothing changes it afterwards.
type Inventory struct {
	Size      wal.SegmentSize
	Epochs    []Epoch
	Claims    map[wal.Timeline]TimelineClaim
	Histories map[wal.Timeline]wal.History
	// RawHistories holds the .history files as they are, to be laid down in a restore.
	RawHistories map[wal.Timeline][]byte
	// Sealed holds each segment of wal_005/. Valid is the segment size except for the padded ones that could matter:
	// each timeline's last two are asked for, those where one epoch followed another, and those that still have chunks. A
	// padded segment is the last of an epoch or has been continued, and then its chunks stay until it is replaced. The
	// writer is known of the same ones, and of those that a superseded writer has sealed after its end.
	Sealed map[wal.Segment]SegmentInfo
	// Chunks holds the chunks of each segment in order of position, then epoch.
	Chunks map[wal.Segment][]Chunk
}

// Inventory lists the WAL of the root together with the claims that say whose it is.
func (w *WAL) Inventory(ctx context.Context) (*Inventory, error) {
	inv := &Inventory{
		Size: w.Size, Claims: map[wal.Timeline]TimelineClaim{}, Histories: map[wal.Timeline]wal.History{},
		RawHistories: map[wal.Timeline][]byte{}, Sealed: map[wal.Segment]SegmentInfo{}, Chunks: map[wal.Segment][]Chunk{},
	}
	// Chunks first, segments second: a chunk that is sealed and deleted in between is then seen in one of the two.
	if err := w.listChunks(ctx, inv); err != nil {
		return nil, err
	}
	if err := w.listSegments(ctx, inv); err != nil {
		return nil, err
	}
	var err error
	if inv.Epochs, err = w.Epochs(ctx); err != nil {
		return nil, err
	}
	claims, err := w.Timelines(ctx)
	if err != nil {
		return nil, err
	}
	for _, c := range claims {
		inv.Claims[c.Timeline] = c
	}
	return inv, w.askForDetails(ctx, inv)
}

func (w *WAL) listChunks(ctx context.Context, inv *Inventory) error {
	for o, err := range w.bucket.List(ctx, tailDir, "") {
		if err != nil {
			return fmt.Errorf("listing the chunks: %w", err)
		}
		if c, ok := parseChunkKey(o.Key, w.Size); ok {
			inv.Chunks[c.Segment] = append(inv.Chunks[c.Segment], c)
		}
	}
	for _, cs := range inv.Chunks {
		slices.SortFunc(cs, compareChunks)
	}
	return nil
}

func compareChunks(x, y Chunk) int {
	switch {
	case x.From != y.From:
		return compare(x.From, y.From)
	case x.To != y.To:
		return compare(x.To, y.To)
	}
	return compare(x.Epoch, y.Epoch)
}

func compare[T ~uint64](x, y T) int {
	switch {
	case x < y:
		return -1
	case x > y:
		return 1
	}
	return 0
}

func (w *WAL) listSegments(ctx context.Context, inv *Inventory) error {
	var histories []string
	for o, err := range w.bucket.List(ctx, walDir, "") {
		if err != nil {
			return fmt.Errorf("listing the segments: %w", err)
		}
		if _, ok := splitHistoryKey(o.Key); ok {
			histories = append(histories, o.Key)
			continue
		}
		name, _, ok := splitSegmentKey(o.Key)
		if !ok {
			continue
		}
		seg, err := wal.ParseSegment(name, w.Size)
		if err != nil {
			return fmt.Errorf("reading the name of %s with segments of %d bytes: %w", o.Key, w.Size, err)
		}
		inv.Sealed[seg] = SegmentInfo{Segment: seg, Key: o.Key, Stored: o.Size, Valid: int64(w.Size)}
	}
	return w.readHistories(ctx, inv, histories)
}

func (w *WAL) readHistories(ctx context.Context, inv *Inventory, keys []string) error {
	all, err := readEach(ctx, keys, w.RawHistory)
	if err != nil {
		return err
	}
	for i, raw := range all {
		t, _ := splitHistoryKey(keys[i])
		h, err := wal.ParseHistory(t, string(raw))
		if err != nil {
			return fmt.Errorf("reading %s: %w: %w", keys[i], ErrCorrupt, err)
		}
		inv.Histories[t], inv.RawHistories[t] = h, raw
	}
	return nil
}

// askForDetails asks for what a listing does not show of sealed segments: padding, and who wrote them.
func (w *WAL) askForDetails(ctx context.Context, inv *Inventory) error {
	handOver := inv.handOvers()
	var ask []wal.Segment
	for seg := range inv.Sealed {
		_, next := inv.Sealed[seg.Next()]
		_, overNext := inv.Sealed[seg.Next().Next()]
		// A writer that continues its own epoch leaves no claim behind, only the chunks with which it went on.
		if !next || !overNext || handOver[seg] || len(inv.Chunks[seg]) > 0 {
			ask = append(ask, seg)
		}
	}
	asked := map[wal.Segment]bool{}
	for len(ask) > 0 {
		if err := w.askFor(ctx, inv, ask); err != nil {
			return err
		}
		for _, seg := range ask {
			asked[seg] = true
		}
		ask = inv.strays(ask, asked)
	}
	return nil
}

// handOvers are the segments where an epoch went on with a timeline: its predecessor may have left a padded one there.
// Segments are sealed in parallel, so it can be further from the end than the last two. A predecessor that lived on may
// have sealed them with what does not count.
func (inv *Inventory) handOvers() map[wal.Segment]bool {
	all := map[wal.Segment]bool{}
	for _, e := range inv.Epochs {
		if e.Timeline == 0 || e.Since == 0 {
			continue
		}
		seg := inv.Size.SegmentAt(e.Timeline, e.Since)
		all[seg], all[inv.Size.SegmentBefore(e.Timeline, e.Since)] = true, true
		if e.Replaces {
			all[seg.Next()], all[seg.Next().Next()] = true, true
		}
	}
	return all
}

// strays are the two segments on either side of each of seen that a superseded writer has sealed past its end. It did so
// one after the other, two at a time: where none of two is its own, none beyond them is. The owner replaces them from
// the start of its time on, so those that are left may border on the end alone.
func (inv *Inventory) strays(seen []wal.Segment, asked map[wal.Segment]bool) []wal.Segment {
	var more []wal.Segment
	for _, seg := range seen {
		info, ok := inv.Sealed[seg]
		if !ok || inv.Owners(seg.Timeline).End(info, inv.Size) == info.End(inv.Size) {
			continue
		}
		// Before segment 0 there is none: the number wraps around, to one that is not there.
		for _, number := range []uint64{seg.Number + 1, seg.Number + 2, seg.Number - 1, seg.Number - 2} {
			next := wal.Segment{Timeline: seg.Timeline, Number: number}
			if _, sealed := inv.Sealed[next]; sealed && !asked[next] && !slices.Contains(more, next) {
				more = append(more, next)
			}
		}
	}
	return more
}

func (w *WAL) askFor(ctx context.Context, inv *Inventory, ask []wal.Segment) error {
	infos, err := readEach(ctx, ask, func(ctx context.Context, seg wal.Segment) (SegmentInfo, error) {
		info, err := w.StatSegment(ctx, seg)
		if errors.Is(err, fs.ErrNotExist) {
			return SegmentInfo{}, nil // expired since it was listed
		}
		return info, err
	})
	if err != nil {
		return err
	}
	for i, seg := range ask {
		if infos[i].Key == "" {
			delete(inv.Sealed, seg)
			continue
		}
		inv.Sealed[seg] = infos[i]
	}
	return nil
}

// Timelines tells all timeline numbers that anything in the root speaks of, lowest first: numbers that a new
// branch must not take.
func (inv *Inventory) Timelines() []wal.Timeline {
	seen := map[wal.Timeline]bool{}
	for t := range inv.Claims {
		seen[t] = true
	}
	for t := range inv.Histories {
		seen[t] = true
	}
	for s := range inv.Sealed {
		seen[s.Timeline] = true
	}
	for s := range inv.Chunks {
		seen[s.Timeline] = true
	}
	for _, e := range inv.Epochs {
		if e.Timeline != 0 {
			seen[e.Timeline] = true // a server that went on and has shipped nothing yet
		}
	}
	all := make([]wal.Timeline, 0, len(seen))
	for t := range seen {
		all = append(all, t)
	}
	slices.Sort(all)
	return all
}

// Segments lists the sealed segments in order of timeline and number.
func (inv *Inventory) Segments() []wal.Segment {
	all := make([]wal.Segment, 0, len(inv.Sealed))
	for s := range inv.Sealed {
		all = append(all, s)
	}
	sortSegments(all)
	return all
}
