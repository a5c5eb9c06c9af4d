package ledger

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/time/rate"
)

// worker is one connection and what it holds prepared.
type worker struct {
	ledger  *Ledger
	config  Config
	number  int
	limiter *rate.Limiter
	outage  *outage
	share   int // transactions it may hold prepared at a time

	conn  *pgx.Conn
	held  []heldRow // prepared and not yet committed, oldest first
	turns int
}

// run does one transaction per token until ctx ends or the journal fails.
func (w *worker) run(ctx context.Context) error {
	defer w.disconnect()
	var wait backoff
	for {
		if err := w.limiter.Wait(ctx); err != nil {
			return nil // the only errors are that ctx ended, or would before the next token
		}
		err := w.turn(context.WithoutCancel(ctx))
		if errors.Is(err, errJournal) {
			return err
		}
		if err == nil {
			wait = backoff{}
			w.outage.up()
			continue
		}
		w.outage.down(err)
		w.ledger.count(func(s *Stats) { s.Failed++ })
		w.disconnect()
		if !wait.sleep(ctx) {
			return nil
		}
	}
}

// turn connects if need be, commits the prepared rows that are due, and writes one row.
func (w *worker) turn(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, w.config.Timeout)
	defer cancel()
	if err := w.connect(ctx); err != nil {
		return err
	}
	if err := w.release(ctx); err != nil {
		return err
	}
	w.turns++
	kind := w.kind()
	id, err := w.write(ctx, kind)
	if err != nil {
		return err
	}
	if kind == rowPrepared {
		w.held = append(w.held, heldRow{id: id, due: time.Now().Add(w.config.PreparedHold)})
	}
	return nil
}

func (w *worker) connect(ctx context.Context) error {
	if w.conn != nil {
		return nil
	}
	conn, err := connect(ctx, w.config.ConnString, w.synchronousCommit(), w.config.Timeout)
	if err != nil {
		return err
	}
	w.conn = conn
	w.ledger.count(func(s *Stats) { s.Connects++ })
	return ensureTable(ctx, conn)
}

func (w *worker) disconnect() {
	if w.conn != nil {
		_ = closeConn(w.conn) // whatever it held open was never committed
		w.conn = nil
	}
}

func (w *worker) synchronousCommit() string {
	return w.config.SynchronousCommit[w.number%len(w.config.SynchronousCommit)]
}

// kind of the row of this turn.
func (w *worker) kind() rowKind {
	switch {
	case w.config.PreparedEvery > 0 && w.share > 0 && w.turns%w.config.PreparedEvery == 0:
		return rowPrepared
	case w.synchronousCommit() == "off":
		return rowAsync
	default:
		return rowSync
	}
}

// write commits, or prepares, one row and records both ends of it.
func (w *worker) write(ctx context.Context, kind rowKind) (id int64, err error) {
	id, ticket, err := w.ledger.intend(w.number, w.config.PayloadBytes, kind)
	if err != nil {
		return 0, err
	}
	if _, err := w.conn.Exec(ctx, "BEGIN"); err != nil {
		return 0, fmt.Errorf("beginning a transaction: %w", err)
	}
	_, err = w.conn.Exec(ctx, insertRow, w.ledger.id, id, w.number, payload(id, w.config.PayloadBytes))
	if err != nil {
		return 0, fmt.Errorf("inserting row %d: %w", id, err)
	}
	if err := w.ledger.journal.wait(ticket); err != nil {
		return 0, err
	}
	statement, answer, entry := "COMMIT", "COMMIT", entryAck
	if kind == rowPrepared {
		statement = "PREPARE TRANSACTION '" + gid(w.ledger.id, id) + "'"
		answer, entry = "PREPARE TRANSACTION", entryPrepared
	}
	if err := execTagged(ctx, w.conn, statement, answer); err != nil {
		return 0, fmt.Errorf("row %d: %w", id, err)
	}
	return id, w.ledger.acknowledge(id, entry)
}

// execTagged runs a statement and insists on the command tag: a COMMIT or PREPARE TRANSACTION of a failed transaction
// is answered "ROLLBACK", without an error.
func execTagged(ctx context.Context, conn *pgx.Conn, statement, answer string) error {
	tag, err := conn.Exec(ctx, statement)
	if err != nil {
		return fmt.Errorf("%s: %w", statement, err)
	}
	if tag.String() != answer {
		return fmt.Errorf("%s: the server answered %q", statement, tag)
	}
	return nil
}
