package ledger

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// schemaLock is the key of the advisory lock under which the table is made: CREATE ... IF NOT EXISTS alone fails when
// two sessions do it at once.
const schemaLock = 0x6c6564676572 // "ledger"

const createTable = `
CREATE SCHEMA IF NOT EXISTS outrider_ledger;
CREATE TABLE IF NOT EXISTS outrider_ledger.rows (
	ledger text NOT NULL,
	id bigint NOT NULL,
	connection int NOT NULL,
	written_at timestamptz NOT NULL DEFAULT clock_timestamp(),
	payload bytea NOT NULL,
	PRIMARY KEY (ledger, id)
)`

const insertRow = `INSERT INTO outrider_ledger.rows (ledger, id, connection, payload) VALUES ($1, $2, $3, $4)`

// connect opens a session that can outlive anything: no timeout of the server's configuration ends it.
func connect(ctx context.Context, connString, synchronousCommit string, timeout time.Duration) (*pgx.Conn, error) {
	c, err := pgx.ParseConfig(connString)
	if err != nil {
		return nil, fmt.Errorf("reading the connection string: %w", err)
	}
	c.RuntimeParams["application_name"] = "outrider_ledger"
	c.RuntimeParams["synchronous_commit"] = synchronousCommit
	c.RuntimeParams["statement_timeout"] = "0"
	c.RuntimeParams["idle_in_transaction_session_timeout"] = "0"
	c.ConnectTimeout = timeout
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	conn, err := pgx.ConnectConfig(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("connecting to %s:%d: %w", c.Host, c.Port, err)
	}
	return conn, nil
}

// tableExists says whether this database has the ledger's table.
func tableExists(ctx context.Context, conn *pgx.Conn) (bool, error) {
	var exists bool
	err := conn.QueryRow(ctx, `SELECT to_regclass('outrider_ledger.rows') IS NOT NULL`).Scan(&exists)
	if err != nil {
		return false, fmt.Errorf("looking for the table outrider_ledger.rows: %w", err)
	}
	return exists, nil
}

// ensureTable makes the table if it is missing, which also happens after a restore to a moment before it was made.
func ensureTable(ctx context.Context, conn *pgx.Conn) error {
	exists, err := tableExists(ctx, conn)
	if err != nil || exists {
		return err
	}
	err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock($1)`, int64(schemaLock)); err != nil {
			return err
		}
		for _, statement := range strings.Split(createTable, ";") {
			if _, err := tx.Exec(ctx, statement); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("creating the table outrider_ledger.rows: %w", err)
	}
	return nil
}

// preparedLimit is the server's max_prepared_transactions.
func preparedLimit(ctx context.Context, conn *pgx.Conn) (int, error) {
	var n int
	err := conn.QueryRow(ctx, `SELECT current_setting('max_prepared_transactions')::int`).Scan(&n)
	if err != nil {
		return 0, fmt.Errorf("asking for max_prepared_transactions: %w", err)
	}
	return n, nil
}

// gidPrefix begins the global identifiers of this ledger's prepared transactions (at most 199 bytes in PostgreSQL).
func gidPrefix(ledger string) string { return "outrider_ledger:" + ledger + ":" }

func gid(ledger string, id int64) string { return fmt.Sprintf("%s%d", gidPrefix(ledger), id) }

// payload makes the bytes of a row from its number: incompressible, and known to who verifies.
func payload(id int64, size int) []byte {
	r := rand.New(rand.NewPCG(uint64(id), uint64(size)))
	b := make([]byte, 0, size+8)
	for len(b) < size {
		v := r.Uint64()
		b = append(b, byte(v), byte(v>>8), byte(v>>16), byte(v>>24), byte(v>>32), byte(v>>40), byte(v>>48), byte(v>>56))
	}
	return b[:size]
}
