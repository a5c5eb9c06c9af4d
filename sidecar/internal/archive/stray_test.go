package archive

import (
	"testing"

	"outrider.dev/sidecar/internal/wal"
)

// A writer that was lost leaves at most the one segment that it had put beside a missing one. All else behind a hole
// went up after what is missing was acknowledged.
func TestStray(t *testing.T) {
	const size = wal.SegmentSize(wal.MinSegmentSize)
	at := func(n uint64) wal.LSN { return wal.LSN(n) * wal.LSN(size) }
	sealed := func(n uint64) wal.Segment { return wal.Segment{Timeline: 1, Number: n} }
	chunk := func(n uint64, epoch uint64, from, to wal.LSN) Chunk {
		return Chunk{Segment: sealed(n), Epoch: epoch, From: from, To: to}
	}
	for name, c := range map[string]struct {
		end    wal.LSN
		sealed []uint64
		theirs []uint64 // sealed by one that was superseded
		chunks []Chunk
		want   Stray
		none   bool
	}{
		"nothing":                             {end: at(5), sealed: []uint64{4}, none: true},
		"the segment beside the missing one":  {end: at(5), sealed: []uint64{4, 6}, want: Stray{From: at(6), To: at(7), Parallel: true}},
		"one further":                         {end: at(5), sealed: []uint64{4, 7}, want: Stray{From: at(7), To: at(8)}},
		"two segments":                        {end: at(5), sealed: []uint64{4, 6, 7}, want: Stray{From: at(6), To: at(8)}},
		"behind the beginning of a segment":   {end: at(5) + 100, sealed: []uint64{4, 6}, chunks: []Chunk{chunk(5, 2, at(5), at(5)+100)}, want: Stray{From: at(6), To: at(7)}},
		"a chunk":                             {end: at(5) + 100, sealed: []uint64{4}, chunks: []Chunk{chunk(5, 2, at(5)+200, at(5)+300)}, want: Stray{From: at(5) + 200, To: at(5) + 300}},
		"a chunk of the missing segment":      {end: at(5), sealed: []uint64{4, 6}, chunks: []Chunk{chunk(5, 2, at(5)+200, at(5)+300)}, want: Stray{From: at(5) + 200, To: at(7)}},
		"a segment and a chunk":               {end: at(5), sealed: []uint64{4, 6}, chunks: []Chunk{chunk(7, 2, at(7), at(7)+300)}, want: Stray{From: at(6), To: at(7) + 300}},
		"a chunk of nobody":                   {end: at(5), sealed: []uint64{4}, chunks: []Chunk{chunk(7, 9, at(7), at(7)+300)}, none: true},
		"of one that was superseded":          {end: at(5), sealed: []uint64{4}, chunks: []Chunk{chunk(5, 1, at(5)+200, at(5)+300)}, none: true},
		"segments of one that was superseded": {end: at(4) + 10, theirs: []uint64{4, 5, 6}, none: true},
		"another timeline":                    {end: at(5), chunks: []Chunk{{Segment: wal.Segment{Timeline: 2, Number: 7}, Epoch: 2, From: at(7), To: at(8)}}, none: true},
		"a segment, and a chunk of nobody":    {end: at(5), sealed: []uint64{6}, chunks: []Chunk{chunk(7, 9, at(7), at(8))}, want: Stray{From: at(6), To: at(7), Parallel: true}},
		"a chunk that reaches over the hole":  {end: at(5) + 100, chunks: []Chunk{chunk(5, 2, at(5), at(5)+300)}, none: true},
		"the beginning belongs to nobody":     {end: at(3), chunks: []Chunk{chunk(4, 2, at(4), at(4)+300)}, want: Stray{From: at(4) + 10, To: at(4) + 300}},
		"the end belongs to the one after it": {end: at(3), chunks: []Chunk{chunk(4, 1, at(4), at(4)+300)}, want: Stray{From: at(4), To: at(4) + 10}},
	} {
		t.Run(name, func(t *testing.T) {
			inv := &Inventory{
				Size: size, Sealed: map[wal.Segment]SegmentInfo{}, Chunks: map[wal.Segment][]Chunk{},
				Claims: map[wal.Timeline]TimelineClaim{1: {Timeline: 1, Epoch: 1}},
				Epochs: []Epoch{{Number: 1, Timeline: 1}, {Number: 2, Timeline: 1, Since: at(4) + 10, Replaces: true}},
			}
			for _, n := range c.sealed {
				inv.Sealed[sealed(n)] = SegmentInfo{Segment: sealed(n), Valid: int64(size)}
			}
			for _, n := range c.theirs {
				inv.Sealed[sealed(n)] = SegmentInfo{Segment: sealed(n), Valid: int64(size), Known: true, Epoch: 1}
			}
			for _, k := range c.chunks {
				inv.Chunks[k.Segment] = append(inv.Chunks[k.Segment], k)
			}
			got, ok := inv.Stray(1, c.end)
			if ok == c.none || got != c.want {
				t.Errorf("stray is %+v, %t, want %+v, %t", got, ok, c.want, !c.none)
			}
		})
	}
}
