package pgtest

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Options say which server a test wants. The zero value is the newest available major with the default settings.
type Options struct {
	// Major is the PostgreSQL major, 0 for the newest available. Open takes it from PG_VERSION when it is 0.
	Major int
	// Settings are appended to postgresql.conf, where ALTER SYSTEM (postgresql.auto.conf) still overrides them.
	Settings map[string]string
	// InitdbArgs are further arguments of initdb, such as "-k" or "--wal-segsize=1". Not used by Open.
	InitdbArgs []string
	// Dir is the data directory that Start makes; "" for one in a temporary directory.
	Dir string
	// Stopped leaves the server down; Server.Start or Server.TryStart bring it up.
	Stopped bool
	// StartTimeout is how long a start may take until connections are accepted, recovery included. Default 60 s.
	StartTimeout time.Duration
}

// StopMode is a way to shut down a server, as pg_ctl names them.
type StopMode string

// The three shutdowns of PostgreSQL and how they treat open sessions.
const (
	Smart     StopMode = "smart"     // waits for sessions to end
	Fast      StopMode = "fast"      // ends them, then checkpoints
	Immediate StopMode = "immediate" // no checkpoint: recovery at the next start
)

const (
	superuser   = "postgres"
	port        = 5432 // sockets lie in a directory of their own, so all servers share one number
	stopTimeout = 60 * time.Second
)

// Server is one PostgreSQL server of one test. Its methods fail the test on any error, with the end of the server's
// log, unless they return one. Starting and stopping is for one goroutine at a time; all else is safe for several.
type Server struct {
	Major     int
	DataDir   string
	SocketDir string // also libpq's "host"
	Port      int

	t       testing.TB
	opt     Options
	bin     string
	logPath string

	life *life
}

// life is what all views of one server share.
type life struct {
	mu   sync.Mutex
	proc *process // nil while stopped
}

// For is the same server for a subtest, which then is the one that fails.
func (s *Server) For(t testing.TB) *Server {
	view := *s
	view.t = t
	return &view
}

// Start makes a new database cluster (locale C, superuser "postgres", trust) and starts a server on it.
func Start(t testing.TB, opt Options) *Server {
	t.Helper()
	if opt.Major == 0 {
		opt.Major = newestMajor(t)
	}
	s := newServer(t, opt)
	s.initdb()
	s.configure()
	if !opt.Stopped {
		s.Start()
	}
	return s
}

// Open starts a server on an existing data directory, such as a restored one. The directory is handed to the user
// that runs the server and stays where it is when the test ends.
func Open(t testing.TB, dir string, opt Options) *Server {
	t.Helper()
	opt.Dir = dir
	if opt.Major == 0 {
		b, err := os.ReadFile(filepath.Join(dir, "PG_VERSION"))
		if err != nil {
			t.Fatalf("opening a data directory: %v", err)
		}
		if opt.Major, err = strconv.Atoi(strings.TrimSpace(string(b))); err != nil {
			t.Fatalf("opening %s: PG_VERSION says %q", dir, b)
		}
	}
	s := newServer(t, opt)
	if err := giveDataDir(dir); err != nil {
		t.Fatal(err)
	}
	s.configure()
	if !opt.Stopped {
		s.Start()
	}
	return s
}

func newServer(t testing.TB, opt Options) *Server {
	t.Helper()
	if opt.StartTimeout == 0 {
		opt.StartTimeout = 60 * time.Second
	}
	bin := Binaries(t, opt.Major)
	// t.TempDir contains the test's name and can exceed the 107 bytes that a socket's path may have.
	base, err := os.MkdirTemp("", "pg")
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{
		Major: opt.Major, DataDir: opt.Dir, SocketDir: filepath.Join(base, "s"), Port: port,
		t: t, opt: opt, bin: bin, logPath: filepath.Join(base, "log"), life: &life{},
	}
	t.Cleanup(func() { s.cleanup(base) })
	if s.DataDir == "" {
		s.DataDir = filepath.Join(base, "data")
	}
	if s.DataDir, err = filepath.Abs(s.DataDir); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{s.SocketDir, s.DataDir} {
		if err := makeOwnDir(dir); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func (s *Server) initdb() {
	s.t.Helper()
	args := []string{
		"-D", s.DataDir, "-U", superuser, "-A", "trust", "-E", "UTF8", "--locale=C",
		"--no-sync", // the server syncs what tests rely on
	}
	cmd := s.Command("initdb", append(args, s.opt.InitdbArgs...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		s.t.Fatalf("initdb of PostgreSQL %d: %v\n%s", s.Major, err, out)
	}
}

func (s *Server) configure() {
	s.t.Helper()
	if len(s.opt.Settings) == 0 {
		return
	}
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(s.opt.Settings)) {
		fmt.Fprintf(&b, "%s = '%s'\n", k, strings.ReplaceAll(s.opt.Settings[k], "'", "''"))
	}
	f, err := os.OpenFile(filepath.Join(s.DataDir, "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		s.t.Fatalf("writing settings: %v", err)
	}
	_, err = f.WriteString(b.String())
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		s.t.Fatalf("writing settings: %v", err)
	}
}

// Start starts the stopped server and waits until it accepts connections.
func (s *Server) Start() {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.t.Context()), s.opt.StartTimeout)
	defer cancel()
	if err := s.TryStart(ctx); err != nil {
		s.t.Fatalf("starting PostgreSQL %d: %v\n%s", s.Major, err, s.logTail())
	}
}

// Stop shuts the server down and waits for its end.
func (s *Server) Stop(mode StopMode) {
	s.t.Helper()
	signals := map[StopMode]syscall.Signal{
		Smart: syscall.SIGTERM, Fast: syscall.SIGINT, Immediate: syscall.SIGQUIT,
	}
	sig, ok := signals[mode]
	if !ok {
		s.t.Fatalf("stopping PostgreSQL: there is no mode %q", mode)
	}
	s.Signal(sig)
	s.WaitExit(stopTimeout)
}

// Restart is Stop(Fast) and Start.
func (s *Server) Restart() {
	s.t.Helper()
	s.Stop(Fast)
	s.Start()
}

// Log is what the server has written to its log since Start or Open.
func (s *Server) Log() string {
	b, err := os.ReadFile(s.logPath)
	if err != nil && !os.IsNotExist(err) {
		return err.Error()
	}
	return string(b)
}

func (s *Server) logTail() string {
	const lines = 40
	all := strings.Split(strings.TrimSpace(s.Log()), "\n")
	return "end of the server's log:\n" + strings.Join(all[max(0, len(all)-lines):], "\n")
}

func (s *Server) cleanup(base string) {
	if p := s.process(); p != nil {
		s.kill(p)
	}
	if s.t.Failed() {
		s.t.Logf("PostgreSQL %d in %s: %s", s.Major, s.DataDir, s.logTail())
	}
	if err := os.RemoveAll(base); err != nil {
		s.t.Errorf("removing a server's directories: %v", err)
	}
}
