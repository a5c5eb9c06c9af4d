// Package world is where the tests of e2e play: the programs, built with the race detector, a stage of their own with
// the stand-in cloud, and the ledger as the judge.
package world

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"outrider.dev/e2e/stage"
)

// Programs are what a test binary builds once, and the database clusters that its servers are copied from. Its methods
// are safe for concurrent use.
type Programs struct {
	dir string

	mu        sync.Mutex
	templates map[int]*template
}

type template struct {
	stage *stage.Stage
	data  string
}

// Run builds the programs, hands them to use, and runs the tests. Its result is the exit code of the test binary.
func Run(m *testing.M, use func(*Programs)) int {
	p, err := Build()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	use(p)
	code := m.Run()
	if err := p.Close(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// Build makes outrider with the race detector in it, and devcloud, whose own tests have it.
func Build() (*Programs, error) {
	dir, err := os.MkdirTemp("", "outrider-bin-")
	if err != nil {
		return nil, err
	}
	p := &Programs{dir: dir, templates: map[int]*template{}}
	// Servers and outrider run as another user when the tests run as root.
	err = os.Chmod(dir, 0o755)
	if err == nil {
		err = p.build("outrider", "outrider.dev/sidecar", "-race")
	}
	if err == nil {
		err = p.build("devcloud", "outrider.dev/e2e/devcloud")
	}
	if err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

func (p *Programs) build(name, pkg string, args ...string) error {
	args = append(append([]string{"build"}, args...), "-o", filepath.Join(p.dir, name), pkg)
	if out, err := exec.Command("go", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("building %s: %w: %s", pkg, err, out)
	}
	return nil
}

// Plain is a directory with programs without the race detector, which multiplies memory and time.
func (p *Programs) Plain() (string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	dir := filepath.Join(p.dir, "plain")
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return "", err
	}
	err := p.build("plain/outrider", "outrider.dev/sidecar")
	return dir, errors.Join(err, os.Symlink("../devcloud", filepath.Join(dir, "devcloud")))
}

// template is a new database cluster with WAL segments of so many MiB. It is made once: initdb takes longer than
// most of what is done with its result. All copies have the same system identifier.
func (p *Programs) template(ctx context.Context, segmentMiB int) (string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if t := p.templates[segmentMiB]; t != nil {
		return t.data, nil
	}
	data, s, err := p.newTemplate(ctx, segmentMiB)
	if err != nil {
		return "", fmt.Errorf("making a database cluster to copy from: %w", err)
	}
	p.templates[segmentMiB] = &template{stage: s, data: data}
	return data, nil
}

func (p *Programs) newTemplate(ctx context.Context, segmentMiB int) (string, *stage.Stage, error) {
	s, err := stage.New(p.dir)
	if err != nil {
		return "", nil, err
	}
	server, err := s.NewServer("template")
	if err == nil {
		ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
		defer cancel()
		server.Initdb = []string{fmt.Sprintf("--wal-segsize=%d", segmentMiB)}
		err = server.Init(ctx, "max_prepared_transactions = 10", "max_wal_size = 256MB", "checkpoint_timeout = 30s", "min_wal_size = 32MB")
	}
	if err != nil {
		return "", nil, errors.Join(err, s.Close())
	}
	return server.Data, s, nil
}

// Close removes all of it.
func (p *Programs) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var errs []error
	for _, t := range p.templates {
		errs = append(errs, t.stage.Close())
	}
	return errors.Join(append(errs, os.RemoveAll(p.dir))...)
}
