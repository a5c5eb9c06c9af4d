package ledger

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"
)

// Config says how to load a server. The zero value of each field means its default.
type Config struct {
	// ConnString is a libpq connection string or URL; what it leaves out comes from the PG* environment variables.
	ConnString string
	// Connections is the number of concurrent sessions, 4 by default.
	Connections int
	// Rate is the number of transactions per second over all connections, 100 by default. It is an upper bound.
	Rate float64
	// PayloadBytes is the size of each row's incompressible payload, 200 by default.
	PayloadBytes int
	// SynchronousCommit is the setting of the connections, in turn: {"on", "off"} makes every second connection
	// commit asynchronously. Rows of "off" are accounted apart. {"on"} by default.
	SynchronousCommit []string
	// PreparedEvery makes every n-th transaction of a connection a prepared one; 0 means none. It has no effect on a
	// server with max_prepared_transactions = 0, which is PostgreSQL's default.
	PreparedEvery int
	// PreparedHold is the time between PREPARE TRANSACTION and COMMIT PREPARED, 1 s by default.
	PreparedHold time.Duration
	// Timeout bounds connecting and each transaction, 30 s by default. A COMMIT that exceeds it is in flight.
	Timeout time.Duration
	// Logger is told when the server goes away and comes back. Nil means silence.
	Logger *slog.Logger
}

// maxPayloadBytes keeps a mistyped size from asking for gigabytes a row.
const maxPayloadBytes = 64 << 20

// withDefaults fills in what was not set and refuses what cannot work.
func (c Config) withDefaults() (Config, error) {
	defaultTo(&c.Connections, 4)
	defaultTo(&c.Rate, 100)
	defaultTo(&c.PayloadBytes, 200)
	defaultTo(&c.PreparedHold, time.Second)
	defaultTo(&c.Timeout, 30*time.Second)
	if len(c.SynchronousCommit) == 0 {
		c.SynchronousCommit = []string{"on"}
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	var errs []error
	if c.Connections < 1 || c.Connections > 1000 {
		errs = append(errs, fmt.Errorf("connections: %d is outside 1 to 1000", c.Connections))
	}
	if c.Rate < 0 || c.PreparedEvery < 0 || c.PreparedHold < 0 || c.Timeout < 0 {
		errs = append(errs, errors.New("rate, prepared-every, prepared-hold and timeout must not be negative"))
	}
	if c.PayloadBytes < 1 || c.PayloadBytes > maxPayloadBytes {
		errs = append(errs, fmt.Errorf("payload: %d bytes is outside 1 to %d", c.PayloadBytes, maxPayloadBytes))
	}
	for _, s := range c.SynchronousCommit {
		if !slices.Contains([]string{"on", "off", "local", "remote_write", "remote_apply"}, s) {
			errs = append(errs, fmt.Errorf("synchronous_commit: %q is none of on, off, local, remote_write, remote_apply", s))
		}
	}
	return c, errors.Join(errs...)
}

func defaultTo[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}
