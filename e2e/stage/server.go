package stage

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5"
)

// Server is one PostgreSQL server on one data directory.
type Server struct {
	Name   string
	Data   string
	Initdb []string // further arguments of initdb
	Args   []string // of the server's command line, beside what it needs
	env    []string // further variables of those who want to reach it
	socket string
	stage  *Stage
	proc   *Process
}

// NewServer names a data directory below the stage, which need not exist yet.
func (s *Stage) NewServer(name string) (*Server, error) {
	socket, err := s.Mkdir(fmt.Sprintf("s%d", s.next()))
	if err != nil {
		return nil, err
	}
	return &Server{Name: name, Data: filepath.Join(s.Dir, name), socket: socket, stage: s}, nil
}

// Init makes a new database cluster with page checksums.
func (p *Server) Init(ctx context.Context, settings ...string) error {
	args := append([]string{"-D", p.Data, "-k", "-A", "trust", "-U", "postgres", "--no-sync", "--locale=C", "-E", "UTF8"}, p.Initdb...)
	_, err := Run(ctx, p.stage.Command(filepath.Join(p.stage.pgBin, "initdb"), args...))
	if err != nil {
		return err
	}
	// Servers are killed here all the time, and what a killed one leaves in /dev/shm nobody takes away.
	return p.Configure(append([]string{"listen_addresses = ''", "logging_collector = off", "dynamic_shared_memory_type = mmap"}, settings...)...)
}

