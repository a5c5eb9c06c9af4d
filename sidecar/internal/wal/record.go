package wal

import (
	"encoding/binary"
	"time"
)

// ResourceManager is the part of the server that wrote a record and replays it (src/include/access/rmgrlist.h).
type ResourceManager uint8

// The resource managers that matter here.
const (
	ManagerXLOG        ResourceManager = 0 // the log itself: checkpoints, switches
	ManagerTransaction ResourceManager = 1 // commits and aborts
	ManagerStandby     ResourceManager = 8 // what a standby must know about running transactions

	lastBuiltinManager ResourceManager = 21  // LogicalMessage, in 14 to 18
	firstCustomManager ResourceManager = 128 // RM_MIN_CUSTOM_ID, from 15 on
)

// What a record of ManagerXLOG is, in the upper half of its Info (src/include/catalog/pg_control.h).
const (
	infoCheckpointShutdown   = 0x00
	infoSwitch               = 0x40
	infoFullPageForHint      = 0xA0
	infoFullPage             = 0xB0
	infoOverwriteContRecord  = 0xD0
	infoMask                 = 0xF0 // the rest is for the log's own use (XLR_INFO_MASK)
	transactionOperationMask = 0x70 // XLOG_XACT_OPMASK, src/include/access/xact.h
)

// What a record of ManagerTransaction is (xact.h).
const (
	infoCommit         = 0x00
	infoAbort          = 0x20
	infoCommitPrepared = 0x30
	infoAbortPrepared  = 0x40
)

// Sizes of XLogRecord (src/include/access/xlogrecord.h).
const (
	recordHeaderSize = 24
	recordCRCOffset  = 20
	// No record is as large as this: servers allocate less than 1 GiB for one.
	maxRecordLength = 1<<30 - 1
)

// maxRecordData is how much of a record's content a Record keeps: enough for all that is read from one, the largest
// being a checkpoint.
const maxRecordData = 128

// Record is one WAL record that passed all checks.
type Record struct {
	Start  LSN    // of the record's first byte, behind a page header if there is one
	End    LSN    // where the next record may begin; for a switch the end of the segment. PostgreSQL's "end LSN"
	Prev   LSN    // start of the record before
	Length uint32 // bytes without page headers and padding
	XID    uint32 // transaction, 0 if none
	// Timeline is that in the header of the page where the record starts. On the page with a switch point that is still
	// the parent; History.TimelineAt tells exactly.
	Timeline Timeline
	Manager  ResourceManager
	Info     uint8
	// Data is what follows the record's header, its first 128 bytes at most. It is valid until the walker goes on.
	Data []byte
}

func (r Record) isXLOG(info uint8) bool { return r.Manager == ManagerXLOG && r.Info&infoMask == info }

// IsSwitch tells whether the record ends its segment early (pg_switch_wal).
func (r Record) IsSwitch() bool { return r.isXLOG(infoSwitch) }

// IsShutdownCheckpoint tells whether the record is the checkpoint of an orderly shutdown, the last record of a life.
func (r Record) IsShutdownCheckpoint() bool { return r.isXLOG(infoCheckpointShutdown) }

// IsBookkeeping tells whether the record changes no page: the server writes such records when nobody uses it.
func (r Record) IsBookkeeping() bool {
	return r.Manager == ManagerStandby ||
		r.Manager == ManagerXLOG && !r.isXLOG(infoFullPage) && !r.isXLOG(infoFullPageForHint)
}

// CommitTime is when the transaction committed, if the record is a commit, also of a prepared transaction.
func (r Record) CommitTime() (time.Time, bool) {
	return r.transactionTime(infoCommit, infoCommitPrepared)
}

// AbortTime is the same for an abort. A recovery target time is compared with both.
func (r Record) AbortTime() (time.Time, bool) { return r.transactionTime(infoAbort, infoAbortPrepared) }

// The main data of commits and aborts begins with the time (xl_xact_commit.xact_time, xl_xact_abort.xact_time).
func (r Record) transactionTime(plain, prepared uint8) (time.Time, bool) {
	op := r.Info & transactionOperationMask
	if r.Manager != ManagerTransaction || op != plain && op != prepared {
		return time.Time{}, false
	}
	data, ok := mainData(r.Data)
	if !ok || len(data) < 8 {
		return time.Time{}, false
	}
	return timestamp(int64(binary.LittleEndian.Uint64(data))), true
}

// timestamp converts a TimestampTz: microseconds since 2000-01-01 UTC (src/include/datatype/timestamp.h).
func timestamp(t int64) time.Time {
	const toUnix = 946684800 // seconds from 1970 to 2000
	return time.Unix(t/1e6+toUnix, t%1e6*1e3).UTC()
}

// Identifiers of the parts that a record without pages consists of (xlogrecord.h).
const (
	partTopLevelXID = 0xFC // 4 bytes
	partOrigin      = 0xFD // 2 bytes
	partDataLong    = 0xFE // 4 bytes of length, data
	partDataShort   = 0xFF // 1 byte of length, data
)

// mainData is the main data of a record that has no page references, as far as data has it.
func mainData(data []byte) ([]byte, bool) {
	for len(data) > 0 {
		part := data[0]
		data = data[1:]
		skip, length := 0, -1
		switch {
		case part == partTopLevelXID:
			skip = 4
		case part == partOrigin:
			skip = 2
		case part == partDataShort && len(data) >= 1:
			skip, length = 1, int(data[0])
		case part == partDataLong && len(data) >= 4:
			skip, length = 4, int(binary.LittleEndian.Uint32(data))
		default:
			return nil, false
		}
		if skip > len(data) {
			return nil, false
		}
		data = data[skip:]
		if length >= 0 {
			return data[:min(length, len(data))], true
		}
	}
	return nil, false
}

func align8(n uint64) uint64 { return (n + 7) &^ 7 }
