package ledger

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"strconv"
	"time"
)

// entryKind says what a line of the journal records.
type entryKind string

const (
	entryLedger   entryKind = "ledger"   // first line: the ledger's identity and the format's number
	entrySession  entryKind = "session"  // one Run begins
	entryIntent   entryKind = "intent"   // a row is about to be written; synced before its COMMIT or PREPARE is sent
	entryPrepared entryKind = "prepared" // PREPARE TRANSACTION was acknowledged
	entryCommit   entryKind = "commit"   // COMMIT PREPARED is about to be sent
	entryAck      entryKind = "ack"      // COMMIT or COMMIT PREPARED was acknowledged
	entryKill     entryKind = "kill"     // the moment from which losses are aged
)

// rowKind says under which promise a row is committed.
type rowKind string

const (
	rowSync     rowKind = ""         // synchronous_commit of at least "local"
	rowAsync    rowKind = "async"    // synchronous_commit=off: the server may lose it by itself
	rowPrepared rowKind = "prepared" // two-phase; the server flushes both phases whatever synchronous_commit says
)

// entry is one line of the journal.
type entry struct {
	Kind      entryKind `json:"k"`
	ID        int64     `json:"id,omitempty"`
	Monotonic int64     `json:"mono,omitempty"` // nanoseconds of CLOCK_MONOTONIC
	Wall      int64     `json:"wall,omitempty"` // nanoseconds since 1970

	// Of an intent.
	Connection int     `json:"conn,omitempty"`
	Size       int     `json:"size,omitempty"`
	Row        rowKind `json:"row,omitempty"`

	// Of the first line, of a session and of a kill.
	Ledger string `json:"ledger,omitempty"`
	Format int    `json:"format,omitempty"`
	Boot   string `json:"boot,omitempty"`
}

// journalFormat is the number of the journal's format, in its first line.
const journalFormat = 1

// stamp fills in both clocks.
func (e entry) stamp() (entry, error) {
	mono, err := monotonic()
	if err != nil {
		return e, err
	}
	e.Monotonic, e.Wall = mono, time.Now().UnixNano()
	return e, nil
}

// errBadLine is what decodeLine answers for a line that was not written whole.
var errBadLine = errors.New("line has a wrong checksum")

// crcWidth is the length of a line's checksum: eight hexadecimal digits.
const crcWidth = 8

// appendLine appends e as a line: CRC32C of the JSON in eight hexadecimal digits, a space, the JSON, a newline.
func appendLine(buf []byte, e entry) ([]byte, error) {
	body, err := json.Marshal(e)
	if err != nil {
		return buf, fmt.Errorf("encoding a journal entry: %w", err)
	}
	buf = fmt.Appendf(buf, "%08x ", crc32.Checksum(body, crc32.MakeTable(crc32.Castagnoli)))
	buf = append(buf, body...)
	return append(buf, '\n'), nil
}

// decodeLine reads a line without its newline. A line that is damaged or cut gives errBadLine.
func decodeLine(line []byte) (entry, error) {
	var e entry
	if len(line) < crcWidth+1 || line[crcWidth] != ' ' {
		return e, errBadLine
	}
	want, err := strconv.ParseUint(string(line[:crcWidth]), 16, 32)
	body := line[crcWidth+1:]
	if err != nil || want != uint64(crc32.Checksum(body, crc32.MakeTable(crc32.Castagnoli))) {
		return e, errBadLine
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(&e); err != nil {
		return e, fmt.Errorf("decoding a journal line whose checksum is right: %w", err)
	}
	return e, nil
}
