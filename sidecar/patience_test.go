package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"outrider.dev/e2e/devcloud/devtest"
	"outrider.dev/e2e/devcloud/oss"
	"outrider.dev/sidecar/internal/restore"
)

// waiting runs patiently on a fake clock and returns what became of it, how long it took, and what was logged.
func waiting(ctx context.Context, t *testing.T, do func(tries int) error) (took time.Duration, log string, err error) {
	t.Helper()
	var out bytes.Buffer
	a := &app{log: slog.New(slog.NewTextHandler(&out, nil))}
	started, tries := time.Now(), 0
	err = a.patiently(ctx, func(context.Context) error {
		tries++
		return do(tries)
	})
	return time.Since(started), out.String(), err
}

func TestWhatTimeMayHealIsWaitedFor(t *testing.T) {
	away := coded{errors.New("dial tcp: connection refused"), errStore}
	denied := fmt.Errorf("listing: %w", fs.ErrPermission)
	synctest.Test(t, func(t *testing.T) {
		took, log, err := waiting(t.Context(), t, func(int) error { return nil })
		if err != nil || took != 0 || log != "" {
			t.Errorf("success: %v after %v, %q", err, took, log)
		}
		took, log, err = waiting(t.Context(), t, func(n int) error {
			if n < 10 {
				return away
			}
			return nil
		})
		if err != nil || took < time.Minute || took > 3*time.Minute || !strings.Contains(log, "connection refused") {
			t.Errorf("an archive that comes back: %v after %v\n%s", err, took, log)
		}
		start := time.Now()
		took, log, err = waiting(t.Context(), t, func(int) error {
			if time.Since(start) < 24*time.Hour {
				return away
			}
			return nil
		})
		if lines := strings.Count(log, "\n"); err != nil || took < 24*time.Hour || took > 25*time.Hour || lines < 24*60 || lines > 24*60*2+1 {
			t.Errorf("a day without an archive: %v after %v, %d lines", err, took, lines)
		}
		// Somebody grants the right after a while; a changed Secret needs a new start.
		_, _, err = waiting(t.Context(), t, func(n int) error {
			if n < 20 {
				return denied
			}
			return nil
		})
		if err != nil {
			t.Errorf("a right that was granted: %v", err)
		}
		took, _, err = waiting(t.Context(), t, func(int) error { return denied })
		if exitOf(err) != exitDenied || took < 10*time.Minute || took > 12*time.Minute {
			t.Errorf("a right that is not granted: %v after %v", err, took)
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Minute, func() { cancel(errInterrupted) })
		took, _, err = waiting(ctx, t, func(int) error { return away })
		if !errors.Is(err, errInterrupted) || took != time.Minute {
			t.Errorf("a signal: %v after %v", err, took)
		}
	})
}

func TestWhatTimeCannotHealEndsAtOnce(t *testing.T) {
	for _, cause := range []error{
		restore.ErrNotEmpty, restore.ErrHole, restore.ErrNoSnapshot, usagef("no credentials"),
		coded{errors.New("nothing"), errNothing},
		&fs.PathError{Op: "mkdir", Path: "/data", Err: fs.ErrPermission}, errors.New("no space left on device"),
	} {
		synctest.Test(t, func(t *testing.T) {
			took, _, err := waiting(t.Context(), t, func(int) error { return cause })
			if !errors.Is(err, cause) || took != 0 {
				t.Errorf("%v: %v after %v", cause, err, took)
			}
		})
	}
}

// lockedBuffer takes what a process says while it is read.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// An init container neither ends while the archive cannot be asked, nor lets the server start.
func TestAutoRestoreWaitsForTheArchive(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		break_, mend func(*devtest.Cloud) //nolint:revive // break is taken
		says         string
	}{
		"denied": {
			func(c *devtest.Cloud) {
				c.SetFaults(oss.Fault{Op: "*", Kind: oss.Status, Status: 403, Code: "AccessDenied"})
			},
			func(c *devtest.Cloud) { c.SetFaults() }, "AccessDenied",
		},
		"away": {func(c *devtest.Cloud) { c.Down() }, func(c *devtest.Cloud) { c.Up() }, "connect"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cloud := devtest.Start(t)
			c.break_(cloud)
			dir := filepath.Join(t.TempDir(), "18", "data")
			cmd := shellFor(cloud, testRoot).command(t, "restore", "--auto", "--pgdata", dir)
			var out lockedBuffer
			cmd.Stderr = &out
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() { ended <- cmd.Wait() }()
			defer func() { _ = cmd.Process.Kill() }()
			for end := time.Now().Add(2 * time.Minute); !strings.Contains(out.String(), "must not start: waiting"); time.Sleep(10 * time.Millisecond) {
				select {
				case err := <-ended:
					t.Fatalf("it ended: %v\n%s", err, out.String())
				default:
				}
				if time.Now().After(end) {
					t.Fatalf("it does not say that it waits:\n%s", out.String())
				}
			}
			if text := out.String(); !strings.Contains(text, c.says) {
				t.Errorf("it does not say why:\n%s", text)
			}
			c.mend(cloud)
			select {
			case err := <-ended:
				if err != nil || !strings.Contains(out.String(), "initdb may run") {
					t.Errorf("%v\n%s", err, out.String())
				}
			case <-time.After(time.Minute):
				t.Errorf("it goes on waiting:\n%s", out.String())
			}
			if _, err := os.Lstat(filepath.Dir(dir)); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("it left something behind: %v", err)
			}
		})
	}
}

// A volume's root belongs to root; who runs the server has to get to the directory that is made below.
func TestDataDirectoryIsTheServers(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("only root can give directories away")
		}
		t.Skip("only root can give directories away")
	}
	root := t.TempDir()
	old := syscall.Umask(0o077)
	defer syscall.Umask(old)
	dir := filepath.Join(root, "18", "docker")
	if err := makeDataDir(dir, 999, -1); err != nil {
		t.Fatal(err)
	}
	for path, mode := range map[string]fs.FileMode{dir: 0o700, filepath.Dir(dir): 0o755} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if uid, _ := ownerOf(path); uid != 999 || info.Mode().Perm() != mode {
			t.Errorf("%s belongs to %d and has mode %v", path, uid, info.Mode())
		}
	}
	if err := os.Chmod(dir, 0o750); err != nil {
		t.Fatal(err)
	}
	if err := makeDataDir(dir, 70, 70); err != nil {
		t.Fatal(err)
	}
	if uid, _ := ownerOf(dir); uid != 999 {
		t.Errorf("a directory that was there was given to %d", uid)
	}
}

func TestPolicySaysWhoOwnsWhatIsRestored(t *testing.T) {
	dir := t.TempDir()
	for value, want := range map[string][2]int{"999:998": {999, 998}, "70": {70, -1}, "": {os.Getuid(), os.Getgid()}} {
		env := map[string]string{"OUTRIDER_ARCHIVE": "oss://bucket/p/n/c", "OUTRIDER_RUN_AS": value}
		a := newApp(nil, func(k string) (string, bool) { v, ok := env[k]; return v, ok }, nil, nil)
		uid, gid, err := a.serverUser(dir)
		if got := [2]int{uid, gid}; err != nil || got != want {
			t.Errorf("%q: %v, %v; want %v", value, got, err, want)
		}
	}
}
