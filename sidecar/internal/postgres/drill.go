package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"outrider.dev/sidecar/internal/wal"
)

// ErrUnsatisfied says that a query was answered, and that the answer is not what it has to be.
var ErrUnsatisfied = errors.New("the answer is not what it has to be")

// Replayed is how far the recovery came that this server began with.
type Replayed struct {
	LSN         wal.LSN   // end of the last record
	CommittedAt time.Time // when the last transaction of them committed or ended; zero if there was none
}

// Replayed asks a server that has finished recovery since its start; ErrInRecovery if it has not.
func (c *Conn) Replayed(ctx context.Context) (Replayed, error) {
	var r Replayed
	err := c.do(ctx, "asking how far recovery came", func(ctx context.Context, pg *pgx.Conn) error {
		var recovers bool
		var lsn *string
		var at *time.Time
		err := pg.QueryRow(ctx, "SELECT pg_is_in_recovery(), pg_last_wal_replay_lsn()::text, pg_last_xact_replay_timestamp()").Scan(&recovers, &lsn, &at)
		switch {
		case err != nil:
			return err
		case recovers:
			return ErrInRecovery
		case lsn == nil:
			return errors.New("it has replayed nothing since its start")
		}
		if at != nil {
			r.CommittedAt = at.UTC()
		}
		r.LSN, err = wal.ParseLSN(*lsn)
		return err
	})
	return r, err
}

// Satisfied runs a query of the user's in a transaction that can only read, with the search path of the role, and returns
// the number of rows. No row, or false or null in the first column of the first one where that is a boolean, is
// ErrUnsatisfied.
func Satisfied(ctx context.Context, cfg Config, sql string) (int64, error) {
	pc, err := cfg.parse()
	if err != nil {
		return 0, err
	}
	delete(pc.RuntimeParams, "search_path")
	pg, err := pgx.ConnectConfig(ctx, pc)
	if err != nil {
		return 0, explain("connecting to the server", pc.User, err)
	}
	defer closeSession(pg)
	var n int64
	err = pgx.BeginTxFunc(ctx, pg, pgx.TxOptions{AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, sql)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			if n++; n > 1 {
				continue
			}
			if err := holds(pg, rows); err != nil {
				return err
			}
		}
		return rows.Err()
	})
	if err == nil && n == 0 {
		err = fmt.Errorf("%w: it has no row", ErrUnsatisfied)
	}
	return n, explain("running the query", pc.User, err)
}

// holds looks at the first column of a row.
func holds(pg *pgx.Conn, rows pgx.Rows) error {
	columns := rows.FieldDescriptions()
	if len(columns) == 0 || columns[0].DataTypeOID != pgtype.BoolOID {
		return nil
	}
	var is *bool
	if err := pg.TypeMap().Scan(pgtype.BoolOID, columns[0].Format, rows.RawValues()[0], &is); err != nil {
		return err
	}
	switch {
	case is == nil:
		return fmt.Errorf("%w: it is null", ErrUnsatisfied)
	case !*is:
		return fmt.Errorf("%w: it is false", ErrUnsatisfied)
	}
	return nil
}

// ErrNoAmcheck says that the server has no amcheck to check indexes with.
var ErrNoAmcheck = errors.New("the extension amcheck is not installed on this server")

// indexQuery checks the B-trees of a database; amcheck raises an error that names the first one that is wrong.
const indexQuery = `
SELECT outrider_drill.bt_index_check(i.indexrelid)
  FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam
 WHERE a.amname = 'btree' AND c.relkind = 'i' AND c.relpersistence = 'p' AND i.indisready AND i.indisvalid`

// CheckIndexes has amcheck look at all B-tree indexes of all databases that allow connections, and returns how many were
// checked. The extension is made in a transaction that is rolled back, so a superuser is needed and nothing is left.
func (c *Conn) CheckIndexes(ctx context.Context) (int64, error) {
	var names []string
	err := c.do(ctx, "listing the databases", func(ctx context.Context, pg *pgx.Conn) error {
		rows, err := pg.Query(ctx, `SELECT datname::text FROM pg_database WHERE datallowconn AND EXISTS
			(SELECT FROM pg_available_extensions WHERE name = 'amcheck') ORDER BY 1`)
		if err != nil {
			return err
		}
		names, err = pgx.CollectRows(rows, pgx.RowTo[string])
		return err
	})
	if err != nil {
		return 0, err
	}
	if len(names) == 0 {
		return 0, ErrNoAmcheck
	}
	var n int64
	for _, name := range names {
		checked, err := c.checkIndexesOf(ctx, name)
		if n += checked; err != nil {
			return n, fmt.Errorf("checking the indexes of database %s: %w", name, err)
		}
	}
	return n, nil
}

func (c *Conn) checkIndexesOf(ctx context.Context, db string) (int64, error) {
	pg, err := c.cfg.open(ctx, db)
	if err != nil {
		return 0, err
	}
	defer closeSession(pg)
	tx, err := pg.Begin(ctx)
	if err != nil {
		return 0, err
	}
	defer func() { _ = tx.Rollback(ctx) }() // the session ends anyway
	// One that is there may be an older version, or in a schema of anybody's.
	for _, sql := range []string{"DROP EXTENSION IF EXISTS amcheck CASCADE", "CREATE SCHEMA outrider_drill", "CREATE EXTENSION amcheck SCHEMA outrider_drill"} {
		if _, err := tx.Exec(ctx, sql); err != nil {
			return 0, err
		}
	}
	tag, err := tx.Exec(ctx, indexQuery)
	return tag.RowsAffected(), err
}
