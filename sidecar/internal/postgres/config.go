package postgres

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgconn/ctxwatch"
)

// Config says how to reach the server. The zero value is libpq's environment (PGHOST, PGUSER, PGPASSWORD, …).
type Config struct {
	// ConnString is a libpq connection string or URL; what it leaves out comes from libpq's environment.
	ConnString string
	// PasswordFile is the file that holds the password, read for each new session, so that it may change; "" leaves the
	// password to ConnString and libpq's environment. Line ends at its end are no part of it, as with the shell's $(<file),
	// with which the entry points of images read theirs.
	PasswordFile string
	// AppName is the application_name of our sessions; "" is "outrider".
	AppName string
	// Timeout bounds connecting, and each query on the pinned connection; 0 is 10 s.
	Timeout time.Duration
}

const (
	defaultAppName = "outrider"
	defaultTimeout = 10 * time.Second
	// cancelGrace is how long a server may take to answer a query that we cancelled before the session is given up.
	cancelGrace = 2 * time.Second
)

func (cfg Config) timeout() time.Duration {
	if cfg.Timeout <= 0 {
		return defaultTimeout
	}
	return cfg.Timeout
}

// sessionSettings belong to each of our sessions. They travel in the startup packet, where they win over ALTER ROLE
// and ALTER DATABASE. Each of the timeouts ends a session that has good reason to be idle or slow; the backup that such
// a session holds would be lost with it. A database that we fenced must still take orders from us.
func (cfg Config) sessionSettings() map[string]string {
	name := cfg.AppName
	if name == "" {
		name = defaultAppName
	}
	return map[string]string{
		"application_name":                    name,
		"search_path":                         "pg_catalog",
		"client_encoding":                     "UTF8",
		"idle_session_timeout":                "0",
		"idle_in_transaction_session_timeout": "0",
		"statement_timeout":                   "0",
		"lock_timeout":                        "0",
		"default_transaction_read_only":       "off",
	}
}

func (cfg Config) parse() (*pgx.ConnConfig, error) {
	pc, err := pgx.ParseConfig(cfg.ConnString)
	if err != nil {
		return nil, fmt.Errorf("reading the connection parameters of the server: %w", err)
	}
	for k, v := range cfg.sessionSettings() {
		pc.RuntimeParams[k] = v
	}
	if cfg.PasswordFile != "" {
		if pc.Password, err = readPassword(cfg.PasswordFile); err != nil {
			return nil, err
		}
	}
	pc.ConnectTimeout = cfg.timeout()
	dialer := &net.Dialer{KeepAliveConfig: net.KeepAliveConfig{
		Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 3,
	}}
	pc.DialFunc = dialer.DialContext
	// Without this a cancelled context breaks the connection, and with it the backup that the session holds.
	pc.BuildContextWatcherHandler = func(c *pgconn.PgConn) ctxwatch.Handler {
		return &pgconn.CancelRequestContextWatcherHandler{Conn: c, DeadlineDelay: cancelGrace}
	}
	return pc, nil
}

// errPassword says that the password could not be read: the server was not asked.
var errPassword = errors.New("reading the password for the server")

func readPassword(path string) (string, error) {
	b, err := os.ReadFile(path)
	if err == nil && len(b) == 0 {
		err = fmt.Errorf("%s is empty", path)
	}
	if err != nil {
		return "", withRemedy(fmt.Errorf("%w: %w", errPassword, err), "mount a file with the password of the role there, readable for user %d", os.Getuid())
	}
	return strings.TrimRight(string(b), "\r\n"), nil
}

// open makes one session, in database db unless that is "".
func (cfg Config) open(ctx context.Context, db string) (*pgx.Conn, error) {
	pc, err := cfg.parse()
	if err != nil {
		return nil, err
	}
	if db != "" {
		pc.Database = db
	}
	conn, err := pgx.ConnectConfig(ctx, pc)
	if cfg.PasswordFile != "" && codeOf(err) == codeInvalidPassword {
		err = withRemedy(err, "check that %s holds the password of role %q", cfg.PasswordFile, pc.User)
	}
	if err != nil {
		return nil, explain("connecting to the server", pc.User, err)
	}
	return conn, nil
}

// closeSession says goodbye, without waiting long for a server that may be gone.
func closeSession(conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = conn.Close(ctx) // the session is over either way
}
