package postgres

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

// ResetSettings takes the settings out of postgresql.auto.conf and has the server read its files again. Those that
// need a restart keep their value until then. Names that are not there count as reset.
func (c *Conn) ResetSettings(ctx context.Context, names ...string) error {
	var statements []string
	for _, name := range names {
		// A custom setting has a prefix, and the grammar wants the parts quoted one by one.
		statements = append(statements, "ALTER SYSTEM RESET "+pgx.Identifier(strings.Split(name, ".")).Sanitize())
	}
	return c.changeSettings(ctx, "removing settings from postgresql.auto.conf", statements...)
}

func (c *Conn) changeSettings(ctx context.Context, doing string, statements ...string) error {
	return c.do(ctx, doing, func(ctx context.Context, pg *pgx.Conn) error {
		for _, sql := range statements {
			if _, err := pg.Exec(ctx, sql); err != nil {
				return settingsRemedy(pg, fmt.Errorf("%s: %w", sql, err))
			}
		}
		_, err := pg.Exec(ctx, "SELECT pg_reload_conf()")
		return settingsRemedy(pg, err)
	})
}

func settingsRemedy(pg *pgx.Conn, err error) error {
	if codeOf(err) != codePermission {
		return err
	}
	return withRemedy(err, "connect as a superuser; on 15 or later GRANT ALTER SYSTEM ON PARAMETER <name> TO %[1]q and "+
		"GRANT EXECUTE ON FUNCTION pg_reload_conf() TO %[1]q do", pg.Config().User)
}

// Settings reads what postgresql.auto.conf says now, whether in force or not: what a restore left there, and what
// ALTER SYSTEM put there since.
func (c *Conn) Settings(ctx context.Context) (map[string]string, error) {
	all := map[string]string{}
	err := c.do(ctx, "reading postgresql.auto.conf", func(ctx context.Context, pg *pgx.Conn) error {
		rows, err := pg.Query(ctx, `SELECT name, coalesce(setting, '') FROM pg_file_settings
			WHERE sourcefile LIKE '%/postgresql.auto.conf' AND name IS NOT NULL ORDER BY seqno`)
		if err != nil {
			return err
		}
		var name, value string
		_, err = pgx.ForEachRow(rows, []any{&name, &value}, func() error {
			all[name] = value
			return nil
		})
		if codeOf(err) == codePermission {
			err = withRemedy(err, "run as a superuser: GRANT SELECT ON pg_file_settings TO %[1]q; "+
				"GRANT EXECUTE ON FUNCTION pg_show_all_file_settings() TO %[1]q", pg.Config().User)
		}
		return err
	})
	return all, err
}
