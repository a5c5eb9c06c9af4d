package restore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// shells are those that the script has to work with. A machine without one of them skips it, CI does not.
func shells(t *testing.T) map[string][]string {
	t.Helper()
	found := map[string][]string{}
	for name, argv := range map[string][]string{
		"sh": {"sh"}, "busybox": {"busybox", "sh"}, "bash": {"bash", "--posix"},
	} {
		path, err := exec.LookPath(argv[0])
		if err != nil {
			if os.Getenv("CI") != "" {
				t.Fatalf("%s is not installed", argv[0])
			}
			continue
		}
		found[name] = append([]string{path}, argv[1:]...)
	}
	if len(found) == 0 {
		t.Fatal("there is no shell")
	}
	return found
}

// scriptTest runs the generated restore_command as PostgreSQL does: through `sh -c` in the data directory, with %f and
// %p replaced.
type scriptTest struct {
	t     *testing.T
	shell []string
	dir   string // data directory
	s     spool
	path  string // of the spool for the server
	bin   string // where sh is that shell
}

func newScriptTest(t *testing.T, shell []string, spoolPath string) *scriptTest {
	t.Helper()
	dir := t.TempDir()
	must(t, os.Mkdir(filepath.Join(dir, "pg_wal"), 0o700))
	abs := spoolPath
	if !filepath.IsAbs(abs) {
		abs = filepath.Join(dir, spoolPath)
	}
	st := &scriptTest{t: t, shell: shell, dir: dir, s: spool{dir: abs, id: "test"}, path: spoolPath, bin: t.TempDir()}
	must(t, st.s.prepare(map[string][]byte{"00000002.history": []byte("1\t0/1\tx\n")}, time.Second))
	// The command itself says sh; it is to be the shell under test, too.
	wrapper := "#!/bin/sh\nexec " + strings.Join(shell, " ") + " \"$@\"\n"
	must(t, os.WriteFile(filepath.Join(st.bin, "sh"), []byte(wrapper), 0o755))
	return st
}

func (st *scriptTest) command(ctx context.Context, name string) *exec.Cmd {
	st.t.Helper()
	c, err := restoreCommand(st.path)
	must(st.t, err)
	// replace_percent_placeholders, src/common/percentrepl.c
	c = strings.NewReplacer("%%", "%", "%f", name, "%p", "pg_wal/RECOVERYXLOG").Replace(c)
	cmd := exec.CommandContext(ctx, st.shell[0], append(append([]string{}, st.shell[1:]...), "-c", c)...)
	cmd.Dir = st.dir
	cmd.Env = append(os.Environ(), "PATH="+st.bin+":"+os.Getenv("PATH"))
	return cmd
}

// run runs the command to its end and returns its exit status and what it said.
func (st *scriptTest) run(name string) (int, string) {
	st.t.Helper()
	ctx, cancel := context.WithTimeout(st.t.Context(), 30*time.Second)
	defer cancel()
	out, err := st.command(ctx, name).CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) || ctx.Err() != nil {
		st.t.Fatalf("running the restore_command: %v", err)
	}
	if exit != nil {
		return exit.ExitCode(), string(out)
	}
	return 0, string(out)
}

func (st *scriptTest) want(name string, status int) string {
	st.t.Helper()
	got, out := st.run(name)
	if got != status {
		st.t.Errorf("asked for %s the command exits with %d, want %d: %s", name, got, status, out)
	}
	return out
}

