package pgtest

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
)

// ConnString is a libpq connection string for a database of the server; "" is "postgres".
func (s *Server) ConnString(db string) string {
	if db == "" {
		db = "postgres"
	}
	return fmt.Sprintf("host=%s port=%d user=%s dbname='%s' sslmode=disable", s.SocketDir, s.Port, superuser, db)
}

// Env is the same as environment variables, with PGDATA, for programs that are started with it.
func (s *Server) Env() []string {
	return []string{
		"PGHOST=" + s.SocketDir, "PGPORT=" + strconv.Itoa(s.Port), "PGUSER=" + superuser, "PGDATABASE=postgres",
		"PGPASSWORD=", "PGSSLMODE=disable", "PGDATA=" + s.DataDir,
	}
}

// Connect opens a session that the caller closes. It is safe in any goroutine.
func (s *Server) Connect(ctx context.Context) (*pgx.Conn, error) {
	return pgx.Connect(ctx, s.ConnString(""))
}

// Conn opens a session that is closed when the test ends.
func (s *Server) Conn() *pgx.Conn {
	s.t.Helper()
	conn, err := s.Connect(s.t.Context())
	if err != nil {
		s.t.Fatalf("connecting to the server: %v\n%s", err, s.logTail())
	}
	s.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = conn.Close(ctx) // the server may be gone, which is the test's business
	})
	return conn
}

// Exec runs statements one after the other on a session of their own, which leaves none open: an open session holds
// up a smart shutdown.
func (s *Server) Exec(statements ...string) {
	s.t.Helper()
	s.session(func(ctx context.Context, conn *pgx.Conn) {
		for _, sql := range statements {
			if _, err := conn.Exec(ctx, sql); err != nil {
				s.t.Fatalf("%s: %v", sql, err)
			}
		}
	})
}

// Query is the single value that a query returns, on a session of its own.
func Query[T any](s *Server, sql string, args ...any) T {
	s.t.Helper()
	var v T
	s.session(func(ctx context.Context, conn *pgx.Conn) {
		if err := conn.QueryRow(ctx, sql, args...).Scan(&v); err != nil {
			s.t.Fatalf("%s: %v", sql, err)
		}
	})
	return v
}

// QueryAll is the first column of all rows that a query returns, on a session of its own.
func QueryAll[T any](s *Server, sql string, args ...any) []T {
	s.t.Helper()
	var all []T
	s.session(func(ctx context.Context, conn *pgx.Conn) {
		rows, err := conn.Query(ctx, sql, args...)
		if err == nil {
			all, err = pgx.CollectRows(rows, pgx.RowTo[T])
		}
		if err != nil {
			s.t.Fatalf("%s: %v", sql, err)
		}
	})
	return all
}

func (s *Server) session(do func(context.Context, *pgx.Conn)) {
	s.t.Helper()
	ctx := s.t.Context()
	conn, err := s.Connect(ctx)
	if err != nil {
		s.t.Fatalf("connecting to the server: %v\n%s", err, s.logTail())
	}
	defer conn.Close(ctx)
	do(ctx, conn)
}
