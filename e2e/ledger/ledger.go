// Package ledger is the judge of every durability test. It commits numbered rows to a PostgreSQL server at a bounded
// rate and writes down, outside the database and synced, when each commit was acknowledged. Later [Verify] compares a
// server (the same one after a crash, or a restored one) with that journal and says which acknowledged rows are
// missing and how long before the end the oldest of them had been acknowledged.
//
// What counts: a row whose COMMIT was answered must be there. A row whose COMMIT was sent and not answered is in
// flight and counts neither way. A row that was acknowledged by PREPARE TRANSACTION must be there prepared or
// committed, and once COMMIT PREPARED was answered, committed. Rows committed with synchronous_commit=off are
// accounted apart, because the server itself may lose them.
//
// The journal is a text file with one entry a line, each with a checksum, so that a line cut short by a crash is
// recognised. An entry is synced before what it announces is sent: an intent before its COMMIT, the intent to commit a
// prepared transaction before its COMMIT PREPARED. Acknowledgements are stamped the moment the answer is there and
// synced before the connection's next transaction.
package ledger

import (
	"errors"
	"fmt"
	"sync"
	"time"
)

// Ledger writes one journal. Its methods are safe for concurrent use.
type Ledger struct {
	journal *journal
	id      string
	boot    string

	mu      sync.Mutex
	lastID  int64
	running bool
	stats   Stats
}

// Stats is what a ledger has done since it was opened.
type Stats struct {
	Acknowledged int64   `json:"acknowledged"` // commits, of all kinds
	Prepared     int64   `json:"prepared"`     // PREPARE TRANSACTIONs acknowledged
	Failed       int64   `json:"failed"`       // transactions that ended in an error, before or on COMMIT
	Connects     int64   `json:"connects"`     // sessions opened
	FirstAck     Instant `json:"first_ack"`    // of the current or latest Run; zero if there was none yet
	LastAck      Instant `json:"last_ack"`
}

// Open opens the journal at path, or creates it, and takes it for itself: a second Open of the same file, by whatever
// process, is an error. A torn last line is cut off. Numbering goes on where the journal ends.
func Open(path string) (*Ledger, error) {
	j, h, err := openJournal(path)
	if err != nil {
		return nil, err
	}
	boot, err := bootID()
	if err != nil {
		return nil, errors.Join(err, j.close())
	}
	return &Ledger{journal: j, id: h.ledger, boot: boot, lastID: h.last}, nil
}

// Close syncs and closes the journal. No Run may be under way.
func (l *Ledger) Close() error { return l.journal.close() }

// ID is the identity that this ledger's rows carry: 32 hexadecimal digits.
func (l *Ledger) ID() string { return l.id }

// Stats says what was done so far.
func (l *Ledger) Stats() Stats {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stats
}

// MarkKill writes down now as the end of one life of the server, from which the ages of losses are counted, and returns
// it. Call it at each kill, right after the signal was sent: marking it earlier makes losses look younger than they are.
func (l *Ledger) MarkKill() (Instant, error) {
	at, err := Now()
	if err != nil {
		return Instant{}, err
	}
	return at, l.MarkKillAt(at)
}

// MarkKillAt is MarkKill for a moment taken elsewhere with [Now].
func (l *Ledger) MarkKillAt(at Instant) error {
	ticket, err := l.journal.addStamped(entry{
		Kind: entryKill, Monotonic: at.Monotonic, Wall: at.Wall.UnixNano(), Boot: at.Boot,
	})
	if err != nil {
		return err
	}
	return l.journal.wait(ticket)
}

// intend numbers a new row and queues its intent. The ticket must be waited for before COMMIT is sent.
func (l *Ledger) intend(connection, size int, kind rowKind) (id, ticket int64, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lastID++
	ticket, err = l.journal.add(entry{
		Kind: entryIntent, ID: l.lastID, Connection: connection, Size: size, Row: kind,
	})
	return l.lastID, ticket, err
}

// acknowledge writes down that the server has just answered, synced.
func (l *Ledger) acknowledge(id int64, kind entryKind) error {
	e, err := entry{Kind: kind, ID: id}.stamp()
	if err != nil {
		return fmt.Errorf("%w: %w", errJournal, err)
	}
	ticket, err := l.journal.addStamped(e)
	if err != nil {
		return err
	}
	at := Instant{Monotonic: e.Monotonic, Wall: time.Unix(0, e.Wall).UTC(), Boot: l.boot}
	l.count(func(s *Stats) {
		if kind == entryPrepared {
			s.Prepared++
			return
		}
		s.Acknowledged++
		s.LastAck = at
		if s.FirstAck.IsZero() {
			s.FirstAck = at
		}
	})
	return l.journal.wait(ticket)
}

func (l *Ledger) count(change func(*Stats)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change(&l.stats)
}

// begin claims the ledger for one Run or Settle.
func (l *Ledger) begin() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.running {
		return errors.New("this ledger is running already: one Run or Settle at a time")
	}
	if err := l.journal.record(entry{Kind: entrySession, Boot: l.boot}); err != nil {
		return fmt.Errorf("beginning a session: %w", err)
	}
	l.running = true
	l.stats.FirstAck = Instant{}
	return nil
}

func (l *Ledger) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.running = false
}
