package ledger

import (
	"errors"
	"fmt"
	"time"
)

// Account is the balance of one class of commits.
type Account struct {
	// Acknowledged commits, and how many of them the server has and has not.
	Acknowledged int `json:"acknowledged"`
	Present      int `json:"present"`
	Lost         int `json:"lost"`
	// LostOlderThanRPO is [Account.LostOlderThan] of the RPO asked for.
	LostOlderThanRPO int `json:"lost_older_than_rpo"`
	// LostAfterKill of the lost ones were acknowledged after the mark of the kill that lost them; their age is zero.
	LostAfterKill int `json:"lost_after_kill"`
	// LostOfUnknownAge of the lost ones were begun well after the last known kill of their boot.
	LostOfUnknownAge int `json:"lost_of_unknown_age"`
	// OldestLostAge and NewestLostAge are kill minus acknowledgement, in seconds. Nil if nothing with a known
	// age is lost.
	OldestLostAge *float64 `json:"oldest_lost_age_seconds,omitempty"`
	NewestLostAge *float64 `json:"newest_lost_age_seconds,omitempty"`

	ages []time.Duration // of the lost ones with a known age
}

// LostOlderThan counts the lost commits that had been acknowledged for longer than d at the moment of the kill. Those
// of unknown age count, and with d = 0 all do.
func (a Account) LostOlderThan(d time.Duration) int {
	if d <= 0 {
		return a.Lost
	}
	n := a.LostOfUnknownAge
	for _, age := range a.ages {
		if age > d {
			n++
		}
	}
	return n
}

// Loss is one acknowledged row that is missing.
type Loss struct {
	ID             int64     `json:"id"`
	Connection     int       `json:"connection"`
	Kind           string    `json:"kind"` // "commit", "async commit", "prepare" or "commit of prepared"
	AcknowledgedAt time.Time `json:"acknowledged_at"`
	Age            *float64  `json:"age_seconds,omitempty"`
}

// Prepared is the balance of two-phase commits; they are part of the first account too.
type Prepared struct {
	Acknowledged int `json:"acknowledged"` // PREPAREs
	Committed    int `json:"committed"`    // of them, now visible
	Pending      int `json:"pending"`      // of them, still prepared
	Lost         int `json:"lost"`         // of them, neither, or only prepared although COMMIT PREPARED was answered
}

// InFlight counts rows without an acknowledgement. They count neither way.
type InFlight struct {
	Present int `json:"present"`
	Absent  int `json:"absent"`
}

// Report is what a comparison found. The embedded account is that of commits with synchronous_commit of at least
// "local" and of prepared transactions; only these are promised.
type Report struct {
	Ledger string   `json:"ledger"`
	Kill   *Instant `json:"kill,omitempty"` // the last one known
	RPO    float64  `json:"rpo_seconds"`
	Account
	Async    Account  `json:"async"`
	Prepared Prepared `json:"prepared"`
	InFlight InFlight `json:"in_flight"`
	// Holes are lost rows that were acknowledged before a present row was begun in the same life of the server: its
	// state is then no prefix of its history, whatever the ages.
	Holes int `json:"holes"`
	// Foreign rows carry this ledger's identity and were never announced in its journal.
	Foreign int `json:"foreign"`
	// Duplicates are rows beyond the first of their number.
	Duplicates int `json:"duplicates"`
	// Damaged rows have another payload, or another connection's number, than was written.
	Damaged int `json:"damaged"`
	// Unasked rows are prepared ones that are committed although nobody asked for it.
	Unasked int `json:"unasked"`
	// IndexDifference is the number of rows by way of the primary key minus the number in the table.
	IndexDifference int64 `json:"index_difference"`
	// OtherRows belong to other ledgers and are not judged.
	OtherRows int64 `json:"other_ledgers_rows"`
	// TornJournalBytes were cut off by a crash of the ledger itself at the end of the journal.
	TornJournalBytes int64 `json:"torn_journal_bytes"`
	// Losses are the oldest of the lost rows, at most 20.
	Losses []Loss `json:"losses,omitempty"`

	rpo time.Duration
}

// Err is nil if the promise was held: no acknowledged commit older than the RPO is lost, and nothing is there that
// should not be. Asynchronous commits are not judged.
func (r Report) Err() error {
	var errs []error
	complain := func(n int64, format string, args ...any) {
		if n != 0 {
			errs = append(errs, fmt.Errorf("%d "+format, append([]any{n}, args...)...))
		}
	}
	complain(int64(r.LostOlderThanRPO), "of %d acknowledged commits are lost and older than the RPO of %s%s",
		r.Acknowledged, r.rpo, r.oldest())
	complain(int64(r.Holes), "lost commits precede present ones: this is no prefix of the history")
	complain(int64(r.Foreign), "rows were never announced by this ledger")
	complain(int64(r.Duplicates), "rows are there more than once")
	complain(int64(r.Damaged), "rows have another content than was written")
	complain(int64(r.Unasked), "prepared transactions were committed without being asked")
	complain(r.IndexDifference, "is the difference between the primary key's index and the table")
	return errors.Join(errs...)
}

func (r Report) oldest() string {
	if r.OldestLostAge == nil {
		return ""
	}
	return fmt.Sprintf(" (the oldest by %.3f s before the kill)", *r.OldestLostAge)
}
