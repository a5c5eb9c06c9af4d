package ledger

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

// ErrCorrupt says that a journal is damaged before its end, so that nothing can be concluded from it. A torn tail, as
// a crash leaves it, is not that.
var ErrCorrupt = errors.New("the journal is damaged in its middle")

// row is what the journal says about one numbered row. A zero instant means that the line is not there.
type row struct {
	id         int64
	connection int
	size       int
	kind       rowKind
	intent     Instant // before COMMIT or PREPARE TRANSACTION was sent
	prepared   Instant // PREPARE TRANSACTION acknowledged
	commit     Instant // before COMMIT PREPARED was first sent
	attempt    Instant // before it was last sent; an answer belongs to this one
	ack        Instant // COMMIT or COMMIT PREPARED acknowledged
}

// begun is a moment that is certainly before the server wrote what makes the row visible. Of several attempts to commit
// a prepared one it cannot be known which had the effect; only its PREPARE is sure then.
func (r *row) begun() Instant {
	if r.commit.IsZero() || r.commit != r.attempt {
		return r.intent
	}
	return r.commit
}

// history is a journal, read.
type history struct {
	ledger string
	rows   map[int64]*row
	last   int64     // highest id intended
	kills  []Instant // as marked
	runs   []Instant // when sessions began
	boot   string    // of the session being read
	valid  int64     // bytes of whole lines
	torn   int64     // bytes after them
}

// readHistoryFile reads the journal at path without locking it: a ledger may be writing to it.
func readHistoryFile(path string) (*history, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("opening the ledger's journal: %w", err)
	}
	h, err := readHistory(f, path)
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	if h.ledger == "" {
		return nil, fmt.Errorf("%s is not a ledger's journal: it has no first line", path)
	}
	return h, nil
}

// readHistory reads a journal from its start. Lines after the last whole one are a torn tail if none of them is whole.
func readHistory(r io.Reader, path string) (*history, error) {
	h := &history{rows: map[int64]*row{}}
	br := bufio.NewReaderSize(r, 1<<20)
	for n := 1; ; n++ {
		line, err := br.ReadBytes('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("reading %s: %w", path, err)
		}
		whole := err == nil
		if len(line) == 0 {
			err := h.checkStart(path)
			return h, err
		}
		e, decodeErr := entry{}, errBadLine
		if whole {
			e, decodeErr = decodeLine(line[:len(line)-1])
		}
		switch {
		case errors.Is(decodeErr, errBadLine):
			h.torn += int64(len(line))
			continue
		case decodeErr != nil:
			return nil, fmt.Errorf("%s line %d: %w", path, n, decodeErr)
		case h.torn > 0:
			return nil, fmt.Errorf("%s line %d follows a damaged one: %w", path, n, ErrCorrupt)
		}
		if err := h.take(e); err != nil {
			return nil, fmt.Errorf("%s line %d: %w", path, n, err)
		}
		h.valid += int64(len(line))
	}
}

// checkStart refuses a file that holds something, but no journal: it would be taken for one torn line and cut away.
func (h *history) checkStart(path string) error {
	if h.valid == 0 && h.torn > 0 {
		return fmt.Errorf("%s is not a ledger's journal (its first line has no valid checksum): give another path", path)
	}
	return nil
}

// take adds one entry to the picture.
func (h *history) take(e entry) error {
	if (e.Kind == entryLedger) != (h.ledger == "") {
		return fmt.Errorf("%q where the journal must begin with exactly one %q: %w", e.Kind, entryLedger, ErrCorrupt)
	}
	at := Instant{Monotonic: e.Monotonic, Wall: time.Unix(0, e.Wall).UTC(), Boot: h.boot}
	switch e.Kind {
	case entryLedger:
		if e.Format != journalFormat {
			return fmt.Errorf("the journal has format %d, this program reads %d", e.Format, journalFormat)
		}
		h.ledger = e.Ledger
	case entrySession:
		h.boot = e.Boot
		at.Boot = e.Boot
		h.runs = append(h.runs, at)
	case entryKill:
		at.Boot = e.Boot
		h.kills = append(h.kills, at)
	case entryIntent:
		if h.rows[e.ID] != nil {
			return fmt.Errorf("row %d is intended twice: %w", e.ID, ErrCorrupt)
		}
		h.rows[e.ID] = &row{id: e.ID, connection: e.Connection, size: e.Size, kind: e.Row, intent: at}
		h.last = max(h.last, e.ID)
	case entryPrepared, entryCommit, entryAck:
		return h.takeAnswer(e, at)
	default:
		return fmt.Errorf("unknown entry %q: %w", e.Kind, ErrCorrupt)
	}
	return nil
}

// takeAnswer adds an entry that speaks of a row intended before.
func (h *history) takeAnswer(e entry, at Instant) error {
	r := h.rows[e.ID]
	if r == nil {
		return fmt.Errorf("%q of row %d, which was never intended: %w", e.Kind, e.ID, ErrCorrupt)
	}
	switch e.Kind {
	case entryPrepared:
		r.prepared = at
	case entryCommit:
		if r.commit.IsZero() {
			r.commit = at
		}
		r.attempt = at
	default:
		r.ack = at
	}
	return nil
}
