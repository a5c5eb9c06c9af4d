package restore

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/archive/archivetest"
	"outrider.dev/sidecar/internal/wal"
)

// While a restore runs, a writer that has just been superseded seals a segment and deletes its chunks. What the owner of
// the timeline has written in that segment is not taken from it.
func TestSealedMeanwhileByASupersededWriter(t *testing.T) {
	const z = wal.SegmentSize(wal.MinSegmentSize)
	a := archive.New(archivetest.Memory())
	w := a.WAL(z)
	seg := wal.Segment{Timeline: 1, Number: 3}
	since, end := seg.Start(z)+5000, seg.Start(z)+9000
	must(t, a.ClaimTimeline(t.Context(), archive.TimelineClaim{Timeline: 1, Epoch: 1}))
	must(t, a.ClaimEpoch(t.Context(), archive.Epoch{Number: 1, Timeline: 1}))
	must(t, a.ClaimEpoch(t.Context(), archive.Epoch{Number: 2, Timeline: 1, Since: since, Replaces: true}))
	theirs := bytes.Repeat([]byte{1}, int(z))
	ours := append(bytes.Clone(theirs[:5000]), bytes.Repeat([]byte{2}, 4000)...)
	first := archive.Chunk{Segment: seg, Epoch: 1, From: seg.Start(z), To: since}
	for c, raw := range map[archive.Chunk][]byte{
		first: theirs[:5000], {Segment: seg, Epoch: 2, From: since, To: end}: ours[5000:],
	} {
		_, err := w.PutChunk(t.Context(), c, raw)
		must(t, err)
	}
	inv, err := w.Inventory(t.Context())
	must(t, err)
	legs := []archive.Leg{{Timeline: 1, From: seg.Start(z), To: archive.MaxLSN}}
	all, err := jobs(inv, legs, end, 0)
	must(t, err)
	if len(all) != 1 {
		t.Fatalf("there are %d jobs", len(all))
	}
	_, err = w.Seal(t.Context(), archive.SealRequest{Segment: seg, Epoch: 1, Raw: bytes.NewReader(theirs), Valid: int64(z)})
	must(t, err)
	must(t, w.RemoveChunks(t.Context(), []archive.Chunk{first}))

	file, err := os.Create(filepath.Join(t.TempDir(), "segment"))
	must(t, err)
	f := &filler{w: w, plan: Plan{SegmentSize: z}}
	must(t, f.assemble(t.Context(), file, all[0]))
	must(t, file.Close())
	got, err := os.ReadFile(file.Name())
	must(t, err)
	if !bytes.Equal(got, ours) {
		t.Errorf("%d bytes were laid that are not the %d of the owner", len(got), len(ours))
	}
	s := &source{ctx: t.Context(), w: w, inv: inv, legs: legs, end: end}
	read := make([]byte, len(ours))
	_, err = s.ReadWAL(read, seg.Start(z))
	must(t, err)
	must(t, s.Close())
	if !bytes.Equal(read, ours) {
		t.Error("bytes were read that are not the owner's")
	}
}

// A writer that was superseded may have completed a snapshot before it noticed. Its pages are of another history than the
// WAL that its successor has stored for the same positions.
func TestSnapshotOfASupersededWriterIsPassedOver(t *testing.T) {
	const z = wal.SegmentSize(wal.MinSegmentSize)
	at := func(segment, offset int) wal.LSN { return wal.LSN(segment)*wal.LSN(z) + wal.LSN(offset) }
	inv := &archive.Inventory{
		Size: z, Claims: map[wal.Timeline]archive.TimelineClaim{1: {Timeline: 1, Epoch: 1}}, Sealed: map[wal.Segment]archive.SegmentInfo{},
		Epochs: []archive.Epoch{{Number: 1, Timeline: 1}, {Number: 2, Timeline: 1, Since: at(3, 100), Replaces: true}},
	}
	for n := uint64(1); n < 9; n++ {
		s := wal.Segment{Timeline: 1, Number: n}
		inv.Sealed[s] = archive.SegmentInfo{Segment: s, Valid: int64(z)}
	}
	snapshot := func(name string, epoch uint64, start, stop wal.LSN) archive.Backup {
		from, to := uint64(start), uint64(stop)
		b := archive.Backup{Name: name, StartSegment: z.SegmentAt(1, start).Name(z), Manifest: &archive.Manifest{Epoch: epoch}}
		b.Sentinel.LSN, b.Sentinel.FinishLSN = &from, &to
		return b
	}
	all := []archive.Backup{
		snapshot("good", 1, at(2, 40), at(2, 200)), snapshot("stray", 1, at(5, 40), at(5, 200)), snapshot("newest", 2, at(4, 40), at(4, 200)),
	}
	b, err := inv.Branch(1)
	must(t, err)
	p := &planner{inv: inv, backups: all, branch: b, legs: b.Legs, plan: &Plan{}}
	var names []string
	for _, k := range p.onBranch() {
		names = append(names, k.Name)
	}
	if !slices.Equal(names, []string{"newest", "good"}) || len(p.plan.Warnings) != 1 {
		t.Errorf("a restore could begin with %v; said was %v", names, p.plan.Warnings)
	}
	windows := inv.Windows(b, all)
	if len(windows) != 1 || len(windows[0].Snapshots) != 2 {
		t.Errorf("the windows are %+v", windows)
	}
}
