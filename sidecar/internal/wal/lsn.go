// Package wal holds the words everybody shares about PostgreSQL's write-ahead log: positions, timelines, segments,
// histories, the control file and the few page and record structures that have to be checked. It knows no archive and
// no server; what it reads, it reads through an io.ReaderAt.
package wal

import (
	"fmt"
	"strconv"
	"strings"
)

// LSN is a position in the WAL in bytes, PostgreSQL's XLogRecPtr (src/include/access/xlogdefs.h). Zero is "invalid".
type LSN uint64

// ParseLSN reads the text form, two hexadecimal halves joined by a slash, such as "16/B374D848".
func ParseLSN(s string) (LSN, error) {
	hi, lo, ok := strings.Cut(s, "/")
	if ok && len(hi) >= 1 && len(hi) <= 8 && len(lo) >= 1 && len(lo) <= 8 {
		h, herr := strconv.ParseUint(hi, 16, 32)
		l, lerr := strconv.ParseUint(lo, 16, 32)
		if herr == nil && lerr == nil {
			return LSN(h<<32 | l), nil
		}
	}
	return 0, fmt.Errorf("%q is not an LSN: expected two hexadecimal numbers joined by a slash, such as 16/B374D848", s)
}

// String is the text form that PostgreSQL prints (pg_lsn).
func (l LSN) String() string { return fmt.Sprintf("%X/%X", uint32(l>>32), uint32(l)) }

// MarshalText writes the text form, so that LSNs are readable in JSON.
func (l LSN) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// UnmarshalText reads the text form.
func (l *LSN) UnmarshalText(b []byte) (err error) {
	*l, err = ParseLSN(string(b))
	return err
}

// Timeline is PostgreSQL's TimeLineID. Zero is "invalid"; the first timeline is 1.
type Timeline uint32

// Position is a place in one branch of history.
type Position struct {
	Timeline Timeline `json:"timeline"`
	LSN      LSN      `json:"lsn"`
}

// String is "timeline@lsn", for people.
func (p Position) String() string { return fmt.Sprintf("%d@%s", p.Timeline, p.LSN) }
