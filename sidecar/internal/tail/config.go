package tail

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"outrider.dev/sidecar/internal/wal"
)

// Server is asked for its flush position: everything before it is on its disk and never changes.
type Server interface {
	Flushed(ctx context.Context) (wal.Position, error)
}

// Config is what a Tailer needs. Dir, Size and Server are required.
type Config struct {
	Dir    string // pg_wal; may be a symbolic link
	Size   wal.SegmentSize
	Server Server
	// Interval is the least time between two answers. Default 250 ms.
	Interval time.Duration
	// Pace is asked at each answer how long it is to the next one at least, where that is more than Interval, and again
	// while that is waited for: less counts at once. nil is Interval. The first answer after a quiet time does not wait for it.
	Pace func() time.Duration
	// Floor is the longest time without asking the server while nothing seems to happen. Default 10 s.
	Floor      time.Duration
	Log        *slog.Logger          // nil for none
	Registerer prometheus.Registerer // nil for none; Tailers that follow one another share their metrics
}

func (c Config) check() (Config, error) {
	if c.Interval == 0 {
		c.Interval = 250 * time.Millisecond
	}
	if c.Floor == 0 {
		c.Floor = max(10*time.Second, c.Interval)
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	switch {
	case c.Server == nil:
		return c, errors.New("following pg_wal: no server to ask was given")
	case !c.Size.Valid():
		return c, fmt.Errorf("following pg_wal: a WAL segment cannot have %d bytes", c.Size)
	case c.Interval < 0 || c.Floor < c.Interval:
		return c, fmt.Errorf("following pg_wal: the longest time between two questions (%v) must not be below the "+
			"interval of %v", c.Floor, c.Interval)
	}
	info, err := os.Stat(c.Dir)
	if err == nil && !info.IsDir() {
		err = fmt.Errorf("%s is not a directory", c.Dir)
	}
	if err != nil {
		return c, fmt.Errorf("following pg_wal: %w", err)
	}
	return c, nil
}
