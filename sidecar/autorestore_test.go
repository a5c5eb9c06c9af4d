package main

import (
	"errors"
	"strings"
	"testing"

	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/epoch"
	"outrider.dev/sidecar/internal/restore"
)

// A disk that is ahead of its archive is started only if nobody else can have gone on from what the archive holds.
func TestDiskAheadIsTaken(t *testing.T) {
	claimed := func(n uint64, instance, cluster string) archive.Epoch {
		return archive.Epoch{Number: n, Writer: archive.Identity{Instance: instance, Kubernetes: cluster}}
	}
	for name, c := range map[string]struct {
		epochs []archive.Epoch
		since  int // of these at the end have written nothing
		taken  bool
		err    error
	}{
		"nobody":                       {epochs: []archive.Epoch{claimed(1, "before", "k")}},
		"ourselves":                    {epochs: []archive.Epoch{claimed(1, "before", "k"), claimed(2, "we", "k")}, since: 1},
		"another one restores":         {epochs: []archive.Epoch{claimed(1, "before", "k"), claimed(2, "other", "k")}, since: 1, taken: true},
		"another one, and then we":     {epochs: []archive.Epoch{claimed(1, "before", "k"), claimed(2, "other", "k"), claimed(3, "we", "k")}, since: 2, taken: true},
		"we, and then another one":     {epochs: []archive.Epoch{claimed(1, "we", "k"), claimed(2, "other", "k")}, since: 1, err: epoch.ErrSuperseded},
		"one of another cluster wrote": {epochs: []archive.Epoch{claimed(1, "before", "elsewhere")}, err: epoch.ErrForeign},
	} {
		t.Run(name, func(t *testing.T) {
			v := restore.Verdict{Disk: restore.DiskAhead, Reason: "the disk is ahead", Epochs: c.epochs, Since: c.epochs[len(c.epochs)-c.since:]}
			got, taken, err := takenBy(v, epoch.Request{Writer: archive.Identity{Instance: "we", Kubernetes: "k"}})
			if taken != c.taken || !errors.Is(err, c.err) || c.err == nil && err != nil {
				t.Errorf("taken is %t, %v; want %t, %v", taken, err, c.taken, c.err)
			}
			if taken && !strings.Contains(got.Reason, "epoch 2 was claimed since by other") {
				t.Errorf("the reason does not name who: %s", got.Reason)
			}
		})
	}
}
