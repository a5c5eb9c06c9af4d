package stage

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"time"
)

// Outrider is `outrider run` beside a server.
type Outrider struct {
	*Process
	URL string
}

// Status is the part of /status that scenes look at.
type Status struct {
	State             string     `json:"state"`
	Reason            string     `json:"reason"`
	NotProtectedSince *time.Time `json:"not_protected_since"`
	Epoch             uint64     `json:"epoch"`
	Timeline          uint32     `json:"timeline"`
	Durable           string     `json:"durable"`
	Flushed           string     `json:"flushed"`
	UnshippedBytes    *int64     `json:"unshipped_bytes"`
	NotFlushedBytes   *int64     `json:"not_flushed_bytes"`
	AgeSeconds        *float64   `json:"unshipped_age_seconds"`
	Trouble           string     `json:"trouble"`
	SnapshotTrouble   string     `json:"snapshot_trouble"`
	Prepared          *Prepared  `json:"prepared"`
	LastSnapshot      *Snapshot  `json:"last_snapshot"`
	SnapshotRunning   *struct{}  `json:"snapshot_running"`
	Notice            *struct{}  `json:"notice"`
	Store             *Store     `json:"store"`
	Slot              *Slot      `json:"slot"`
	Warnings          []string   `json:"warnings"`
}

// Store is what is told of the bucket and the clocks.
type Store struct {
	ProvenAt   *time.Time `json:"proven_at"`
	Versioning string     `json:"versioning"`
	ClockAhead *float64   `json:"clock_ahead_seconds"`
}

// Slot is what is told of the replication slot.
type Slot struct {
	Status   string `json:"wal_status"`
	WALLevel string `json:"wal_level"`
	MaxSlots int    `json:"max_replication_slots"`
	MaxKeep  int64  `json:"max_slot_wal_keep_size_bytes"`
}

// Prepared is what a preparation for a stop achieved.
type Prepared struct {
	Reason       string  `json:"reason"`
	TookSeconds  float64 `json:"took_seconds"`
	Checkpointed bool    `json:"checkpointed"`
	Complete     bool    `json:"complete"`
	Durable      struct {
		LSN string `json:"lsn"`
	} `json:"durable"`
}

// Snapshot is what is told of a snapshot.
type Snapshot struct {
	Name   string `json:"name"`
	Stored int64  `json:"stored_bytes"`
	Raw    int64  `json:"raw_bytes"`
}

// Outrider prepares a command of outrider against the archive root, or against none if that is empty.
func (s *Stage) Outrider(c *Cloud, root string, args ...string) *exec.Cmd {
	cmd := s.Command(filepath.Join(s.bin, "outrider"), args...)
	cmd.Env = append(cmd.Env, c.Env()...)
	if root != "" {
		cmd.Env = append(cmd.Env, "OUTRIDER_ARCHIVE="+root)
	}
	return cmd
}

// Root is the place of a database in the cloud's bucket.
func Root(name string) string { return "oss://" + Bucket + "/stage/" + name }

// Run starts `outrider run` beside server p.
func (s *Stage) Run(c *Cloud, root string, p *Server, args ...string) (*Outrider, error) {
	return s.run(c, root, p, args, func(*exec.Cmd) {})
}

// RunInPod starts `outrider run` as the sidecar of a pod: it may only read the data directory.
func (s *Stage) RunInPod(c *Cloud, root string, p *Server, args ...string) (*Outrider, error) {
	return s.run(c, root, p, args, func(cmd *exec.Cmd) { ReadOnly(cmd, p.Data) })
}

func (s *Stage) run(c *Cloud, root string, p *Server, args []string, change func(*exec.Cmd)) (*Outrider, error) {
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	cmd := s.Outrider(c, root, append([]string{"run", "--pgdata", p.Data, "--listen", address}, args...)...)
	cmd.Env = append(cmd.Env, p.Env()...)
	change(cmd)
	proc, err := s.Start("outrider-"+p.Name, cmd)
	return &Outrider{Process: proc, URL: "http://" + address}, err
}

// Do runs an outrider command to its end and returns what it printed.
func (s *Stage) Do(ctx context.Context, c *Cloud, root string, args ...string) (string, error) {
	return Run(ctx, s.Outrider(c, root, args...))
}

// Restore rebuilds the data directory of p from the archive.
func (s *Stage) Restore(ctx context.Context, c *Cloud, root string, p *Server, args ...string) (string, error) {
	return s.Do(ctx, c, root, append([]string{"restore", "--pgdata", p.Data}, args...)...)
}

func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// Status asks the sidecar how things stand.
func (o *Outrider) Status(ctx context.Context) (Status, error) {
	var st Status
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	b, err := o.get(ctx, "/status")
	if err != nil {
		return st, err
	}
	err = json.Unmarshal(b, &st)
	return st, err
}

// Metrics are what Prometheus would be told.
func (o *Outrider) Metrics(ctx context.Context) (string, error) {
	b, err := o.get(ctx, "/metrics")
	return string(b), err
}

// PreStop calls the hook as a kubelet does.
func (o *Outrider) PreStop(ctx context.Context) error {
	_, err := o.get(ctx, "/prestop")
	return err
}

// Ready tells whether /readyz is green, and what it says.
func (o *Outrider) Ready(ctx context.Context) (bool, string, error) {
	code, b, err := o.ask(ctx, "/readyz")
	return code == http.StatusOK, string(b), err
}

func (o *Outrider) get(ctx context.Context, path string) ([]byte, error) {
	code, b, err := o.ask(ctx, path)
	if err == nil && code != http.StatusOK {
		err = fmt.Errorf("%s: status %d: %s", path, code, b)
	}
	return b, err
}

func (o *Outrider) ask(ctx context.Context, path string) (int, []byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, o.URL+path, nil)
	if err != nil {
		return 0, nil, err
	}
	a, err := (&http.Client{Timeout: time.Minute}).Do(r)
	if err != nil {
		return 0, nil, err
	}
	defer a.Body.Close()
	b, err := io.ReadAll(a.Body)
	return a.StatusCode, b, err
}

// Protected waits until the sidecar says that the database is protected.
func (o *Outrider) Protected(ctx context.Context) error {
	var last Status
	err := Until(ctx, "protection", func() (bool, error) {
		if !o.Running() {
			return false, fmt.Errorf("outrider has ended: %s", o.Tail(10))
		}
		if st, err := o.Status(ctx); err == nil {
			last = st
		}
		return last.State == "protected", nil
	})
	if err != nil {
		return fmt.Errorf("%w; the last state was %q: %s\n%s", err, last.State, last.Reason, o.Tail(10))
	}
	return nil
}
