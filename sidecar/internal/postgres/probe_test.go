package postgres

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"testing"
	"time"

	"outrider.dev/e2e/pgtest"
)

func readFile(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func wantState(t *testing.T, cfg Config, dataDir string, want State) {
	t.Helper()
	if got, err := Probe(t.Context(), cfg, dataDir); got != want || (err == nil) != (want == Accepting) {
		t.Errorf("the server is %v, want %v: %v", got, want, err)
	}
}

// waitForState asks until the server is in the state.
func waitForState(t *testing.T, cfg Config, dataDir string, want State) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for {
		got, err := Probe(ctx, cfg, dataDir)
		if got == want {
			return
		}
		if ctx.Err() != nil {
			t.Fatalf("the server is %v, want %v: %v", got, want, err)
		}
	}
}

// connectWhenFree waits for a place: the server ends sessions some time after they were closed.
func connectWhenFree(t *testing.T, cfg Config) *Conn {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; {
		c, err := Connect(t.Context(), cfg)
		if err == nil {
			t.Cleanup(c.Close)
			return c
		}
		if codeOf(err) != codeTooMany || time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

func TestProbe(t *testing.T) {
	eachMajor(t, map[string]string{
		"max_connections": "3", "superuser_reserved_connections": "1", "hot_standby": "off", "restore_command": "sleep 0.1; false",
	},
		func(t *testing.T, s *pgtest.Server) {
			cfg := configFor(s, "postgres")
			wantState(t, cfg, "", Accepting)
			wantState(t, configFor(s, "stranger"), "", AuthFailed)
			s.Exec("CREATE ROLE app LOGIN")
			t.Run("full", func(t *testing.T) {
				for range 2 {
					connectWhenFree(t, cfg)
				}
				waitForState(t, configFor(s, "app"), "", TooManyConnections)
				_, err := Connect(t.Context(), configFor(s, "app"))
				wantError(t, err, func(error) bool { return true }, "raise max_connections")
			})
			c := connectWhenFree(t, cfg)
			s.Signal(15) // smart: waits for our session
			waitForState(t, cfg, s.DataDir, ShuttingDown)
			wantState(t, cfg, "", ShuttingDown)
			if _, err := c.Position(t.Context()); err != nil {
				t.Errorf("the session from before the shutdown: %v", err)
			}
			c.Close()
			s.WaitExit(30 * time.Second)
			wantState(t, cfg, s.DataDir, Refused)
			if _, err := PostmasterStatus(s.DataDir); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the lock file of a stopped server: %v", err)
			}
			probeDuringRecovery(t, s)
		})
}

func probeDuringRecovery(t *testing.T, s *pgtest.Server) {
	writeFile(t, s.DataDir+"/standby.signal", "")
	ctx, cancel := context.WithCancel(t.Context())
	started := make(chan error)
	go func() { started <- s.TryStart(ctx) }()
	cfg := configFor(s, "postgres")
	waitForState(t, cfg, s.DataDir, InRecoveryNoHotStandby)
	wantState(t, cfg, "", InRecoveryNoHotStandby)
	cancel()
	if err := <-started; err == nil {
		t.Error("a server without hot standby accepted a session")
	}
	p, err := ReadPostmasterPID(s.DataDir)
	if err != nil || p.PID != s.PID() || p.DataDirectory != s.DataDir || p.SocketDir != s.SocketDir ||
		p.Port != s.Port || p.Status != StatusStandby || time.Since(p.StartTime) > time.Hour {
		t.Errorf("postmaster.pid says %+v, %v", p, err)
	}
}

func TestLockFileBeingWritten(t *testing.T) {
	dir := t.TempDir()
	for content, want := range map[string]bool{"": false, "17": true, "17\n/data\n": true, "17\n/data\nx": false, "17\n/data\n1\nport": false} {
		writeFile(t, dir+"/postmaster.pid", content)
		if p, err := ReadPostmasterPID(dir); (err == nil) != want || want && (p.PID != 17 || p.Status != "") {
			t.Errorf("%q: %+v, %v", content, p, err)
		}
	}
}
