package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// spent is what running something has cost.
type spent struct {
	Wall float64 `json:"wall"` // seconds
	CPU  float64 `json:"cpu"`  // seconds, user and system, of all processes
	Peak int64   `json:"peak"` // bytes resident, of the largest process
}

// reapVerb makes this program run another one and account for all its descendants, also those that leave it.
const reapVerb = "reap"

// timed runs a command to its end. What it leaves running in the background is waited for and accounted for.
func (b *bench) timed(ctx context.Context, cmd *exec.Cmd) (spent, error) {
	result := filepath.Join(b.stage.Dir, fmt.Sprintf("spent-%d", time.Now().UnixNano()))
	name := filepath.Base(cmd.Path)
	cmd.Args = append([]string{b.self, reapVerb, result, cmd.Path}, cmd.Args[1:]...)
	cmd.Path = b.self
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Start(); err != nil {
		return spent{}, fmt.Errorf("starting %s: %w", name, err)
	}
	stop := context.AfterFunc(ctx, func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
	defer stop()
	if err := cmd.Wait(); err != nil {
		return spent{}, fmt.Errorf("%s: %w: %s", name, errors.Join(err, context.Cause(ctx)), bytes.TrimSpace(output.Bytes()))
	}
	raw, err := os.ReadFile(result)
	if err != nil {
		return spent{}, err
	}
	var s spent
	if err := json.Unmarshal(raw, &s); err != nil {
		return s, fmt.Errorf("reading what %s has used: %w", name, err)
	}
	return s, os.Remove(result)
}

// reap runs a command: the file for the result, the program, its arguments. It returns the exit code.
func reap(args []string) int {
	if len(args) < 2 {
		fmt.Fprintln(os.Stderr, "bench reap FILE PROGRAM [ARGUMENT...]")
		return 2
	}
	code, s, err := reapAll(args[1:])
	if err == nil && code == 0 {
		var line []byte
		if line, err = json.Marshal(s); err == nil {
			err = os.WriteFile(args[0], line, 0o644)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench reap:", err)
		return 1
	}
	return code
}

func reapAll(args []string) (code int, s spent, err error) {
	// Whoever leaves its parent becomes our child, and its time ours.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return 0, s, fmt.Errorf("becoming the parent of all: %w", err)
	}
	began := time.Now()
	first, err := syscall.ForkExec(args[0], args, &syscall.ProcAttr{Env: os.Environ(), Files: []uintptr{0, 1, 2}})
	if err != nil {
		return 0, s, fmt.Errorf("starting %s: %w", args[0], err)
	}
	for {
		var status syscall.WaitStatus
		var used syscall.Rusage
		pid, err := syscall.Wait4(-1, &status, 0, &used)
		switch {
		case errors.Is(err, syscall.EINTR):
			continue
		case errors.Is(err, syscall.ECHILD):
			return code, s, nil
		case err != nil:
			return 0, s, err
		}
		s.CPU += (time.Duration(used.Utime.Nano()) + time.Duration(used.Stime.Nano())).Seconds()
		s.Peak = max(s.Peak, used.Maxrss<<10)
		s.Wall = time.Since(began).Seconds()
		if pid == first {
			code = status.ExitStatus()
			if status.Signaled() {
				code = 128 + int(status.Signal())
			}
		}
	}
}
