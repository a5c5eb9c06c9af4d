package archive_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/wal"
)

// pieces writes what Follow gives as text: "e2" is a chunk of epoch 2, "S" a sealed object.
func pieces(all []archive.Piece) string {
	var out []string
	for _, p := range all {
		who := "S"
		if p.Chunk != nil {
			who = fmt.Sprintf("e%d", p.Chunk.Epoch)
		}
		out = append(out, fmt.Sprintf("%s %s-%s", who, p.From, p.To))
	}
	return strings.Join(out, ", ")
}

func TestFollow(t *testing.T) {
	first := fork(1, 0, at(1, 0), 1)
	for _, c := range []struct {
		name        string
		world       world
		from, limit wal.LSN
		want        string
	}{
		{"sealed", world{sealed: map[wal.Timeline][]uint64{1: {1, 2}}}, at(1, 0), archive.MaxLSN, "S 0/100000-0/200000, S 0/200000-0/300000"},
		{"from the middle to a limit", world{sealed: map[wal.Timeline][]uint64{1: {1, 2}}}, at(1, 50), at(2, 7), "S 0/100032-0/200000, S 0/200000-0/200007"},
		{"a hole", world{sealed: map[wal.Timeline][]uint64{1: {1, 3}}}, at(1, 0), archive.MaxLSN, "S 0/100000-0/200000"},
		{"nothing", world{}, at(1, 0), archive.MaxLSN, ""},
		{"past the end", world{sealed: map[wal.Timeline][]uint64{1: {1}}}, at(2, 0), archive.MaxLSN, ""},
		{"nobody owns the timeline", world{chunks: []archive.Chunk{piece(1, 1, at(1, 0), at(1, 9))}}, at(1, 0), archive.MaxLSN, ""},
		{"chunks", world{
			claims: []archive.TimelineClaim{first}, chunks: []archive.Chunk{piece(1, 1, at(1, 0), at(1, 9)), piece(1, 1, at(1, 9), at(2, 0)), piece(1, 1, at(2, 0), at(2, 5))},
		}, at(1, 0), archive.MaxLSN, "e1 0/100000-0/100009, e1 0/100009-0/200000, e1 0/200000-0/200005"},
		{"overlapping chunks: the longest", world{
			claims: []archive.TimelineClaim{first},
			chunks: []archive.Chunk{piece(1, 1, at(1, 0), at(1, 9)), piece(1, 1, at(1, 0), at(1, 0x50)), piece(1, 1, at(1, 5), at(1, 0x40)), piece(1, 1, at(1, 0x30), at(1, 0x60))},
		}, at(1, 2), archive.MaxLSN, "e1 0/100002-0/100050, e1 0/100050-0/100060"},
		{"a hole between chunks", world{
			claims: []archive.TimelineClaim{first}, chunks: []archive.Chunk{piece(1, 1, at(1, 0), at(1, 9)), piece(1, 1, at(1, 10), at(1, 20))},
		}, at(1, 0), archive.MaxLSN, "e1 0/100000-0/100009"},
		{"sealed beats chunks", world{
			claims: []archive.TimelineClaim{first}, sealed: map[wal.Timeline][]uint64{1: {1}},
			chunks: []archive.Chunk{piece(1, 1, at(1, 0), at(1, 9)), piece(1, 1, at(2, 0), at(2, 9))},
		}, at(1, 0), archive.MaxLSN, "S 0/100000-0/200000, e1 0/200000-0/200009"},
		{"a padded segment goes on in the chunks of the next epoch", world{
			claims: []archive.TimelineClaim{first}, epochs: []archive.Epoch{owner(1, 1, at(1, 0)), owner(2, 1, at(1, 100))},
			padded: map[wal.Segment]int64{{Timeline: 1, Number: 1}: 100},
			chunks: []archive.Chunk{piece(1, 1, at(1, 0), at(1, 100)), piece(1, 2, at(1, 100), at(1, 200))},
		}, at(1, 0), archive.MaxLSN, "S 0/100000-0/100064, e2 0/100064-0/1000C8"},
		{"a superseded writer's bytes past its successor's start belong to nobody", world{
			claims: []archive.TimelineClaim{first}, epochs: []archive.Epoch{owner(1, 1, at(1, 0)), owner(2, 1, at(1, 100))},
			chunks: []archive.Chunk{piece(1, 1, at(1, 0), at(1, 300)), piece(1, 1, at(1, 300), at(1, 900))},
		}, at(1, 0), archive.MaxLSN, "e1 0/100000-0/100064"},
		{"and the successor's count from there", world{
			claims: []archive.TimelineClaim{first}, epochs: []archive.Epoch{owner(1, 1, at(1, 0)), owner(2, 1, at(1, 100))},
			chunks: []archive.Chunk{piece(1, 1, at(1, 0), at(1, 900)), piece(1, 2, at(1, 50), at(1, 120)), piece(1, 2, at(1, 120), at(1, 130))},
		}, at(1, 0), archive.MaxLSN, "e1 0/100000-0/100064, e2 0/100064-0/100078, e2 0/100078-0/100082"},
		{"three epochs, the middle one wrote nothing", world{
			claims: []archive.TimelineClaim{first}, epochs: []archive.Epoch{owner(1, 1, at(1, 0)), owner(2, 1, at(1, 100)), owner(3, 1, at(1, 100))},
			chunks: []archive.Chunk{piece(1, 1, at(1, 0), at(1, 900)), piece(1, 2, at(1, 100), at(1, 800)), piece(1, 3, at(1, 100), at(1, 200))},
		}, at(1, 0), archive.MaxLSN, "e1 0/100000-0/100064, e3 0/100064-0/1000C8"},
		{"a start that goes back cuts all before it", world{
			claims: []archive.TimelineClaim{first}, epochs: []archive.Epoch{owner(1, 1, at(1, 0)), owner(2, 1, at(1, 200)), owner(3, 1, at(1, 100))},
			chunks: []archive.Chunk{piece(1, 1, at(1, 0), at(1, 900)), piece(1, 3, at(1, 100), at(1, 150))},
		}, at(1, 0), archive.MaxLSN, "e1 0/100000-0/100064, e3 0/100064-0/100096"},
		{"an epoch below the one that claimed the timeline owns nothing of it", world{
			claims: []archive.TimelineClaim{fork(2, 1, at(1, 50), 5)}, epochs: []archive.Epoch{owner(4, 2, at(1, 0))},
			chunks: []archive.Chunk{piece(2, 4, at(1, 0), at(1, 900)), piece(2, 5, at(1, 0), at(1, 60))},
		}, at(1, 0), archive.MaxLSN, "e5 0/100000-0/10003C"},
		{"the loser of two racing restores", world{
			claims: []archive.TimelineClaim{fork(2, 1, at(1, 50), 5)}, epochs: []archive.Epoch{owner(5, 0, 0), owner(6, 0, 0)},
			chunks: []archive.Chunk{piece(2, 5, at(1, 0), at(1, 60)), piece(2, 6, at(1, 0), at(1, 900)), piece(2, 6, at(1, 60), at(1, 950))},
		}, at(1, 0), archive.MaxLSN, "e5 0/100000-0/10003C"},
		{"what a superseded writer sealed past its successor's start belongs to nobody", world{
			claims: []archive.TimelineClaim{first}, epochs: []archive.Epoch{owner(1, 1, at(1, 0)), replacing(2, 1, at(1, 100))},
			sealedBy: map[wal.Segment]uint64{segmentOf(1, 1): 1, segmentOf(1, 2): 1},
		}, at(1, 0), archive.MaxLSN, "S 0/100000-0/100064"},
		{"and the successor's chunks count from there", world{
			claims: []archive.TimelineClaim{first}, epochs: []archive.Epoch{owner(1, 1, at(1, 0)), replacing(2, 1, at(1, 100))},
			sealedBy: map[wal.Segment]uint64{segmentOf(1, 1): 1, segmentOf(1, 2): 2},
			chunks:   []archive.Chunk{piece(1, 1, at(1, 0), at(1, 300)), piece(1, 2, at(1, 100), at(2, 0))},
		}, at(1, 0), archive.MaxLSN, "S 0/100000-0/100064, e2 0/100064-0/200000, S 0/200000-0/300000"},
		{"padding that a superseded writer left past its successor's start", world{
			claims: []archive.TimelineClaim{first}, epochs: []archive.Epoch{owner(1, 1, at(1, 0)), replacing(2, 1, at(1, 100))},
			padded: map[wal.Segment]int64{segmentOf(1, 1): 300}, sealedBy: map[wal.Segment]uint64{segmentOf(1, 1): 1},
			chunks: []archive.Chunk{piece(1, 2, at(1, 100), at(1, 200))},
		}, at(1, 0), archive.MaxLSN, "S 0/100000-0/100064, e2 0/100064-0/1000C8"},
		{"a successor of old took over what was equal", world{
			claims: []archive.TimelineClaim{first}, epochs: []archive.Epoch{owner(1, 1, at(1, 0)), owner(2, 1, at(1, 0))},
			sealedBy: map[wal.Segment]uint64{segmentOf(1, 1): 2, segmentOf(1, 2): 1, segmentOf(1, 3): 2},
		}, at(1, 0), archive.MaxLSN, "S 0/100000-0/200000, S 0/200000-0/300000, S 0/300000-0/400000"},
		{"what a later epoch sealed for the one that owned it counts", world{
			claims: []archive.TimelineClaim{first}, epochs: []archive.Epoch{owner(1, 1, at(1, 0)), replacing(2, 1, at(1, 100))},
			sealedBy: map[wal.Segment]uint64{segmentOf(1, 1): 7},
		}, at(1, 0), archive.MaxLSN, "S 0/100000-0/200000"},
		{"another timeline's chunks", world{
			claims: []archive.TimelineClaim{first}, chunks: []archive.Chunk{piece(2, 1, at(1, 0), at(1, 60))},
		}, at(1, 0), archive.MaxLSN, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			inv := c.world.inventory()
			of := wal.Timeline(1)
			if len(c.world.claims) > 0 {
				of = c.world.claims[0].Timeline
			}
			got := inv.Follow(of, c.from, c.limit)
			if pieces(got) != c.want {
				t.Errorf("%s\nwant %s", pieces(got), c.want)
			}
			end := c.from
			if len(got) > 0 {
				end = got[len(got)-1].To
			}
			if c.limit == archive.MaxLSN && inv.End(of, c.from) != end {
				t.Errorf("the end is %s, want %s", inv.End(of, c.from), end)
			}
		})
	}
}

