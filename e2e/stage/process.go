package stage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

// Process is a program that runs on the stage. Its output goes to a file.
type Process struct {
	Name string
	Log  string
	cmd  *exec.Cmd
	done chan struct{}
	err  error
}

// Command prepares a program as the user that runs PostgreSQL, in a process group of its own.
func (s *Stage) Command(name string, args ...string) *exec.Cmd {
	c := exec.Command(name, args...)
	c.Dir = s.Dir
	c.Env = slices.DeleteFunc(os.Environ(), func(v string) bool {
		return bytes.HasPrefix([]byte(v), []byte("PG")) || bytes.HasPrefix([]byte(v), []byte("OSS_")) || bytes.HasPrefix([]byte(v), []byte("OUTRIDER_"))
	})
	c.SysProcAttr = &syscall.SysProcAttr{Credential: s.cred, Setpgid: true, Pdeathsig: syscall.SIGKILL}
	return c
}

// Start starts c. Its standard output and error go to a log file that is named after it.
func (s *Stage) Start(name string, c *exec.Cmd) (*Process, error) {
	log := filepath.Join(s.Dir, fmt.Sprintf("%02d-%s.log", s.next(), name))
	out, err := os.Create(log)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	c.Stdout, c.Stderr = out, out
	if err := c.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	p := &Process{Name: name, Log: log, cmd: c, done: make(chan struct{})}
	s.mu.Lock()
	s.running = append(s.running, p)
	s.mu.Unlock()
	go func() {
		p.err = c.Wait()
		close(p.done)
		s.mu.Lock()
		s.running = slices.DeleteFunc(s.running, func(q *Process) bool { return q == p })
		s.mu.Unlock()
	}()
	return p, nil
}

// PID is the process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Running tells whether the process has not ended yet.
func (p *Process) Running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// Signal sends a signal to the process alone.
func (p *Process) Signal(sig syscall.Signal) error { return p.cmd.Process.Signal(sig) }

// Kill ends the process and all others of its group at once, and waits.
func (p *Process) Kill() {
	_ = syscall.Kill(-p.PID(), syscall.SIGKILL) // it may have ended by itself
	<-p.done
}

// Wait waits for the end of the process and returns how it ended.
func (p *Process) Wait(ctx context.Context) error {
	select {
	case <-p.done:
		return p.err
	case <-ctx.Done():
		return fmt.Errorf("waiting for the end of %s: %w", p.Name, context.Cause(ctx))
	}
}

// ForgetPeak makes PeakMemory begin anew (proc(5), clear_refs).
func (p *Process) ForgetPeak() error {
	return os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", p.PID()), []byte("5"), 0)
}

// PeakMemory is the most memory that was resident so far, in bytes.
func (p *Process) PeakMemory() (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.PID()))
	if err != nil {
		return 0, err
	}
	_, rest, _ := bytes.Cut(b, []byte("VmHWM:"))
	var kib int64
	if _, err := fmt.Sscanf(string(rest), "%d kB", &kib); err != nil {
		return 0, fmt.Errorf("reading the peak memory of %s: %w", p.Name, err)
	}
	return kib << 10, nil
}

// ExitCode is what a program ended with, from the error of Wait or of a command: 0 without an error, -1 if a signal
// ended it or the error is another one.
func ExitCode(err error) int {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.ExitCode()
	}
	return -1
}

// Tail is the end of the log.
func (p *Process) Tail(n int) string { return tailOf(p.Log, n) }

func tailOf(path string, n int) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	lines := bytes.Split(bytes.TrimSpace(b), []byte("\n"))
	return string(bytes.Join(lines[max(0, len(lines)-n):], []byte("\n")))
}

// Run runs c to its end and returns what it printed; an error has its messages.
func Run(ctx context.Context, c *exec.Cmd) (string, error) {
	var out, messages bytes.Buffer
	c.Stdout, c.Stderr = &out, &messages
	if err := c.Start(); err != nil {
		return "", err
	}
	done := make(chan error, 1)
	go func() { done <- c.Wait() }()
	select {
	case err := <-done:
		if err != nil {
			return out.String(), fmt.Errorf("%s: %w: %s", filepath.Base(c.Path), err, bytes.TrimSpace(messages.Bytes()))
		}
		return out.String(), nil
	case <-ctx.Done():
	}
	_ = syscall.Kill(-c.Process.Pid, syscall.SIGTERM)
	kill := time.AfterFunc(5*time.Second, func() { _ = syscall.Kill(-c.Process.Pid, syscall.SIGKILL) })
	err := <-done
	kill.Stop()
	return out.String(), errors.Join(fmt.Errorf("%s: %w: %s", filepath.Base(c.Path), context.Cause(ctx), bytes.TrimSpace(messages.Bytes())), err)
}
