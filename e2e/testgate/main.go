// Command testgate runs "go test -json" with the arguments it is given and shows what "go test" would, with failures in
// full and without the noise of what passed. It is stricter: a package that has test files and ran no test has failed,
// a run that ran no test has failed, and where the environment variable CI or STRICT is set, a skipped test has failed.
// The last line is "N passed, N failed, N skipped"; the exit code is that of the go command, or 1.
//
//	testgate -race -shuffle=on ./...
//
// With -v among the arguments it also shows each test's verdict, and what packages print beside their tests, as it comes.
// With -again=3, up to three tests that failed are played once more, alone, and count as passed if they pass: named as
// FLAKY at the end, with the output of the failure above. A data race, a panic, and a row that is lost or wrong are final.
//
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
	"strconv"
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
	limit, args, err := againOf(args)
	if err != nil {
		return 1, err
	}
	out = &sharedWriter{w: out}
	g := newGate(out, args)
	code, err := g.play(ctx, args)
	if err == nil && ctx.Err() == nil && code != 0 && len(g.problems) == 0 && g.bad.forgivable(limit) {
		code, err = g.again(ctx, args)
	}
	if !g.summarize(code == 0) && code == 0 {
		code = 1
	}
	return code, err
}

func newGate(out io.Writer, args []string) *gate {
	return &gate{out: out, strict: os.Getenv("CI") != "" || os.Getenv("STRICT") != "", selected: has(args, "run", "skip"), verbose: has(args, "v")}
}

// play runs "go test" and reads what it reports.
func (g *gate) play(ctx context.Context, args []string) (int, error) {
	cmd := exec.CommandContext(ctx, "go", append([]string{"test", "-json"}, args...)...)
	cmd.Env = append([]string{"GORACE=halt_on_error=1"}, os.Environ()...) // a value of the caller's comes later and wins
	cmd.Stderr = g.out
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 30 * time.Second
	events, err := cmd.StdoutPipe()
	if err != nil {
		return 1, err
	}
	if err := cmd.Start(); err != nil {
		return 1, err
	}
	err = g.read(events)
	return exitCode(cmd.Wait()), err
}

// again plays what has failed a second time, and takes it for passed if all of it passes.
func (g *gate) again(ctx context.Context, args []string) (int, error) {
	second := newGate(g.out, append(flagsOf(args), "-run"))
	for _, c := range g.bad.commands(args) {
		g.print("testgate: again, alone: go test ", strings.Join(c, " "), "\n")
		if code, err := second.play(ctx, c); code != 0 || err != nil {
			return code, err
		}
	}
	if second.passed == 0 || len(second.skipped) > 0 {
		return 1, nil
	}
	g.passed, g.failed = g.passed+second.passed, 0
	g.flaky = true
	return 0, nil
}

// againOf takes testgate's own flag, -again=N, out of the arguments.
func againOf(args []string) (limit int, others []string, err error) {
	for _, a := range args {
		if n, ours := strings.CutPrefix(a, "-again="); ours {
			if limit, err = strconv.Atoi(n); err != nil || limit < 0 {
				return 0, nil, fmt.Errorf("%s: a number of tests is wanted", a)
			}
			continue
		}
		others = append(others, a)
	}
	return limit, others, nil
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