// TestFollowNeverUsesWhatNobodyOwns compares with a byte-wise model over random worlds.
func TestFollowNeverUsesWhatNobodyOwns(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 2))
	const limit = 60
	for range 3000 {
		w := world{claims: []archive.TimelineClaim{fork(1, 0, at(1, 0), 1)}}
		var since wal.LSN
		starts := map[uint64]wal.LSN{1: 0}
		for n := uint64(2); n < 2+r.Uint64N(3); n++ {
			since += wal.LSN(r.IntN(limit / 3))
			starts[n] = at(1, 0) + since
			w.epochs = append(w.epochs, owner(n, 1, starts[n]))
		}
		for range r.IntN(12) {
			from := at(1, r.IntN(limit))
			w.chunks = append(w.chunks, piece(1, 1+r.Uint64N(4), from, from+1+wal.LSN(r.IntN(20))))
		}
		want := at(1, 0)
		for ; ; want++ {
			if !written(w.chunks, starts, want) {
				break
			}
		}
		inv := w.inventory()
		if got := inv.End(1, at(1, 0)); got != want {
			t.Fatalf("ends at %s, want %s: epochs %v, chunks %+v", got, want, starts, w.chunks)
		}
		next := at(1, 0)
		for _, p := range inv.Follow(1, next, archive.MaxLSN) {
			if p.From != next || p.To <= p.From || p.Chunk.From > p.From || p.Chunk.To < p.To {
				t.Fatalf("piece %s-%s after %s from chunk %+v", p.From, p.To, next, p.Chunk)
			}
			next = p.To
		}
	}
}

