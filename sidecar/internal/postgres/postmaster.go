package postgres

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// What the last line of postmaster.pid says (PM_STATUS_* of src/include/utils/pidfile.h).
const (
	StatusStarting = "starting"
	StatusStopping = "stopping"
	StatusReady    = "ready"
	StatusStandby  = "standby" // in recovery without hot standby: up, and accepting no sessions
)

// PostmasterPID is the content of postmaster.pid (src/include/utils/pidfile.h). The server writes it line by line
// while it starts, so the later fields may be missing.
type PostmasterPID struct {
	PID           int // as the server's own PID namespace numbers it; negative for a single-user server
	DataDirectory string
	StartTime     time.Time
	Port          int
	SocketDir     string
	ListenAddress string
	Status        string // "" if not yet written
}

// ReadPostmasterPID reads the lock file of a data directory; fs.ErrNotExist if there is none, which proves that no
// server runs there. The contrary is not proven by a file: a crashed server leaves it behind.
func ReadPostmasterPID(dataDir string) (PostmasterPID, error) {
	var p PostmasterPID
	path := filepath.Join(dataDir, "postmaster.pid")
	b, err := os.ReadFile(path)
	if err != nil {
		return p, fmt.Errorf("reading the server's lock file: %w", err)
	}
	lines := strings.Split(string(b), "\n")
	if p.PID, err = strconv.Atoi(strings.TrimSpace(lines[0])); err != nil {
		return p, fmt.Errorf("reading %s: %q is not a process id", path, lines[0])
	}
	line := func(n int) string {
		if n > len(lines) {
			return ""
		}
		return strings.TrimSpace(lines[n-1])
	}
	p.DataDirectory, p.SocketDir, p.ListenAddress, p.Status = line(2), line(5), line(6), line(8)
	if s := line(3); s != "" {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return p, fmt.Errorf("reading %s: %q is not a start time", path, s)
		}
		p.StartTime = time.Unix(n, 0)
	}
	if s := line(4); s != "" {
		if p.Port, err = strconv.Atoi(s); err != nil {
			return p, fmt.Errorf("reading %s: %q is not a port", path, s)
		}
	}
	return p, nil
}

// PostmasterStatus is the status in postmaster.pid: one of the constants, or "" if the server has not written it yet.
func PostmasterStatus(dataDir string) (string, error) {
	p, err := ReadPostmasterPID(dataDir)
	return p.Status, err
}
