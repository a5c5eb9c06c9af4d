package wal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"time"
)

// Control is what pg_control says of a database cluster: the struct ControlFileData of
// src/include/catalog/pg_control.h, which the functions pg_control_system, pg_control_checkpoint, pg_control_recovery
// and pg_control_init show too. The server writes it at each checkpoint and change of State, so on a running server
// it tells the past: after a promotion CheckPointTimeline stays the old one until the next checkpoint.
type Control struct {
	SystemIdentifier uint64
	Version          uint32 // pg_control_version: 1300 (PostgreSQL 14 to 16), 1700, 1800
	CatalogVersion   uint32
	State            State
	Time             time.Time // of the last write of pg_control, whole seconds

	CheckPoint         LSN // start of the record of the last checkpoint
	Redo               LSN // where recovery from that checkpoint begins
	CheckPointTimeline Timeline
	PrevTimeline       Timeline
	CheckPointTime     time.Time // whole seconds

	// MinRecoveryPoint is how far a standby or a restored backup must replay before it is consistent; 0 if not
	// recovering.
	MinRecoveryPoint         LSN
	MinRecoveryPointTimeline Timeline
	BackupStart              LSN // of the backup that recovery began from and whose end is yet to be replayed, or 0
	BackupEnd                LSN // of a backup from a standby, or 0
	BackupEndRequired        bool

	// The settings that a standby must have at least.
	WALLevel             WALLevel
	WALLogHints          bool
	MaxConnections       int
	MaxWorkerProcesses   int
	MaxWALSenders        int
	MaxPreparedXacts     int
	MaxLocksPerXact      int
	TrackCommitTimestamp bool

	BlockSize           int   // BLCKSZ, bytes of a page of a relation
	RelSegSize          int64 // RELSEG_SIZE, pages in one file of a relation
	WALBlockSize        int   // XLOG_BLCKSZ; this package reads PageSize only
	SegmentSize         SegmentSize
	DataChecksumVersion uint32 // 0 without data checksums, 1 with those that PageChecksum computes
}

// ErrControl is matched by errors about the content of pg_control: torn, corrupt, or of an unsupported version.
var ErrControl = errors.New("unusable pg_control")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ParseControl reads the content of pg_control of PostgreSQL 14 to 18 from a little-endian machine. Every error
// matches ErrControl; a mismatch of the checksum can be a read in the middle of a write, see ReadControl.
func ParseControl(b []byte) (Control, error) {
	if len(b) < 16 {
		return Control{}, fmt.Errorf("%w: %d bytes are too few", ErrControl, len(b))
	}
	version := binary.LittleEndian.Uint32(b[8:])
	end := controlCRCOffset(version)
	if end == 0 {
		return Control{}, fmt.Errorf("%w: format version %d is none of 1300, 1700, 1800 (PostgreSQL 14 to 18)",
			ErrControl, version)
	}
	if len(b) < end+4 {
		return Control{}, fmt.Errorf("%w: %d bytes are too few for format version %d", ErrControl, len(b), version)
	}
	if crc32.Checksum(b[:end], castagnoli) != binary.LittleEndian.Uint32(b[end:]) {
		return Control{}, fmt.Errorf("%w: the checksum does not match", ErrControl)
	}
	c := decodeControl(b)
	if !c.SegmentSize.Valid() {
		return Control{}, fmt.Errorf("%w: a WAL segment cannot have %d bytes", ErrControl, c.SegmentSize)
	}
	if c.WALBlockSize != PageSize {
		return Control{}, fmt.Errorf("%w: the server was built with WAL pages of %d bytes, only %d are supported",
			ErrControl, c.WALBlockSize, PageSize)
	}
	return c, nil
}

// controlCRCOffset is where the checksum follows everything else: 18 put default_char_signedness before the nonce
// (pg_control.h of 14 to 18). It is 0 for an unknown version.
func controlCRCOffset(version uint32) int {
	switch version {
	case 1300, 1700:
		return 288
	case 1800:
		return 292
	}
	return 0
}

// decodeControl picks the fields of 64-bit machines, all at the same offsets in 14 to 18. The copy of the checkpoint
// record (struct CheckPoint) is at 40.
func decodeControl(b []byte) Control {
	u32 := func(at int) uint32 { return binary.LittleEndian.Uint32(b[at:]) }
	u64 := func(at int) uint64 { return binary.LittleEndian.Uint64(b[at:]) }
	seconds := func(at int) time.Time { return time.Unix(int64(u64(at)), 0).UTC() }
	return Control{
		SystemIdentifier: u64(0),
		Version:          u32(8),
		CatalogVersion:   u32(12),
		State:            State(u32(16)),
		Time:             seconds(24),

		CheckPoint:         LSN(u64(32)),
		Redo:               LSN(u64(40)),
		CheckPointTimeline: Timeline(u32(48)),
		PrevTimeline:       Timeline(u32(52)),
		CheckPointTime:     seconds(104),

		MinRecoveryPoint:         LSN(u64(136)),
		MinRecoveryPointTimeline: Timeline(u32(144)),
		BackupStart:              LSN(u64(152)),
		BackupEnd:                LSN(u64(160)),
		BackupEndRequired:        b[168] != 0,

		WALLevel:             WALLevel(u32(172)),
		WALLogHints:          b[176] != 0,
		MaxConnections:       int(int32(u32(180))),
		MaxWorkerProcesses:   int(int32(u32(184))),
		MaxWALSenders:        int(int32(u32(188))),
		MaxPreparedXacts:     int(int32(u32(192))),
		MaxLocksPerXact:      int(int32(u32(196))),
		TrackCommitTimestamp: b[200] != 0,

		BlockSize:           int(u32(216)),
		RelSegSize:          int64(u32(220)),
		WALBlockSize:        int(u32(224)),
		SegmentSize:         SegmentSize(u32(228)),
		DataChecksumVersion: u32(252),
	}
}

// ControlPath is the place of pg_control in a data directory.
func ControlPath(pgdata string) string { return filepath.Join(pgdata, "global", "pg_control") }

// ReadControl reads and checks pg_control of a data directory. The server overwrites the file in place, so a read can
// meet a write half done: content that fails its checksum is read again, up to ten times in 100 ms, until it stops
// changing (the same is done in get_controlfile, src/common/controldata_utils.c). A missing file is fs.ErrNotExist,
// bad content ErrControl.
func ReadControl(pgdata string) (Control, error) {
	var before uint32
	for try := 1; ; try++ {
		b, err := os.ReadFile(ControlPath(pgdata))
		if err != nil {
			return Control{}, fmt.Errorf("reading the control file: %w", err)
		}
		c, err := ParseControl(b)
		if err == nil {
			return c, nil
		}
		now := crc32.Checksum(b, castagnoli)
		if try == 10 || try > 1 && now == before {
			return Control{}, fmt.Errorf("reading %s: %w", ControlPath(pgdata), err)
		}
		before = now
		time.Sleep(10 * time.Millisecond) //nolint:forbidigo // ten times at most, not worth a context
	}
}
