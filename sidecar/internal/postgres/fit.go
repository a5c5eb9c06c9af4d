package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"
)

// Misfit is something in a database that the machine does not have as the database expects it.
type Misfit struct {
	Database string
	Name     string   // of the extension or collation; "" for the database's default collation
	Was      string   // the version that is recorded
	Now      []string // the versions that this machine has
}

// Fit is how databases and machine go together.
type Fit struct {
	Collations []Misfit // of which indexes were built with another version: their order may be wrong
	Extensions []Misfit // whose version has no files here
}

// Fit looks into all databases that allow connections, one after the other with short sessions. It returns what it found
// together with an error about what it could not look into.
func (c *Conn) Fit(ctx context.Context) (Fit, error) {
	var f Fit
	var names []string
	err := c.do(ctx, "listing the databases", func(ctx context.Context, pg *pgx.Conn) error {
		rows, err := pg.Query(ctx, "SELECT datname::text FROM pg_database WHERE datallowconn ORDER BY datname")
		if err != nil {
			return err
		}
		names, err = pgx.CollectRows(rows, pgx.RowTo[string])
		return err
	})
	if err != nil {
		return f, err
	}
	var errs []error
	for _, name := range names {
		if err := c.fitOf(ctx, name, &f); err != nil {
			errs = append(errs, fmt.Errorf("looking whether database %s and this machine go together: %w", name, err))
		}
		if ctx.Err() != nil {
			break
		}
	}
	return f, errors.Join(errs...)
}

// Only collations that an index uses matter. That of the database itself is recorded since 15.
const (
	usedCollationQuery = `
SELECT c.collname::text, c.collversion, ARRAY[pg_collation_actual_version(c.oid)] FROM pg_collation c
 WHERE c.oid IN (SELECT unnest(indcollation) FROM pg_index)
   AND c.collversion <> pg_collation_actual_version(c.oid)`
	databaseCollationQuery = `
SELECT '', datcollversion, ARRAY[pg_database_collation_actual_version(oid)] FROM pg_database
 WHERE datname = current_database() AND datcollversion <> pg_database_collation_actual_version(oid)`
	extensionQuery = `
SELECT e.extname::text, e.extversion, ARRAY(SELECT v.version FROM pg_available_extension_versions v WHERE v.name = e.extname ORDER BY 1)
  FROM pg_extension e`
)

func (c *Conn) fitOf(ctx context.Context, db string, f *Fit) error {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.timeout())
	defer cancel()
	pg, err := c.cfg.open(ctx, db)
	if err != nil {
		return err
	}
	defer closeSession(pg)
	extensions, err := misfits(ctx, pg, db, extensionQuery)
	if err != nil {
		return err
	}
	f.Extensions = append(f.Extensions, slices.DeleteFunc(extensions, func(m Misfit) bool { return slices.Contains(m.Now, m.Was) })...)
	queries := []string{usedCollationQuery}
	if v, err := backupFunctionsOf(ctx, pg); err != nil {
		return err
	} else if v.major >= 15 {
		queries = append(queries, databaseCollationQuery)
	}
	for _, query := range queries {
		found, err := misfits(ctx, pg, db, query)
		if err != nil {
			return err
		}
		f.Collations = append(f.Collations, found...)
	}
	return nil
}

func misfits(ctx context.Context, pg *pgx.Conn, db, query string) ([]Misfit, error) {
	rows, err := pg.Query(ctx, query)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (Misfit, error) {
		m := Misfit{Database: db}
		err := row.Scan(&m.Name, &m.Was, &m.Now)
		return m, err
	})
}
