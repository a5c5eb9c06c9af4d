package pgtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"outrider.dev/e2e/stage"
)

// process is one life of a postmaster.
type process struct {
	pid  int
	done chan struct{} // closed once it was waited for; err is valid then
	err  error
}

// TryStart is Start for tests that expect trouble: it returns when the server accepts connections, and with an error
// when it exits instead or ctx ends first (it then still runs).
func (s *Server) TryStart(ctx context.Context) error {
	if s.process() != nil {
		return errors.New("the server runs already")
	}
	// Only what must win over a restored configuration is on the command line.
	cmd := s.Command("postgres", "-D", s.DataDir, "-c", "listen_addresses=", "-c", "port="+strconv.Itoa(port),
		"-c", "unix_socket_directories="+s.SocketDir, "-c", "logging_collector=off", "-c", "log_destination=stderr",
		"-c", "ssl=off")
	p, err := launch(cmd, s.logPath)
	if err != nil {
		return fmt.Errorf("starting %s: %w", cmd.Path, err)
	}
	s.setProcess(p)
	return s.waitReady(ctx, p)
}

func (s *Server) waitReady(ctx context.Context, p *process) error {
	for {
		conn, err := s.Connect(ctx)
		if err == nil {
			return conn.Close(ctx)
		}
		select {
		case <-p.done:
			s.setProcess(nil)
			return fmt.Errorf("the server exited: %w", p.err)
		case <-ctx.Done():
			return fmt.Errorf("the server accepts no connections: %w (%w)", err, ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// launch starts the command on a thread that lives as long as the process: the kernel sends the parent-death signal,
// which keeps servers from outliving a test binary that panics, when the starting *thread* ends.
func launch(cmd *exec.Cmd, logPath string) (*process, error) {
	log, err := os.OpenFile(logPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr.Pdeathsig = syscall.SIGQUIT
	p := &process{done: make(chan struct{})}
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer log.Close()
		if err := cmd.Start(); err != nil {
			started <- err
			return
		}
		p.pid = cmd.Process.Pid
		started <- nil
		if p.err = cmd.Wait(); p.err == nil {
			p.err = errors.New("exit status 0")
		}
		close(p.done)
	}()
	return p, <-started
}

// Command is a program of this server's installation that will run as the server's user with Env set.
func (s *Server) Command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(s.bin, name), args...)
	cmd.Env = append(append(os.Environ(), "LC_ALL=C", "TZ=UTC"), s.Env()...)
	cmd.Dir = s.SocketDir
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	if os.Getuid() == 0 {
		cred, err := serverUser()
		if err != nil {
			s.t.Fatal(err)
		}
		cmd.SysProcAttr.Credential = cred
	}
	return cmd
}

// PID is the postmaster's process id, 0 while the server is stopped.
func (s *Server) PID() int {
	if p := s.process(); p != nil {
		return p.pid
	}
	return 0
}

// Signal sends a signal to the postmaster.
func (s *Server) Signal(sig syscall.Signal) {
	s.t.Helper()
	p := s.process()
	if p == nil {
		s.t.Fatalf("sending %v: the server is stopped", sig)
	}
	if err := syscall.Kill(p.pid, sig); err != nil {
		s.t.Fatalf("sending %v to the server: %v", sig, err)
	}
}

// WaitExit waits until the server has ended by itself or after a Signal.
func (s *Server) WaitExit(timeout time.Duration) {
	s.t.Helper()
	p := s.process()
	if p == nil {
		return
	}
	select {
	case <-p.done:
		s.setProcess(nil)
	case <-time.After(timeout):
		s.t.Fatalf("the server has not ended after %v\n%s", timeout, s.logTail())
	}
}

// Running tells whether the postmaster is alive.
func (s *Server) Running() bool {
	p := s.process()
	if p == nil {
		return false
	}
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// Kill ends the postmaster and all its children with SIGKILL, as a lost node does, and returns when they are gone.
func (s *Server) Kill() {
	s.t.Helper()
	p := s.process()
	if p == nil {
		s.t.Fatal("killing the server: it is stopped")
	}
	s.kill(p)
}

func (s *Server) kill(p *process) {
	s.t.Helper()
	defer s.setProcess(nil)
	select {
	case <-p.done:
		return // its pid may be someone else's by now
	default:
	}
	// A stopped postmaster forks no more children, so the list is complete.
	if err := syscall.Kill(p.pid, syscall.SIGSTOP); err != nil {
		s.t.Errorf("stopping the postmaster: %v", err)
	}
	if id, ok := stage.SharedMemory(s.DataDir); ok {
		defer stage.FreeSharedMemory(id)
	}
	family := descendants(p.pid)
	_ = syscall.Kill(p.pid, syscall.SIGKILL)
	for _, c := range family {
		_ = syscall.Kill(c.pid, syscall.SIGKILL)
	}
	<-p.done
	deadline := time.Now().Add(stopTimeout)
	for _, c := range family {
		for c.alive() {
			if time.Now().After(deadline) {
				s.t.Fatalf("server process %d survives SIGKILL", c.pid)
			}
			time.Sleep(time.Millisecond)
		}
	}
}

func (s *Server) process() *process {
	s.life.mu.Lock()
	defer s.life.mu.Unlock()
	return s.life.proc
}

func (s *Server) setProcess(p *process) {
	s.life.mu.Lock()
	defer s.life.mu.Unlock()
	s.life.proc = p
}

// kin is a process of a server, told from a later one with the same id by its start time.
type kin struct {
	pid, parent int
	started     string
	zombie      bool
}

func (k kin) alive() bool {
	now, ok := readKin(k.pid)
	return ok && !now.zombie && now.started == k.started
}

// readKin reads /proc/<pid>/stat (proc_pid_stat(5)); the fields count from after the command's closing parenthesis.
func readKin(pid int) (kin, bool) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return kin{}, false
	}
	_, rest, ok := strings.Cut(string(b[strings.LastIndexByte(string(b), ')')+1:]), " ")
	f := strings.Fields(rest)
	if !ok || len(f) < 20 {
		return kin{}, false
	}
	parent, err := strconv.Atoi(f[1])
	return kin{pid: pid, parent: parent, started: f[19], zombie: f[0] == "Z"}, err == nil
}

func descendants(root int) []kin {
	entries, _ := os.ReadDir("/proc")
	children := map[int][]kin{}
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			if k, ok := readKin(pid); ok {
				children[k.parent] = append(children[k.parent], k)
			}
		}
	}
	var all []kin
	for queue := []int{root}; len(queue) > 0; queue = queue[1:] {
		for _, k := range children[queue[0]] {
			all = append(all, k)
			queue = append(queue, k.pid)
		}
	}
	return all
}
