package postgres

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"
)

// Checkpoint has the server write all dirty pages, and returns when that is done, which may take long. It uses a
// session of its own. Without the right to CHECKPOINT it starts and stops a backup, which includes one; on a standby
// the CHECKPOINT is a restartpoint and that way out does not exist.
func (c *Conn) Checkpoint(ctx context.Context) error {
	const doing = "having the server make a checkpoint"
	pg, err := c.cfg.open(ctx, "")
	if err != nil {
		return explain(doing, c.user, err)
	}
	defer closeSession(pg)
	_, err = pg.Exec(ctx, "CHECKPOINT")
	if codeOf(err) == codePermission {
		err = checkpointByBackup(ctx, pg, err)
	}
	return explain(doing, c.user, err)
}

func checkpointByBackup(ctx context.Context, pg *pgx.Conn, denied error) error {
	f, err := backupFunctionsOf(ctx, pg)
	if err != nil {
		return err
	}
	_, err = pg.Exec(ctx, f.start, "outrider checkpoint")
	if codeOf(err) == codePermission {
		return withRemedy(errors.Join(denied, err), "run as a superuser: %s%s", f.checkpointGrant(pg.Config().User),
			f.grant(pg.Config().User))
	}
	if err != nil {
		return err
	}
	_, err = pg.Exec(ctx, f.stop)
	return err
}
