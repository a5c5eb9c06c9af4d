package wal_test

import (
	"encoding/binary"
	"testing"
	"time"

	"outrider.dev/sidecar/internal/wal"
)

func TestCommitTimeOfEachForm(t *testing.T) {
	want := time.Date(2024, 2, 29, 12, 0, 0, 123456000, time.UTC)
	micros := make([]byte, 8)
	binary.LittleEndian.PutUint64(micros, uint64(want.Sub(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)).Microseconds()))
	short := append([]byte{0xFF, 8}, micros...)
	long := append([]byte{0xFE, 8, 0, 0, 0}, micros...)
	origin := append([]byte{0xFD, 1, 0}, short...)
	topLevel := append([]byte{0xFC, 1, 0, 0, 0}, origin...)
	for i, tt := range []struct {
		manager       wal.ResourceManager
		info          uint8
		data          []byte
		commit, abort bool
	}{
		{wal.ManagerTransaction, 0x00, short, true, false},
		{wal.ManagerTransaction, 0x80, long, true, false},
		{wal.ManagerTransaction, 0x30, origin, true, false},
		{wal.ManagerTransaction, 0x20, topLevel, false, true},
		{wal.ManagerTransaction, 0xC0, short, false, true},
		{wal.ManagerTransaction, 0x10, short, false, false},
		{wal.ManagerXLOG, 0x00, short, false, false},
		{wal.ManagerTransaction, 0x00, short[:9], false, false},
		{wal.ManagerTransaction, 0x00, append([]byte{0, 0}, short...), false, false},
		{wal.ManagerTransaction, 0x00, nil, false, false},
		{wal.ManagerTransaction, 0x00, []byte{0xFC, 1, 2}, false, false},
		{wal.ManagerTransaction, 0x00, []byte{0xFD}, false, false},
		{wal.ManagerTransaction, 0x00, []byte{0xFE, 8, 0, 0}, false, false},
		{wal.ManagerTransaction, 0x00, []byte{0xFF}, false, false},
		{wal.ManagerTransaction, 0x00, []byte{0xFF, 200, 1, 2, 3}, false, false},
	} {
		r := wal.Record{Manager: tt.manager, Info: tt.info, Data: tt.data}
		c, commit := r.CommitTime()
		a, abort := r.AbortTime()
		if commit != tt.commit || abort != tt.abort || commit && !c.Equal(want) || abort && !a.Equal(want) {
			t.Errorf("record %d: commit %v %v, abort %v %v", i, commit, c, abort, a)
		}
	}
}
