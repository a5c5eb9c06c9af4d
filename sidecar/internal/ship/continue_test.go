package ship

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"

	"outrider.dev/sidecar/internal/archive/archivetest"
	"outrider.dev/sidecar/internal/wal"
)

// A clean stop pads its last segment, and the same instance goes on with it in the same epoch. Whole segments follow
// while the padded one cannot be replaced yet; then the machine, or only the sidecar, is lost. What is in the archive is
// the disk, and not zeros where the stop had been.
func TestSameEpochGoesOnAfterACleanStop(t *testing.T) {
	d, bucket := newDisk(1), archivetest.Memory()
	from, stop, end := wal.LSN(size), wal.LSN(3*size)+4000, wal.LSN(7*size)
	w := claimed(t, bucket, from)
	first := newShipper(t, d, w, from)
	if err := errors.Join(first.ShipTo(t.Context(), stop), first.SealRest(t.Context(), true)); err != nil {
		t.Fatal(err)
	}
	resume := func(flushed wal.LSN) *Shipper {
		t.Helper()
		inv, err := w.Inventory(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		start, err := Resume(inv, nil, Local{Timeline: 1, Flushed: flushed, Has: func(wal.Segment) (bool, error) { return true, nil }})
		if err != nil || start.Durable != flushed || start.SealFrom.Number != 3 {
			t.Fatalf("it goes on at %s and seals from segment %d (%v), want %s and 3", start.Durable, start.SealFrom.Number, err, flushed)
		}
		return New(Config{
			Size: size, Epoch: 1, Timeline: 1, Durable: start.Durable, SealFrom: start.SealFrom, Chunks: start.Chunks, Store: w,
			Open: d.open, Owner: func(context.Context) error { return nil }, Log: first.cfg.Log,
		})
	}
	holds := func(when string) {
		t.Helper()
		if got, want := readBack(t, w, from), d.bytes(1, from, end); !bytes.Equal(got, want) {
			t.Errorf("%s the archive holds %d bytes that are not the %d of the disk", when, len(got), len(want))
		}
	}
	if err := resume(stop).ShipTo(t.Context(), end); err != nil { // nobody seals what went up in chunks
		t.Fatal(err)
	}
	holds("before the padded segment was replaced,")
	third := resume(end)
	if err := errors.Join(third.SealRest(t.Context(), false), third.Sweep(t.Context())); err != nil {
		t.Fatal(err)
	}
	holds("after it was replaced,")
	for _, k := range bucket.Keys() {
		if strings.HasPrefix(k, "outrider/tail/") {
			t.Errorf("everything is sealed, and there is a chunk: %s", k)
		}
	}
}
