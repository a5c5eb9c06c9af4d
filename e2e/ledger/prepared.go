package ledger

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// heldRow is a row whose PREPARE TRANSACTION was acknowledged and that is committed when due.
type heldRow struct {
	id  int64
	due time.Time
}

// release commits the prepared rows whose time has come, and the oldest ones where the share is used up.
func (w *worker) release(ctx context.Context) error {
	for len(w.held) > 0 && (len(w.held) >= w.share || !time.Now().Before(w.held[0].due)) {
		if err := w.ledger.commitPrepared(ctx, w.conn, w.held[0].id); err != nil {
			return err
		}
		w.held = w.held[1:]
	}
	return nil
}

// commitPrepared commits one prepared row. One that the server does not know any more is nobody's to commit: either an
// earlier attempt whose answer was lost did it, or the row is lost, and then Verify says so.
func (l *Ledger) commitPrepared(ctx context.Context, conn *pgx.Conn, id int64) error {
	if err := l.journal.record(entry{Kind: entryCommit, ID: id}); err != nil {
		return err
	}
	err := execTagged(ctx, conn, "COMMIT PREPARED '"+gid(l.id, id)+"'", "COMMIT PREPARED")
	var pg *pgconn.PgError
	if errors.As(err, &pg) && pg.Code == "42704" { // undefined_object
		return nil
	}
	if err != nil {
		return fmt.Errorf("row %d: %w", id, err)
	}
	return l.acknowledge(id, entryAck)
}

// settle commits every transaction of this ledger that the server holds prepared, also those whose PREPARE was never
// answered.
func (l *Ledger) settle(ctx context.Context, conn *pgx.Conn) (int, error) {
	found, err := preparedRows(ctx, conn, l.id)
	if err != nil {
		return 0, err
	}
	l.mu.Lock()
	last := l.lastID
	l.mu.Unlock()
	for n, id := range found {
		if id > last {
			return n, fmt.Errorf("the server holds %s prepared, which the journal %s never announced: is it the right journal?",
				gid(l.id, id), l.journal.path)
		}
		if err := l.commitPrepared(ctx, conn, id); err != nil {
			return n, err
		}
	}
	return len(found), nil
}

// preparedRows lists the rows of a ledger that this database holds prepared.
func preparedRows(ctx context.Context, conn *pgx.Conn, ledger string) ([]int64, error) {
	rows, err := conn.Query(ctx, `
		SELECT gid FROM pg_prepared_xacts
		WHERE database = current_database() AND starts_with(gid, $1)
		ORDER BY prepared`, gidPrefix(ledger))
	if err != nil {
		return nil, fmt.Errorf("listing prepared transactions: %w", err)
	}
	gids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("listing prepared transactions: %w", err)
	}
	ids := make([]int64, 0, len(gids))
	for _, g := range gids {
		id, err := strconv.ParseInt(strings.TrimPrefix(g, gidPrefix(ledger)), 10, 64)
		if err != nil || id < 1 {
			return nil, fmt.Errorf("the prepared transaction %q looks like this ledger's and has no row number", g)
		}
		ids = append(ids, id)
	}
	return ids, nil
}
