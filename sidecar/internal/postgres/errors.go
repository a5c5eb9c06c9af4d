package postgres

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// Errors that callers act on.
var (
	// ErrInRecovery says that the server is a standby, or still replays: it has no WAL of its own.
	ErrInRecovery = errors.New("the server is in recovery")
	// ErrSlotLost says that the server removed WAL that the slot was to keep: there may be a gap, and the slot has to
	// be dropped and made anew.
	ErrSlotLost = errors.New("the replication slot has lost its WAL")
	// ErrConnectionLost says that a session ended. That is no proof that the server stopped.
	ErrConnectionLost = errors.New("the connection to the server is lost")
	// ErrBackupRunning says that another session of ours takes a snapshot of this server.
	ErrBackupRunning = errors.New("another snapshot of this server is under way")
)

// SQLSTATEs (appendix A of the PostgreSQL documentation, src/backend/utils/errcodes.txt).
const (
	codeInvalidParameter  = "22023"
	codeNotInState        = "55000" // object_not_in_prerequisite_state
	codeInUse             = "55006"
	codeUndefinedObject   = "42704"
	codePermission        = "42501"
	codeInvalidAuth       = "28000"
	codeInvalidPassword   = "28P01"
	codeNoSuchDatabase    = "3D000"
	codeTooMany           = "53300"
	codeLimit             = "53400" // configuration_limit_exceeded
	codeAdminShutdown     = "57P01"
	codeCrashShutdown     = "57P02"
	codeCannotConnectNow  = "57P03"
	codeIdleSessionEnded  = "57P05"
	codeIdleTransactEnded = "25P03"
)

func codeOf(err error) string {
	var pe *pgconn.PgError
	if errors.As(err, &pe) {
		return pe.Code
	}
	return ""
}

// IsShuttingDown tells whether the server ended the session or refused a new one in the way it does when it goes down.
// It does the same when an administrator ends the session (57P01) and while it starts (57P03): ask Probe to be sure.
func IsShuttingDown(err error) bool {
	return slices.Contains([]string{codeAdminShutdown, codeCrashShutdown, codeCannotConnectNow}, codeOf(err))
}

// IsConnectionLost tells whether the session is gone, for whatever reason: a new one may work.
func IsConnectionLost(err error) bool {
	code := codeOf(err)
	var ne *net.OpError
	return errors.Is(err, ErrConnectionLost) || errors.Is(err, pgconn.ErrConnClosed) || errors.As(err, &ne) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || strings.HasPrefix(code, "08") ||
		slices.Contains([]string{codeAdminShutdown, codeCrashShutdown, codeIdleSessionEnded, codeIdleTransactEnded}, code)
}

// IsPermission tells whether a right is missing: no retry helps until somebody grants it.
func IsPermission(err error) bool {
	return errors.Is(err, fs.ErrPermission) ||
		slices.Contains([]string{codePermission, codeInvalidAuth, codeInvalidPassword}, codeOf(err))
}

// NeedsPerson tells whether the server will go on refusing until somebody changes a right or a setting.
func NeedsPerson(err error) bool {
	var known *remedied
	return IsPermission(err) || errors.As(err, &known) && codeOf(err) != codeTooMany
}

// remedied is an error with what to do about it.
type remedied struct {
	err    error
	remedy string
}

func (e *remedied) Error() string { return e.err.Error() + ": " + e.remedy }
func (e *remedied) Unwrap() error { return e.err }

func withRemedy(err error, format string, args ...any) error {
	return &remedied{err: err, remedy: fmt.Sprintf(format, args...)}
}

// explain wraps err with what was being done, and with the remedies that depend on nothing else. Callers that know a
// better one add it before.
func explain(doing, user string, err error) error {
	if err == nil {
		return nil
	}
	var known *remedied
	if !errors.As(err, &known) {
		switch codeOf(err) {
		case codeInvalidAuth:
			err = withRemedy(err, "allow role %q to connect in pg_hba.conf, and check that it exists and has LOGIN", user)
		case codeInvalidPassword:
			err = withRemedy(err, "check PGPASSWORD of role %q", user)
		case codeNoSuchDatabase:
			err = withRemedy(err, "set PGDATABASE to a database that exists, such as postgres")
		case codeTooMany:
			err = withRemedy(err, "raise max_connections or the connection limits; on 16 or later GRANT "+
				"pg_use_reserved_connections TO %q keeps a place", user)
		case codePermission:
			err = withRemedy(err, "run as a superuser: GRANT pg_monitor TO %[1]q; ALTER ROLE %[1]q REPLICATION", user)
		}
	}
	return fmt.Errorf("%s: %w", doing, err)
}
