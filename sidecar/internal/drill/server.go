package drill

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Config says which server runs where. All but the user is required.
type Config struct {
	Program string // the server's own: postgres
	DataDir string
	// Dir is an empty directory for the socket, the log and the files of access; nobody but the server's user sees into it.
	Dir string
	// UID and GID are those of the server, where we are root; else they are not looked at.
	UID, GID int
}

// Port is that of the server's socket. It listens on no other.
const Port = 5432

// maxSocketPath is the room for a path in struct sockaddr_un of Linux, less its closing zero (unix(7)).
const maxSocketPath = 107

// patience is how long a server may take to stop in good order before it is killed.
const patience = time.Minute

// settings win over those of all files that came with the data directory, which name places, secrets, peers and sizes of
// another machine. All of them exist since PostgreSQL 14.
func (c Config) settings() []string {
	return []string{
		"data_directory=" + c.DataDir, "external_pid_file=",
		"hba_file=" + c.path(hbaFile), "ident_file=" + c.path(identFile),
		"listen_addresses=", "port=5432", "unix_socket_directories=" + c.Dir, "unix_socket_group=", "unix_socket_permissions=0700", "ssl=off",
		// Neither WAL nor anything else leaves this server, and nobody waits for it.
		"archive_mode=off", "synchronous_standby_names=", "primary_conninfo=", "max_wal_senders=0",
		// No jobs of extensions, and no subscriptions: they would work with the slots of the original's publishers.
		"max_worker_processes=0", "max_logical_replication_workers=0", "autovacuum=off",
		"default_transaction_read_only=on",
		"shared_buffers=128MB", "huge_pages=off", "fsync=off",
		"logging_collector=off", "log_destination=stderr",
	}
}

const (
	configFile = "postgresql.conf"
	hbaFile    = "pg_hba.conf"
	identFile  = "pg_ident.conf"
	logFile    = "server.log"
)

func (c Config) path(name string) string { return filepath.Join(c.Dir, name) }

// Server is one that was started. Stop has to be called.
type Server struct {
	config Config
	cmd    *exec.Cmd
	exited chan struct{} // closed when it has ended, and err is set
	err    error
}

// Start starts the server and does not wait for it: it recovers first.
func Start(c Config) (*Server, error) {
	socket := c.path(fmt.Sprintf(".s.PGSQL.%d", Port))
	if len(socket) > maxSocketPath {
		return nil, fmt.Errorf("starting a server: the path of its socket, %s, is longer than %d bytes: use a directory with a shorter path", socket, maxSocketPath)
	}
	if err := hide(); err != nil {
		return nil, err
	}
	args, err := c.prepare()
	if err != nil {
		return nil, fmt.Errorf("preparing a server: %w", err)
	}
	log, err := os.OpenFile(c.path(logFile), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("preparing a server: %w", err)
	}
	defer log.Close() // the server has its own
	s := &Server{config: c, exited: make(chan struct{})}
	// Not bound to a context: it is stopped in good order, see Stop.
	s.cmd = exec.Command(c.Program, args...) //nolint:noctx // see above
	s.cmd.Stdout, s.cmd.Stderr, s.cmd.Dir, s.cmd.Env = log, log, c.DataDir, environment(os.Environ())
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a Ctrl-C is for us, not for it
	if os.Geteuid() == 0 {
		s.cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(c.UID), Gid: uint32(c.GID)}
	}
	if err := s.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", c.Program, err)
	}
	go func() {
		defer close(s.exited)
		s.err = s.cmd.Wait()
	}()
	return s, nil
}

// prepare writes the files of access and returns the server's arguments.
func (c Config) prepare() ([]string, error) {
	files := map[string]string{hbaFile: "local all all trust\n", identFile: ""}
	settings := c.settings()
	_, err := os.Stat(filepath.Join(c.DataDir, configFile))
	if errors.Is(err, fs.ErrNotExist) { // it lies elsewhere on the original's machine
		files[configFile] = ""
		settings = append(settings, "config_file="+c.path(configFile))
	} else if err != nil {
		return nil, err
	}
	for name, content := range files {
		if err := os.WriteFile(c.path(name), []byte(content), 0o600); err != nil {
			return nil, err
		}
		if os.Geteuid() != 0 {
			continue
		}
		if err := os.Lchown(c.path(name), c.UID, c.GID); err != nil {
			return nil, err
		}
	}
	args := []string{"-D", c.DataDir}
	for _, s := range settings {
		args = append(args, "-c", s)
	}
	return args, nil
}

// environment leaves out what is not the server's: our keys, and what libpq would heed.
func environment(all []string) []string {
	return slices.DeleteFunc(slices.Clone(all), func(v string) bool {
		return slices.ContainsFunc([]string{"PG", "OSS_", "OUTRIDER_", "ALIBABA_CLOUD_"}, func(prefix string) bool { return strings.HasPrefix(v, prefix) })
	})
}

// Exited is closed when the server has ended.
func (s *Server) Exited() <-chan struct{} { return s.exited }

// Stop ends the server: in good order, so that its files are complete, or, if ctx has ended or that takes long, at once.
// It returns when the server is gone.
func (s *Server) Stop(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	signal := syscall.SIGINT // fast shutdown
	if ctx.Err() != nil {
		signal = syscall.SIGQUIT
	}
	_ = s.cmd.Process.Signal(signal) // one that has gone needs none
	select {
	case <-s.exited:
	case <-ctx.Done():
		_ = s.cmd.Process.Signal(syscall.SIGQUIT)
		select {
		case <-s.exited:
		case <-time.After(10 * time.Second):
			_ = syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL)
			<-s.exited
		}
	}
	if s.err != nil {
		return fmt.Errorf("the server has ended: %w: %s", s.err, s.LastWords())
	}
	return nil
}

// LastWords is why the server gave up, of its log: its last fatal errors, or its last lines where it names none.
func (s *Server) LastWords() string {
	const most, lines = 16 << 10, 3
	f, err := os.Open(s.config.path(logFile))
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size() > most {
		_, _ = f.Seek(-most, io.SeekEnd)
	}
	b, err := io.ReadAll(io.LimitReader(f, most))
	if err != nil {
		return err.Error()
	}
	var all, fatal []string
	for line := range bytes.Lines(b) {
		text := strings.TrimSpace(string(line))
		all = append(all, text)
		if strings.Contains(text, "FATAL:") || strings.Contains(text, "PANIC:") {
			fatal = append(fatal, text)
		}
	}
	if len(fatal) > 0 {
		all = fatal
	}
	return strings.Join(all[max(0, len(all)-lines):], "; ")
}
