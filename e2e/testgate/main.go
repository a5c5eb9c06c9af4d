// Command testgate runs "go test -json" with the arguments it is given and shows what "go test" would, with failures in
// full and without the noise of what passed. It is stricter: a package that has test files and ran no test has failed,
// a run that ran no test has failed, and where the environment variable CI or STRICT is set, a skipped test has failed.
// The last line is "N passed, N failed, N skipped"; the exit code is that of the go command, or 1.
//
//	testgate -race -shuffle=on ./...
//
// With -v among the arguments it also shows each test's verdict as it comes, and what packages print beside their tests.
// With -run among the arguments packages without a matching test are fine, as long as one test matches somewhere.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	code, err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "testgate:", err)
	}
	os.Exit(code)
}

// run answers the exit code. The error says why the tests could not be run or read.
func run(ctx context.Context, args []string, out io.Writer) (int, error) {
	cmd := exec.CommandContext(ctx, "go", append([]string{"test", "-json"}, args...)...)
	cmd.Env = append([]string{"GORACE=halt_on_error=1"}, os.Environ()...) // a value of the caller's comes later and wins
	out = &sharedWriter{w: out}
	cmd.Stderr = out
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 30 * time.Second
	events, err := cmd.StdoutPipe()
	if err != nil {
		return 1, err
	}
	if err := cmd.Start(); err != nil {
		return 1, err
	}
	g := &gate{out: out, strict: os.Getenv("CI") != "" || os.Getenv("STRICT") != "", selected: has(args, "run", "skip"), verbose: has(args, "v")}
	readErr := g.read(events)
	code := exitCode(cmd.Wait())
	if !g.summarize(code == 0) && code == 0 {
		code = 1
	}
	return code, readErr
}

// sharedWriter lets the go command's errors and our lines go to one place.
type sharedWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (s *sharedWriter) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.w.Write(b)
}

func exitCode(err error) int {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit) && exit.ExitCode() > 0:
		return exit.ExitCode()
	default:
		return 1
	}
}

// has tells whether one of these flags is among the arguments.
func has(args []string, flags ...string) bool {
	return slices.ContainsFunc(args, func(a string) bool {
		name, _, _ := strings.Cut(strings.TrimLeft(a, "-"), "=")
		return strings.HasPrefix(a, "-") && slices.Contains(flags, strings.TrimPrefix(name, "test."))
	})
}
