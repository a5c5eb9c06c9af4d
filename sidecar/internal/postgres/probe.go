package postgres

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5/pgconn"
)

// State is how a server answers a new session.
type State int

// The states that Probe tells apart.
const (
	Unknown                State = iota // no answer, or none that tells
	Accepting                           // the session was made
	StartingUp                          // starts, or recovers from a crash
	InRecoveryNoHotStandby              // replays, and serves nobody until it is done
	ShuttingDown                        // goes down
	NotNow                              // one of the three above; without the data directory it cannot be told which
	Refused                             // nobody listens
	TooManyConnections                  // runs, all places are taken
	AuthFailed                          // runs, and rejects the role or its password; or the password cannot be read
)

// String is the state in words.
func (s State) String() string {
	names := [...]string{
		"unknown", "accepting", "starting up", "in recovery without hot standby", "shutting down",
		"not accepting now", "refused", "too many connections", "authentication failed",
	}
	if s < 0 || int(s) >= len(names) {
		return fmt.Sprintf("state %d", int(s))
	}
	return names[s]
}

// Probe makes a new session and ends it at once, to see how the server answers. The three reasons for "not now" share
// one SQLSTATE (57P03) and their words depend on lc_messages; postmaster.pid in dataDir tells them apart. With dataDir
// "" the English words do, and other words are NotNow. The error is what the state was made from, nil for Accepting.
func Probe(ctx context.Context, cfg Config, dataDir string) (State, error) {
	conn, err := cfg.open(ctx, "")
	if err == nil {
		closeSession(conn)
		return Accepting, nil
	}
	switch code := codeOf(err); {
	case code == codeCannotConnectNow:
		return notNow(err, dataDir), err
	case code == codeTooMany:
		return TooManyConnections, err
	case code == codeNoSuchDatabase || IsPermission(err) || errors.Is(err, errPassword):
		return AuthFailed, err
	case code != "":
		return Unknown, err
	case errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, fs.ErrNotExist):
		return Refused, err
	}
	return Unknown, err
}

func notNow(err error, dataDir string) State {
	if dataDir != "" {
		switch status, serr := PostmasterStatus(dataDir); {
		case serr != nil:
		case status == StatusStopping:
			return ShuttingDown
		case status == StatusStandby:
			return InRecoveryNoHotStandby
		case status == StatusStarting, status == StatusReady:
			// A server that is ready answers so while it recovers from the crash of one of its processes.
			return StartingUp
		}
	}
	var pe *pgconn.PgError
	if !errors.As(err, &pe) {
		return NotNow
	}
	switch text := pe.Message + " " + pe.Detail; {
	case strings.Contains(text, "shutting down"):
		return ShuttingDown
	case strings.Contains(text, "Hot standby mode is disabled"):
		return InRecoveryNoHotStandby
	case strings.Contains(text, "starting up"), strings.Contains(text, "recovery mode"):
		return StartingUp
	}
	return NotNow
}
