package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// Catalog is what a restored database needs to find on its new machine.
type Catalog struct {
	Extensions map[string]string // "database/extension" to its version
	Collations map[string]string // database to the version of its default collation, where it has one
	// Databases tells all databases apart, also those that had the same object id one after the other: by that id, the
	// transaction that wrote the row of pg_database.
	Databases map[uint32]string
}

// Catalog looks into all databases that allow connections, one after the other with short sessions. It returns what it
// found together with an error about what it could not look into.
func (c *Conn) Catalog(ctx context.Context) (Catalog, error) {
	cat := Catalog{Extensions: map[string]string{}, Collations: map[string]string{}, Databases: map[uint32]string{}}
	var names []string
	err := c.do(ctx, "listing the databases", func(ctx context.Context, pg *pgx.Conn) error {
		rows, err := pg.Query(ctx, "SELECT oid, xmin::text, datname::text, datallowconn FROM pg_database ORDER BY datname")
		if err != nil {
			return err
		}
		var oid uint32
		var written, name string
		var open bool
		_, err = pgx.ForEachRow(rows, []any{&oid, &written, &name, &open}, func() error {
			cat.Databases[oid] = written
			if open {
				names = append(names, name)
			}
			return nil
		})
		return err
	})
	if err != nil {
		return cat, err
	}
	var errs []error
	for _, name := range names {
		if err := c.lookInto(ctx, name, cat); err != nil {
			errs = append(errs, fmt.Errorf("looking for extensions and collations in database %s: %w", name, err))
		}
		if ctx.Err() != nil {
			break
		}
	}
	return cat, errors.Join(errs...)
}

// Up to 14 a database does not record the version of its collation; that of a collation with the same locale is it.
const collationQuery = `
SELECT coalesce(pg_database_collation_actual_version(oid), '') FROM pg_database WHERE datname = current_database()`

const collationQuery14 = `
SELECT coalesce((SELECT pg_collation_actual_version(c.oid) FROM pg_collation c
                  WHERE c.collprovider = 'c' AND c.collcollate = d.datcollate
                    AND c.collencoding IN (-1, d.encoding) LIMIT 1), '')
  FROM pg_database d WHERE datname = current_database()`

func (c *Conn) lookInto(ctx context.Context, db string, cat Catalog) error {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.timeout())
	defer cancel()
	pg, err := c.cfg.open(ctx, db)
	if err != nil {
		return err
	}
	defer closeSession(pg)
	rows, err := pg.Query(ctx, "SELECT extname::text, extversion FROM pg_extension")
	if err != nil {
		return err
	}
	var name, version string
	_, err = pgx.ForEachRow(rows, []any{&name, &version}, func() error {
		cat.Extensions[db+"/"+name] = version
		return nil
	})
	if err != nil {
		return err
	}
	query := collationQuery
	if f, err := backupFunctionsOf(ctx, pg); err != nil {
		return err
	} else if f.major < 15 {
		query = collationQuery14
	}
	if err := pg.QueryRow(ctx, query).Scan(&version); err != nil {
		return err
	}
	if version != "" {
		cat.Collations[db] = version
	}
	return nil
}
