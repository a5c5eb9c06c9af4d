package ledger

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// Options says what to compare with.
type Options struct {
	// Kill is a moment from which the ages of losses are counted, besides those marked in the journal. The age of a
	// loss is counted from the first kill after its transaction was begun: a transaction lives within one life of a
	// server. Without one it has no age and counts as older than anything.
	Kill Instant
	// RPO is the promise to hold. Zero means that nothing acknowledged may be missing, which is the promise of every
	// orderly stop.
	RPO time.Duration
	// Timeout bounds the whole comparison; 5 min by default.
	Timeout time.Duration
}

// Verify compares the server at connString with the journal. The error says that no comparison could be made; what
// the comparison found is in the report, and [Report.Err] judges it. The server is only read. A ledger may be writing
// to both meanwhile: the journal is read before and after the server, so that only rows acknowledged before count as
// missing and only rows never announced count as foreign.
func Verify(ctx context.Context, connString, journalPath string, options Options) (Report, error) {
	defaultTo(&options.Timeout, 5*time.Minute)
	ctx, cancel := context.WithTimeout(ctx, options.Timeout)
	defer cancel()
	before, err := readHistoryFile(journalPath)
	if err != nil {
		return Report{}, err
	}
	found, err := look(ctx, connString, before.ledger, options.Timeout)
	if err != nil {
		return Report{}, err
	}
	after, err := readHistoryFile(journalPath)
	if err != nil {
		return Report{}, err
	}
	j := &judge{before: before, after: after, found: found, options: options}
	return j.report(), nil
}

// stored is what the server holds under one number.
type stored struct {
	copies     int
	connection int
	digest     [sha256.Size]byte // of the payload
}

// state is what the server holds of one ledger.
type state struct {
	rows      map[int64]*stored
	prepared  map[int64]bool
	indexRows int64 // rows found by way of the primary key
	others    int64 // rows of other ledgers
}

// look reads the server. Prepared transactions come first: one that is committed in between is then found twice, and
// not nowhere.
func look(ctx context.Context, connString, ledger string, timeout time.Duration) (s *state, err error) {
	conn, err := connect(ctx, connString, "on", min(timeout, 30*time.Second))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, closeConn(conn)) }()
	s = &state{rows: map[int64]*stored{}, prepared: map[int64]bool{}}
	prepared, err := preparedRows(ctx, conn, ledger)
	if err != nil {
		return nil, err
	}
	for _, id := range prepared {
		s.prepared[id] = true
	}
	exists, err := tableExists(ctx, conn)
	if err != nil || !exists {
		return s, err
	}
	options := pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}
	err = pgx.BeginTxFunc(ctx, conn, options, func(tx pgx.Tx) error { return s.readTable(ctx, tx, ledger) })
	if err != nil {
		return nil, fmt.Errorf("reading the table outrider_ledger.rows: %w", err)
	}
	return s, nil
}

// readTable reads the table itself, not its index, and then counts what the index knows: the two must agree after
// every recovery.
func (s *state) readTable(ctx context.Context, tx pgx.Tx, ledger string) error {
	if err := setAll(ctx, tx, "enable_indexscan = off", "enable_indexonlyscan = off", "enable_bitmapscan = off"); err != nil {
		return err
	}
	rows, err := tx.Query(ctx,
		`SELECT id, connection, sha256(payload) FROM outrider_ledger.rows WHERE ledger = $1`, ledger)
	if err != nil {
		return err
	}
	var (
		id         int64
		connection int
		digest     []byte
	)
	_, err = pgx.ForEachRow(rows, []any{&id, &connection, &digest}, func() error {
		if known := s.rows[id]; known != nil {
			known.copies++
			return nil
		}
		s.rows[id] = &stored{copies: 1, connection: connection, digest: [sha256.Size]byte(digest)}
		return nil
	})
	if err != nil {
		return err
	}
	err = tx.QueryRow(ctx, `SELECT count(*) FROM outrider_ledger.rows WHERE ledger <> $1`, ledger).Scan(&s.others)
	if err != nil {
		return err
	}
	if err := setAll(ctx, tx, "enable_indexscan = on", "enable_indexonlyscan = on", "enable_seqscan = off"); err != nil {
		return err
	}
	return tx.QueryRow(ctx, `SELECT count(*) FROM outrider_ledger.rows WHERE ledger = $1`, ledger).Scan(&s.indexRows)
}

func setAll(ctx context.Context, tx pgx.Tx, settings ...string) error {
	for _, s := range settings {
		if _, err := tx.Exec(ctx, "SET LOCAL "+s); err != nil {
			return err
		}
	}
	return nil
}