// written tells whether the epoch that owns the byte at l has stored it.
func written(chunks []archive.Chunk, starts map[uint64]wal.LSN, l wal.LSN) bool {
	var owner uint64
	for n, from := range starts {
		if from <= l && n > owner {
			owner = n
		}
	}
	for _, c := range chunks {
		if c.Epoch == owner && c.From <= l && l < c.To {
			return true
		}
	}
	return false
}

func TestReach(t *testing.T) {
	two := []archive.TimelineClaim{fork(1, 0, 0, 1), fork(2, 1, at(5, 80), 2)}
	for _, c := range []struct {
		name  string
		world world
		of    wal.Timeline
		from  wal.LSN
		want  wal.Position
		whole bool
	}{
		{"one timeline", world{sealed: map[wal.Timeline][]uint64{1: span(1, 4)}}, 1, at(2, 5), wal.Position{Timeline: 1, LSN: at(5, 0)}, true},
		{"nothing there", world{}, 1, at(2, 5), wal.Position{Timeline: 1, LSN: at(2, 5)}, true},
		{"through a fork", world{sealed: map[wal.Timeline][]uint64{1: span(1, 9), 2: span(5, 7)}, claims: two}, 2, at(2, 5), wal.Position{Timeline: 2, LSN: at(8, 0)}, true},
		{"never into the parent's future", world{sealed: map[wal.Timeline][]uint64{1: span(1, 9), 2: {5}}, claims: two}, 2, at(2, 5), wal.Position{Timeline: 2, LSN: at(6, 0)}, true},
		{"the parent ends before the fork", world{sealed: map[wal.Timeline][]uint64{1: span(1, 4), 2: span(5, 7)}, claims: two}, 2, at(2, 5), wal.Position{Timeline: 1, LSN: at(5, 0)}, false},
		{"a hole in the parent", world{sealed: map[wal.Timeline][]uint64{1: {1, 2, 4, 5}, 2: span(5, 7)}, claims: two}, 2, at(2, 5), wal.Position{Timeline: 1, LSN: at(3, 0)}, false},
		{"a snapshot of the child needs no parent", world{sealed: map[wal.Timeline][]uint64{2: span(5, 7)}, claims: two}, 2, at(6, 5), wal.Position{Timeline: 2, LSN: at(8, 0)}, true},
		{"the parent alone", world{sealed: map[wal.Timeline][]uint64{1: span(1, 9), 2: span(5, 7)}, claims: two}, 1, at(2, 5), wal.Position{Timeline: 1, LSN: at(10, 0)}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			inv := c.world.inventory()
			b, err := inv.Branch(c.of)
			if err != nil {
				t.Fatal(err)
			}
			got, whole := inv.Reach(b, c.from)
			if got != c.want || whole != c.whole {
				t.Errorf("%s, whole %v; want %s, %v", got, whole, c.want, c.whole)
			}
		})
	}
}

// TestReachAfterARestoreThatDied: the branch ends where it was left, and what its timeline wrote later is not undone
// restores' to replay.
func TestReachAfterARestoreThatDied(t *testing.T) {
	inv := world{
		sealed: map[wal.Timeline][]uint64{1: span(1, 9)}, claims: []archive.TimelineClaim{fork(1, 0, 0, 1), fork(2, 1, at(4, 80), 2)},
	}.inventory()
	b, err := inv.Newest()
	if err != nil {
		t.Fatal(err)
	}
	if got, whole := inv.Reach(b, at(2, 0)); got != (wal.Position{Timeline: 1, LSN: at(4, 80)}) || !whole {
		t.Errorf("%s, whole %v; want the point at which timeline 1 was left", got, whole)
	}
}
