package ledger

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"
)

// settleTimeout bounds the attempt to commit what is still prepared when a Run ends: the server may be gone for good.
const settleTimeout = 5 * time.Second

// Run loads the server until ctx ends, which is not an error, and reconnects whenever the server goes away. It waits
// for a server that is not there yet. It ends with an error when the configuration or the permissions are wrong, or
// when the journal can no longer be written. A transaction under way when ctx ends is still completed.
func (l *Ledger) Run(ctx context.Context, config Config) error {
	config, err := config.withDefaults()
	if err != nil {
		return fmt.Errorf("configuration of the ledger: %w", err)
	}
	if err := l.begin(); err != nil {
		return err
	}
	defer l.end()
	limit, err := l.waitForServer(ctx, config)
	if err != nil {
		return err
	}
	if limit == 0 && config.PreparedEvery > 0 {
		config.Logger.Warn("no prepared transactions: the server has max_prepared_transactions = 0")
	}
	limiter := rate.NewLimiter(rate.Limit(config.Rate), config.Connections)
	out := &outage{log: config.Logger}
	g, workCtx := errgroup.WithContext(ctx)
	for i := range config.Connections {
		share := limit / config.Connections
		if i < limit%config.Connections {
			share++
		}
		w := &worker{ledger: l, config: config, number: i, limiter: limiter, outage: out, share: share}
		g.Go(func() error { return w.run(workCtx) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if config.PreparedEvery > 0 && limit > 0 {
		return l.settleAtEnd(context.WithoutCancel(ctx), config)
	}
	return nil
}

// Settle commits the transactions of this ledger that the server still holds prepared and says how many. Run does it
// by itself at its start and end; a server that is to be used without this ledger needs it once, because a prepared
// transaction left alone blocks vacuum.
func (l *Ledger) Settle(ctx context.Context, connString string) (int, error) {
	if err := l.begin(); err != nil {
		return 0, err
	}
	defer l.end()
	conn, err := connect(ctx, connString, "on", settleTimeout)
	if err != nil {
		return 0, err
	}
	n, err := l.settle(ctx, conn)
	return n, errors.Join(err, closeConn(conn))
}

// waitForServer makes the table, settles what an earlier session left prepared, and answers
// max_prepared_transactions. It tries again until ctx ends, unless a person has to change something first.
func (l *Ledger) waitForServer(ctx context.Context, config Config) (preparedTransactions int, err error) {
	out := &outage{log: config.Logger}
	for wait := (backoff{}); ; {
		preparedTransactions, err = l.prepareServer(ctx, config)
		if err == nil {
			out.up()
			return preparedTransactions, nil
		}
		if needsPerson(err) || errors.Is(err, errJournal) {
			return 0, err
		}
		out.down(err)
		if !wait.sleep(ctx) {
			return 0, fmt.Errorf("no server until the end of the run: %w", err)
		}
	}
}

func (l *Ledger) prepareServer(ctx context.Context, config Config) (int, error) {
	conn, err := connect(ctx, config.ConnString, "on", config.Timeout)
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, config.Timeout)
	defer cancel()
	limit, err := preparedLimit(ctx, conn)
	if err == nil {
		err = ensureTable(ctx, conn)
	}
	if err == nil {
		_, err = l.settle(ctx, conn)
	}
	return limit, errors.Join(err, closeConn(conn))
}

// settleAtEnd leaves no prepared transaction behind, if the server is still there. If not, the next Run settles them.
func (l *Ledger) settleAtEnd(ctx context.Context, config Config) error {
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	conn, err := connect(ctx, config.ConnString, "on", settleTimeout)
	if err == nil {
		_, err = l.settle(ctx, conn)
		err = errors.Join(err, closeConn(conn))
	}
	if errors.Is(err, errJournal) {
		return err
	}
	if err != nil {
		config.Logger.Warn("prepared transactions were left for the next run", "error", err)
	}
	return nil
}

// needsPerson says that trying again cannot help: the connection string, a password, a database or a right is wrong.
func needsPerson(err error) bool {
	var parse *pgconn.ParseConfigError
	if errors.As(err, &parse) {
		return true
	}
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return false
	}
	// https://www.postgresql.org/docs/current/errcodes-appendix.html: class 28 is invalid authorization, 3D000 an
	// unknown database, 42501 a missing privilege.
	return strings.HasPrefix(pg.Code, "28") || pg.Code == "3D000" || pg.Code == "42501"
}

// closeConn says goodbye; a server that is gone does not hold it up.
func closeConn(conn *pgx.Conn) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	return conn.Close(ctx)
}

// backoff is the pause between attempts: 50 ms, doubling up to one second.
type backoff struct{ next time.Duration }

// sleep pauses; false means that ctx ended.
func (b *backoff) sleep(ctx context.Context) bool {
	b.next = min(max(2*b.next, 50*time.Millisecond), time.Second)
	timer := time.NewTimer(b.next)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// outage logs once that the server went away, again every ten seconds, and once that it is back.
type outage struct {
	log *slog.Logger

	mu       sync.Mutex
	since    time.Time
	lastSaid time.Time
	failures int
}

const outageLogEvery = 10 * time.Second

func (o *outage) down(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := time.Now()
	if o.since.IsZero() {
		o.since = now
	}
	o.failures++
	if now.Sub(o.lastSaid) >= outageLogEvery {
		o.lastSaid = now
		o.log.Warn("server does not take transactions", "error", err, "failures", o.failures, "down_for", now.Sub(o.since))
	}
}

func (o *outage) up() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.since.IsZero() {
		return
	}
	o.log.Info("server takes transactions again", "failures", o.failures, "down_for", time.Since(o.since))
	o.since, o.lastSaid, o.failures = time.Time{}, time.Time{}, 0
}
