// Package stage sets up what a scene needs, as processes of their own: the stand-in cloud, PostgreSQL servers, and
// outrider beside them, exactly as a person would run them. The demo, the durability cycles and the scenario tests
// play on it.
package stage

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// Bucket and Region are what the stand-in cloud has.
const (
	Bucket = "demo"
	Region = "cn-hangzhou"
)

// Stage is a directory with everything that runs on it. Its methods are safe for concurrent use.
type Stage struct {
	Dir   string
	bin   string // where outrider and devcloud are
	pgBin string
	cred  *syscall.Credential // who runs PostgreSQL and outrider when we are root

	mu      sync.Mutex
	running []*Process
	number  int
}

// New makes a stage in a new temporary directory. bin is the directory of the programs outrider and devcloud.
func New(bin string) (*Stage, error) {
	pgBin, err := findPostgres()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "outrider-")
	if err != nil {
		return nil, fmt.Errorf("making a stage: %w", err)
	}
	s := &Stage{Dir: dir, bin: bin, pgBin: pgBin}
	if os.Getuid() == 0 {
		if s.cred, err = serverUser(); err != nil {
			return nil, errors.Join(err, os.RemoveAll(dir))
		}
	}
	if err := s.hand(dir); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return s, nil
}

// Close ends what still runs and removes the directory.
func (s *Stage) Close() error {
	s.Stop()
	return os.RemoveAll(s.Dir)
}

// BinDir is where PostgreSQL's programs are.
func (s *Stage) BinDir() string { return s.pgBin }

// Hand gives a directory with all that is in it to the user that runs PostgreSQL.
func (s *Stage) Hand(dir string) error {
	return filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return s.hand(path)
	})
}

// hand gives a path to the user that runs PostgreSQL.
func (s *Stage) hand(path string) error {
	if s.cred == nil {
		return nil
	}
	return os.Chown(path, int(s.cred.Uid), int(s.cred.Gid))
}

// Mkdir makes a directory of that user below the stage and returns its path.
func (s *Stage) Mkdir(name string) (string, error) {
	dir := filepath.Join(s.Dir, name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", err
	}
	return dir, s.hand(dir)
}

// next numbers things that need names of their own.
func (s *Stage) next() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.number++
	return s.number
}

// findPostgres finds a directory with server binaries: the newest of the system's, or what is in PATH.
func findPostgres() (string, error) {
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	slices.SortFunc(found, func(x, y string) int { return majorOf(y) - majorOf(x) })
	for _, path := range found {
		if majorOf(path) >= 14 {
			return filepath.Dir(path), nil
		}
	}
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		if _, err := os.Stat(filepath.Join(dir, "initdb")); err == nil {
			return dir, nil
		}
	}
	return "", errors.New("looking for PostgreSQL server binaries (14 or later): there are none: run .ci/setup, or apt-get install postgresql")
}

func majorOf(path string) int {
	n, _ := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(path))))
	return n
}

func serverUser() (*syscall.Credential, error) {
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, uerr := strconv.ParseUint(u.Uid, 10, 32)
		gid, gerr := strconv.ParseUint(u.Gid, 10, 32)
		if err := errors.Join(uerr, gerr); err != nil {
			return nil, err
		}
		return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
	}
	return nil, errors.New("PostgreSQL does not run as root, and there is no user postgres or nobody to run it")
}

// Until asks again until ask says yes, an error comes, or the deadline of ctx is over.
func Until(ctx context.Context, what string, ask func() (bool, error)) error {
	for {
		ok, err := ask()
		if err != nil {
			return fmt.Errorf("waiting for %s: %w", what, err)
		}
		if ok {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w", what, context.Cause(ctx))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Stop ends what still runs and leaves the directory.
func (s *Stage) Stop() {
	s.mu.Lock()
	running := slices.Clone(s.running)
	s.mu.Unlock()
	for _, p := range slices.Backward(running) {
		p.Kill()
	}
}
