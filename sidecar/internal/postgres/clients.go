package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// TerminateClients ends all client sessions but this one, other sessions of ours included, and returns how many it
// ended. Walsenders and background workers stay: no shutdown waits for them. Sessions of superusers need a superuser;
// the others are ended even if those cannot be.
func (c *Conn) TerminateClients(ctx context.Context) (int, error) {
	n := 0
	err := c.do(ctx, "ending the client sessions", func(ctx context.Context, pg *pgx.Conn) (err error) {
		n, err = terminateClients(ctx, pg)
		return err
	})
	return n, err
}

func terminateClients(ctx context.Context, pg *pgx.Conn) (int, error) {
	// Whose backend_type we may not see would be passed over in silence.
	rows, err := pg.Query(ctx, `SELECT pid, backend_type IS NULL FROM pg_stat_activity
		WHERE coalesce(backend_type, 'client backend') = 'client backend' AND pid <> pg_backend_pid()`)
	if err != nil {
		return 0, err
	}
	type session struct {
		PID    int32
		Hidden bool
	}
	sessions, err := pgx.CollectRows(rows, pgx.RowToStructByPos[session])
	if err != nil {
		return 0, err
	}
	n, hidden := 0, 0
	var denied error
	for _, s := range sessions {
		if s.Hidden {
			hidden++
			continue
		}
		var sent bool
		err := pg.QueryRow(ctx, "SELECT pg_terminate_backend($1)", s.PID).Scan(&sent)
		switch {
		case codeOf(err) == codePermission:
			denied = err
		case err != nil:
			return n, err
		case sent:
			n++
		}
	}
	if hidden > 0 {
		denied = errors.Join(denied, withRemedy(fmt.Errorf("%d sessions cannot be told from background processes", hidden),
			"run as a superuser: GRANT pg_monitor TO %q", pg.Config().User))
	}
	if denied != nil {
		return n, withRemedy(denied, "run as a superuser: GRANT pg_signal_backend TO %q; sessions of superusers need a superuser",
			pg.Config().User)
	}
	return n, nil
}

// OtherClients counts the client sessions other than this one, as far as their kind may be seen (pg_monitor).
func (c *Conn) OtherClients(ctx context.Context) (int, error) {
	n := 0
	err := c.do(ctx, "counting the client sessions", func(ctx context.Context, pg *pgx.Conn) error {
		return pg.QueryRow(ctx, `SELECT count(*) FROM pg_stat_activity
			WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()`).Scan(&n)
	})
	return n, err
}

const readOnlySetting = "default_transaction_read_only"

// FenceReadOnly makes the database read-only for every session that does not ask for the contrary, ends the client
// sessions, and returns when new ones are read-only. Doing it again does no harm. A session, role or database that
// sets default_transaction_read_only itself is not held by it.
func (c *Conn) FenceReadOnly(ctx context.Context) error {
	const doing = "making the database read-only"
	if err := c.changeSettings(ctx, doing, "ALTER SYSTEM SET "+readOnlySetting+" = on"); err != nil {
		return err
	}
	if err := c.waitForDefault(ctx, "on"); err != nil {
		return explain(doing, c.user, err)
	}
	_, err := c.TerminateClients(ctx)
	return err
}

// Unfence takes FenceReadOnly back. It also takes back an ALTER SYSTEM SET default_transaction_read_only of others.
func (c *Conn) Unfence(ctx context.Context) error {
	return c.changeSettings(ctx, "making the database writable again", "ALTER SYSTEM RESET "+readOnlySetting)
}

// waitForDefault waits until new sessions begin with the value: the server reads its files again some time after
// pg_reload_conf has returned. Ours override the setting, so it is a session without overrides that has to look.
func (c *Conn) waitForDefault(ctx context.Context, want string) error {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.timeout())
	defer cancel()
	var seen string
	for {
		got, err := c.defaultReadOnly(ctx)
		switch {
		case err == nil && got == want:
			return nil
		case err == nil:
			seen = got
		case seen == "" || ctx.Err() == nil:
			return err
		}
		select {
		case <-ctx.Done():
			return withRemedy(fmt.Errorf("new sessions still begin with %s=%s", readOnlySetting, seen),
				"look for it on the server's command line, in ALTER ROLE and in ALTER DATABASE")
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (c *Conn) defaultReadOnly(ctx context.Context) (string, error) {
	pc, err := c.cfg.parse()
	if err != nil {
		return "", err
	}
	delete(pc.RuntimeParams, readOnlySetting)
	pg, err := pgx.ConnectConfig(ctx, pc)
	if err != nil {
		return "", fmt.Errorf("looking at the setting in a new session: %w", err)
	}
	defer closeSession(pg)
	var v string
	err = pg.QueryRow(ctx, "SELECT current_setting($1)", readOnlySetting).Scan(&v)
	return v, err
}
