package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"outrider.dev/sidecar/internal/wal"
)

// backupLock is the key of the advisory lock that a snapshot holds: "outrider" in ASCII.
const backupLock int64 = 0x6F75747269646572

// backupFunctions are the statements of backup mode, which got other names in 15. In 14 the third argument has to say
// that the backup is not exclusive: an exclusive one survives its session, and a crash then needs a person.
type backupFunctions struct {
	major       int
	start, stop string
}

func backupFunctionsOf(ctx context.Context, pg *pgx.Conn) (backupFunctions, error) {
	var version int
	err := pg.QueryRow(ctx, "SELECT current_setting('server_version_num')::int").Scan(&version)
	if err != nil {
		return backupFunctions{}, err
	}
	// Both fields of the label are text; what the WAL archiver of the server does is none of our business.
	f := backupFunctions{
		major: version / 10000,
		start: "SELECT pg_backup_start($1, true)::text",
		stop:  "SELECT lsn::text, labelfile, spcmapfile FROM pg_backup_stop(false)",
	}
	if f.major < 15 {
		f.start = "SELECT pg_start_backup($1, true, false)::text"
		f.stop = "SELECT lsn::text, labelfile, spcmapfile FROM pg_stop_backup(false, false)"
	}
	return f, nil
}

func (f backupFunctions) grant(user string) string {
	if f.major < 15 {
		return fmt.Sprintf("GRANT EXECUTE ON FUNCTION pg_start_backup(text, boolean, boolean), "+
			"pg_stop_backup(boolean, boolean) TO %q", user)
	}
	return fmt.Sprintf("GRANT EXECUTE ON FUNCTION pg_backup_start(text, boolean), pg_backup_stop(boolean) TO %q", user)
}

func (f backupFunctions) checkpointGrant(user string) string {
	if f.major < 15 {
		return ""
	}
	return fmt.Sprintf("GRANT pg_checkpoint TO %q, or ", user)
}

// BackupSession is the session in which the server is in backup mode. The mode ends with the session, whatever ends it,
// and what was copied until then is worth nothing. It is for one goroutine at a time.
type BackupSession struct {
	pg    *pgx.Conn
	f     backupFunctions
	user  string
	start wal.Position
}

// BackupEnd is what pg_backup_stop returns.
type BackupEnd struct {
	Stop          wal.LSN // the backup is consistent once WAL up to here is replayed
	Label         string  // the content of the file backup_label
	TablespaceMap string  // the content of the file tablespace_map; "" without tablespaces
}

// BeginBackup brings the server into backup mode, on a session of its own, after a checkpoint that is made at full
// speed. ErrBackupRunning if another session of ours is in it already, ErrInRecovery on a standby.
func BeginBackup(ctx context.Context, cfg Config, label string) (*BackupSession, error) {
	const doing = "entering backup mode"
	pg, err := cfg.open(ctx, "")
	if err != nil {
		return nil, explain(doing, "", err)
	}
	s := &BackupSession{pg: pg, user: pg.Config().User}
	if err := s.begin(ctx, label); err != nil {
		s.Abort()
		return nil, explain(doing, s.user, err)
	}
	return s, nil
}

func (s *BackupSession) begin(ctx context.Context, label string) error {
	var recovery, locked bool
	err := s.pg.QueryRow(ctx, "SELECT pg_is_in_recovery(), pg_try_advisory_lock($1)", backupLock).Scan(&recovery, &locked)
	switch {
	case err != nil:
		return err
	case recovery:
		return ErrInRecovery
	case !locked:
		return ErrBackupRunning
	}
	if s.f, err = backupFunctionsOf(ctx, s.pg); err != nil {
		return err
	}
	var start, walFile string
	err = s.pg.QueryRow(ctx, s.f.start, label).Scan(&start)
	switch codeOf(err) {
	case codePermission:
		return withRemedy(err, "run as a superuser: %s", s.f.grant(s.user))
	case codeNotInState:
		return withRemedy(err, "set wal_level=replica and restart the server")
	}
	if err != nil {
		return err
	}
	if s.start.LSN, err = wal.ParseLSN(start); err != nil {
		return err
	}
	if err := s.pg.QueryRow(ctx, "SELECT pg_walfile_name($1::text::pg_lsn)", start).Scan(&walFile); err != nil {
		return err
	}
	s.start.Timeline, err = timelineOf(walFile)
	return err
}

// Start is where the WAL begins that the backup needs.
func (s *BackupSession) Start() wal.Position { return s.start }

// InsertLSN asks how far the WAL reaches now. No page in a data file can be newer. An error means that the backup is
// lost with its session.
func (s *BackupSession) InsertLSN(ctx context.Context) (wal.LSN, error) {
	p, err := askPosition(ctx, s.pg)
	return p.Insert, s.explain("asking for the WAL position during a snapshot", err)
}

// Stop leaves backup mode and ends the session. It does not wait for the server's own archiving, which may never
// succeed: seeing to it that the WAL up to BackupEnd.Stop is safe is up to the caller.
func (s *BackupSession) Stop(ctx context.Context) (BackupEnd, error) {
	defer s.Abort()
	var end BackupEnd
	var stop string
	err := s.pg.QueryRow(ctx, s.f.stop).Scan(&stop, &end.Label, &end.TablespaceMap)
	if err == nil {
		end.Stop, err = wal.ParseLSN(stop)
	}
	if err == nil && end.Label == "" {
		err = errors.New("the server returned an empty backup label")
	}
	return end, s.explain("leaving backup mode", err)
}

// Abort ends the session, and backup mode with it if Stop has not. It may be called more than once.
func (s *BackupSession) Abort() {
	if !s.pg.IsClosed() {
		// The server ends a session some time after we have left; the next attempt need not wait for that.
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_, _ = s.pg.Exec(ctx, "SELECT pg_advisory_unlock($1)", backupLock)
	}
	closeSession(s.pg)
}

func (s *BackupSession) explain(doing string, err error) error {
	if err != nil && s.pg.IsClosed() {
		err = fmt.Errorf("%w: %w", ErrConnectionLost, err)
	}
	return explain(doing, s.user, err)
}