// Configure adds lines at the end of postgresql.conf, where they win over earlier ones.
func (p *Server) Configure(lines ...string) error {
	f, err := os.OpenFile(filepath.Join(p.Data, "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(f, "\n%s\n", strings.Join(lines, "\n"))
	return errors.Join(err, f.Close())
}

// CopyFrom makes the data directory a copy of another one, on which no server runs. What was there is removed.
func (p *Server) CopyFrom(ctx context.Context, data string) error {
	if err := p.Remove(); err != nil {
		return err
	}
	_, err := Run(ctx, p.stage.Command("cp", "-a", "--reflink=auto", data, p.Data))
	return err
}

// Basebackup copies the running server into the data directory of another one.
func (p *Server) Basebackup(ctx context.Context, to *Server) error {
	c := p.stage.Command(filepath.Join(p.stage.pgBin, "pg_basebackup"), "-D", to.Data, "-c", "fast", "-X", "stream")
	c.Env = append(c.Env, p.Env()...)
	_, err := Run(ctx, c)
	return err
}

// Start starts the server, without waiting for it.
func (p *Server) Start() error {
	c := p.stage.Command(filepath.Join(p.stage.pgBin, "postgres"), append([]string{"-D", p.Data, "-k", p.socket}, p.Args...)...)
	c.Env = append(c.Env, "LC_ALL=C")
	proc, err := p.stage.Start("postgres-"+p.Name, c)
	p.proc = proc
	return err
}

// Ready waits until the server takes a write.
func (p *Server) Ready(ctx context.Context) error {
	return Until(ctx, "the first write of server "+p.Name, func() (bool, error) {
		if !p.proc.Running() {
			return false, fmt.Errorf("the server has ended: %s", p.proc.Tail(15))
		}
		return p.write(ctx) == nil, nil
	})
}

func (p *Server) write(ctx context.Context) error {
	c, err := pgx.Connect(ctx, p.ConnString())
	if err != nil {
		return err
	}
	defer c.Close(ctx)
	_, err = c.Exec(ctx, "create table if not exists outrider_first_write (at timestamptz); insert into outrider_first_write values (now())")
	return err
}

// Exec runs statements, each as a transaction of its own.
func (p *Server) Exec(ctx context.Context, statements ...string) error {
	c, err := pgx.Connect(ctx, p.ConnString())
	if err != nil {
		return err
	}
	defer c.Close(ctx)
	for _, sql := range statements {
		if _, err := c.Exec(ctx, sql); err != nil {
			return fmt.Errorf("%s: %w", sql, err)
		}
	}
	return nil
}

// Ask runs a query that answers one text.
func (p *Server) Ask(ctx context.Context, sql string) (string, error) {
	c, err := pgx.Connect(ctx, p.ConnString())
	if err != nil {
		return "", err
	}
	defer c.Close(ctx)
	var answer string
	err = c.QueryRow(ctx, sql).Scan(&answer)
	return answer, err
}

// Accepting waits until the server takes sessions, be it for reading only.
func (p *Server) Accepting(ctx context.Context) error {
	return Until(ctx, "a session of server "+p.Name, func() (bool, error) {
		if !p.proc.Running() {
			return false, fmt.Errorf("the server has ended: %s", p.proc.Tail(15))
		}
		return p.Exec(ctx) == nil, nil
	})
}

// Signal asks the server to stop, without waiting: SIGINT is a fast stop, SIGTERM a smart one, SIGQUIT an immediate one.
func (p *Server) Signal(how syscall.Signal) error {
	if err := p.proc.Signal(how); err != nil {
		return fmt.Errorf("stopping server %s: %w", p.Name, err)
	}
	return nil
}

// Stop shuts the server down and waits until it is gone.
func (p *Server) Stop(ctx context.Context, how syscall.Signal) error {
	if err := p.Signal(how); err != nil {
		return err
	}
	return p.proc.Wait(ctx)
}

// Wait waits until the server is gone.
func (p *Server) Wait(ctx context.Context) error { return p.proc.Wait(ctx) }

// Kill ends the server and its children as the loss of a machine would. Backends have process groups of their own, so
// they are found by their data directory.
func (p *Server) Kill() {
	if id, ok := SharedMemory(p.Data); ok {
		defer FreeSharedMemory(id)
	}
	children := childrenOf(p.proc.PID())
	p.proc.Kill()
	for _, pid := range children {
		_ = syscall.Kill(pid, syscall.SIGKILL) // most have noticed by themselves
	}
	for _, pid := range children {
		for syscall.Kill(pid, 0) == nil && !zombie(pid) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}

// Running tells whether the server process has not ended.
func (p *Server) Running() bool { return p.proc != nil && p.proc.Running() }

// Log is the end of the server's log.
func (p *Server) Log(n int) string { return p.proc.Tail(n) }

// ConnString is how clients reach the server.
func (p *Server) ConnString() string { return "host=" + p.socket + " user=postgres dbname=postgres" }

// Env is the environment with which libpq programs reach it.
func (p *Server) Env() []string {
	return append([]string{"PGHOST=" + p.socket, "PGUSER=postgres", "PGDATABASE=postgres", "PGDATA=" + p.Data}, p.env...)
}

// Socket is the directory of the server's socket, as PGHOST names it.
func (p *Server) Socket() string { return p.socket }

// With is the same server for programs that reach it with other variables, such as PGUSER.
func (p *Server) With(env ...string) *Server {
	other := *p
	other.env = env
	return &other
}

// Pgbench runs pgbench against the server.
func (p *Server) Pgbench(ctx context.Context, args ...string) (string, error) {
	path := filepath.Join(p.stage.pgBin, "pgbench")
	c := p.stage.Command(path, args...)
	c.Env = append(c.Env, p.Env()...)
	return Run(ctx, c)
}

// Remove deletes the data directory, as a lost disk does.
func (p *Server) Remove() error { return os.RemoveAll(p.Data) }

func childrenOf(pid int) []int {
	var out []int
	entries, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, e := range entries {
		b, err := os.ReadFile(e)
		if err != nil {
			continue
		}
		_, rest, ok := strings.Cut(string(b), ") ")
		var state string
		var parent, child int
		if _, err := fmt.Sscan(rest, &state, &parent); !ok || err != nil || parent != pid {
			continue
		}
		if _, err := fmt.Sscanf(e, "/proc/%d/stat", &child); err == nil {
			out = append(out, child)
		}
	}
	return out
}

func zombie(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return true
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	return strings.HasPrefix(rest, "Z")
}