func TestRestoreCommand(t *testing.T) {
	const one, two, three = "000000010000000000000001", "000000010000000000000002", "000000010000000000000003"
	for name, shell := range shells(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, place := range []string{
				"outrider/spool", filepath.Join(t.TempDir(), `it's 100%f "here" $HOME`), "-e/spool",
			} {
				st := newScriptTest(t, shell, place)
				must(t, st.s.write(one, []byte("wal"), 0o644))
				st.want(one, 0)
				st.want(one, 0) // copies, does not move
				if b, err := os.ReadFile(filepath.Join(st.dir, "pg_wal", "RECOVERYXLOG")); string(b) != "wal" || err != nil {
					t.Errorf("copied %q, %v", b, err)
				}
				st.want("00000002.history", 0)
				st.want("00000003.history", 1)
				if asked, err := os.ReadFile(st.s.path(askedFile)); string(asked) != one+"\n" || err != nil {
					t.Errorf("the server asked for %q, %v; want %s", asked, err, one)
				}
			}

			st := newScriptTest(t, shell, "outrider/spool")
			if out := st.want(one, exitGiveUp); !strings.Contains(out, one) {
				t.Errorf("giving up says %q", out)
			}
			must(t, st.s.writeList(endFile, []string{one, two}))
			st.want(three, 1)
			st.want(two, exitGiveUp) // it is part of the restore and not there
			must(t, st.s.fail(errors.New("the archive is damaged")))
			if out := st.want(one, exitGiveUp); !strings.Contains(out, "the archive is damaged") {
				t.Errorf("a failure says %q", out)
			}
			must(t, st.s.write(one, []byte("wal"), 0o644))
			st.want(one, 0)
			st.want(three, 1)
			must(t, os.RemoveAll(filepath.Join(st.dir, "pg_wal")))
			st.want(one, exitGiveUp) // cannot be copied
			must(t, os.Remove(st.s.path(scriptFile)))
			st.want(three, exitGiveUp)
			must(t, os.RemoveAll(st.s.dir))
			st.want(three, exitGiveUp)
		})
	}
}

func TestRestoreCommandWaits(t *testing.T) {
	const one, two = "000000010000000000000001", "000000010000000000000002"
	for name, shell := range shells(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			st := newScriptTest(t, shell, "outrider/spool")
			waiting := func(name string) chan string {
				done := make(chan string, 1)
				go func() {
					cmd := st.command(t.Context(), name)
					out, err := cmd.CombinedOutput()
					done <- fmt.Sprintf("%d %v %s", cmd.ProcessState.ExitCode(), err, out)
				}()
				for {
					if asked, _ := os.ReadFile(st.s.path(askedFile)); strings.TrimSpace(string(asked)) == name {
						return done
					}
					time.Sleep(time.Millisecond)
				}
			}
			// Longer than its patience, because somebody is at work.
			done := waiting(one)
			for n := range 6 {
				must(t, st.s.write(aliveFile, fmt.Appendln(nil, n), 0o644))
				select {
				case got := <-done:
					t.Fatalf("it did not wait for the segment: %s", got)
				case <-time.After(400 * time.Millisecond):
				}
			}
			must(t, st.s.write(one, []byte("wal"), 0o644))
			if got := <-done; !strings.HasPrefix(got, "0 ") {
				t.Errorf("the segment came: %s", got)
			}
			done = waiting(two)
			must(t, st.s.writeList(endFile, []string{one}))
			if got := <-done; !strings.HasPrefix(got, "1 ") {
				t.Errorf("the end came: %s", got)
			}
		})
	}
}

// The server was killed while it waited for WAL. What it left behind must not write into the data directory of the next
// one, however much somebody still fills the spool.
func TestRestoreCommandEndsWithItsServer(t *testing.T) {
	const name = "000000010000000000000001"
	for shellName, shell := range shells(t) {
		st := newScriptTest(t, shell, "outrider/spool")
		server := exec.CommandContext(t.Context(), "sleep", "60")
		must(t, server.Start())
		args := append(append([]string{}, shell[1:]...), st.s.path(scriptFile), name, "pg_wal/RECOVERYXLOG", fmt.Sprint(server.Process.Pid))
		cmd := exec.CommandContext(t.Context(), shell[0], args...)
		cmd.Dir = st.dir
		must(t, cmd.Start())
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = cmd.Wait() // its exit status is asked for below
		}()
		must(t, server.Process.Kill())
		if err := server.Wait(); err == nil {
			t.Fatal("the stand-in for the server was not killed")
		}
		deadline := time.Now().Add(20 * time.Second)
		for n, ended := 0, false; !ended; n++ {
			must(t, st.s.write(aliveFile, fmt.Appendln(nil, n), 0o644))
			select {
			case <-done:
				ended = true
			case <-time.After(50 * time.Millisecond):
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s: the command outlives its server", shellName)
			}
		}
		if code := cmd.ProcessState.ExitCode(); code != exitGiveUp {
			t.Errorf("%s: the command of a server that is gone exits with %d, want %d", shellName, code, exitGiveUp)
		}
	}
}
