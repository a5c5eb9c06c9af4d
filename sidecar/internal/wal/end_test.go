package wal_test

import (
	"encoding/binary"
	"errors"
	"testing"

	"outrider.dev/sidecar/internal/wal"
)

type broken struct{}

var errDisk = errors.New("input/output error")

func (broken) ReadWAL([]byte, wal.LSN) (int, error) { return 0, errDisk }

func TestSourceErrorsAreNoEnd(t *testing.T) {
	opt := newBuilder(0).options()
	var end *wal.EndError
	if _, err := wal.NewWalker(broken{}, 5<<20, opt).Next(); !errors.Is(err, errDisk) || errors.As(err, &end) {
		t.Errorf("Next: %v", err)
	}
	if _, err := wal.FirstRecord(broken{}, 5<<20, opt); !errors.Is(err, errDisk) || errors.As(err, &end) {
		t.Errorf("FirstRecord: %v", err)
	}
	if _, _, err := wal.EndOfValid(broken{}, 5<<20, opt); !errors.Is(err, errDisk) || errors.As(err, &end) {
		t.Errorf("EndOfValid: %v", err)
	}
	c := wal.Control{State: wal.StateShutDown, CheckPoint: 5<<20 + 40, SegmentSize: mb, CheckPointTimeline: 1}
	if _, err := wal.ShutdownCheckpoint(c, broken{}); !errors.Is(err, errDisk) || errors.Is(err, wal.ErrNotClean) {
		t.Errorf("ShutdownCheckpoint: %v", err)
	}
	if _, _, err := wal.EndOfValid(memory{from: 5 << 20}, 5<<20, opt); !errors.As(err, &end) {
		t.Errorf("EndOfValid of nothing: %v", err)
	}
}

func TestShutdownCheckpointMustAgree(t *testing.T) {
	b := newBuilder(5 << 20)
	b.add(10, 0, nil)
	body := make([]byte, 2+88)
	body[0], body[1] = 0xFF, 88
	binary.LittleEndian.PutUint64(body[2:], uint64(b.at()))
	binary.LittleEndian.PutUint32(body[10:], 1)
	start, end := b.add(wal.ManagerXLOG, 0x00, body)
	binary.LittleEndian.PutUint64(body[2:], uint64(b.at()))
	online, _ := b.add(wal.ManagerXLOG, 0x10, body)
	good := wal.Control{
		State: wal.StateShutDown, CheckPoint: start, Redo: start, CheckPointTimeline: 1, SegmentSize: mb,
		SystemIdentifier: builderSystem,
	}
	if got, err := wal.ShutdownCheckpoint(good, b); err != nil || got != end {
		t.Fatalf("the checkpoint ends at %s (%v), want %s", got, err, end)
	}
	for name, change := range map[string]func(*wal.Control){
		"running":                 func(c *wal.Control) { c.State = wal.StateInProduction },
		"a standby":               func(c *wal.Control) { c.State = wal.StateShutDownInRecovery },
		"another record":          func(c *wal.Control) { c.CheckPoint, c.Redo = b.starts[0], b.starts[0] },
		"no record":               func(c *wal.Control) { c.CheckPoint, c.Redo = b.at(), b.at() },
		"a checkpoint on the way": func(c *wal.Control) { c.CheckPoint, c.Redo = online, online },
		"inside of a record":      func(c *wal.Control) { c.CheckPoint, c.Redo = start+8, start+8 },
		"inside of a header":      func(c *wal.Control) { c.CheckPoint, c.Redo = 5<<20+8, 5<<20+8 },
		"another redo":            func(c *wal.Control) { c.Redo = b.starts[0] },
		"another timeline":        func(c *wal.Control) { c.CheckPointTimeline = 2 },
		"another system":          nil, // seen on a segment's first page only
		"a missing timeline":      func(c *wal.Control) { c.CheckPointTimeline = 0 },
		"another segmenting":      func(c *wal.Control) { c.SegmentSize = 2 << 20 },
		"a position past all":     func(c *wal.Control) { c.CheckPoint, c.Redo = 9<<20+40, 9<<20+40 },
	} {
		c := good
		if change == nil {
			c.SystemIdentifier++
		} else {
			change(&c)
		}
		if got, err := wal.ShutdownCheckpoint(c, b); !errors.Is(err, wal.ErrNotClean) {
			t.Errorf("%s: clean until %s, %v", name, got, err)
		}
	}
}
