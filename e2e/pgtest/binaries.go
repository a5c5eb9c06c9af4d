// Package pgtest starts real PostgreSQL servers for tests. Each server has its own directories and listens on a Unix
// socket only; it is gone, with everything it wrote, when its test ends. fsync stays on, because durability is what
// most tests here are about.
package pgtest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// Oldest and Newest are the PostgreSQL majors that Outrider supports.
const (
	Oldest = 14
	Newest = 18
)

// Environment variables that choose the servers.
const (
	// EnvDir names a directory that holds <major>/bin for majors that the distribution does not have; the default
	// is .cache/pg below the module root, which .ci/fetch-postgres fills.
	EnvDir = "OUTRIDER_TEST_PG_DIR"
	// EnvMajors restricts Majors to a comma-separated list, and makes each of them mandatory.
	EnvMajors = "OUTRIDER_TEST_MAJORS"
)

// Binaries is the directory with postgres and initdb of a major: the distribution's, else the one that
// .ci/fetch-postgres left. Where there is none the test is skipped, or fails when the environment variable CI is set.
// Only the distribution's has pg_waldump and the other programs; see Tool.
func Binaries(t testing.TB, major int) string {
	t.Helper()
	dir, err := findBinaries(major)
	if err != nil {
		missing(t, "%v", err)
	}
	return dir
}

// Majors lists the majors that tests can run against, oldest first, never none (see Binaries).
func Majors(t testing.TB) []int {
	t.Helper()
	if list := os.Getenv(EnvMajors); list != "" {
		return demandedMajors(t, list)
	}
	var majors []int
	for m := Oldest; m <= Newest; m++ {
		switch _, err := findBinaries(m); {
		case err == nil:
			majors = append(majors, m)
		case !errors.Is(err, fs.ErrNotExist):
			t.Fatal(err)
		}
	}
	if len(majors) == 0 {
		missing(t, "no PostgreSQL %d to %d is installed: run .ci/fetch-postgres", Oldest, Newest)
	}
	return majors
}

func demandedMajors(t testing.TB, list string) []int {
	t.Helper()
	var majors []int
	for s := range strings.SplitSeq(list, ",") {
		m, err := strconv.Atoi(strings.TrimSpace(s))
		if err != nil {
			t.Fatalf("%s=%q: expected PostgreSQL majors joined by commas, such as 14,18", EnvMajors, list)
		}
		if _, err := findBinaries(m); err != nil {
			t.Fatalf("%s=%q: %v", EnvMajors, list, err)
		}
		majors = append(majors, m)
	}
	return majors
}

// Newest available major, for tests that need some server and no particular one.
func newestMajor(t testing.TB) int {
	t.Helper()
	majors := Majors(t)
	return majors[len(majors)-1]
}

// Tool is the path of a program of this major, such as pg_waldump. The test is skipped where the major's
// installation lacks it, or fails when CI is set; HasTool asks first.
func Tool(t testing.TB, major int, name string) string {
	t.Helper()
	path := filepath.Join(Binaries(t, major), name)
	if !executable(path) {
		missing(t, "PostgreSQL %d is installed without %s", major, name)
	}
	return path
}

// HasTool tells whether the installation of this major has the program.
func HasTool(t testing.TB, major int, name string) bool {
	t.Helper()
	return executable(filepath.Join(Binaries(t, major), name))
}

func findBinaries(major int) (string, error) {
	places := []string{fmt.Sprintf("/usr/lib/postgresql/%d/bin", major)}
	cache, err := cacheDir()
	if err != nil {
		return "", err
	}
	places = append(places, filepath.Join(cache, strconv.Itoa(major), "bin"))
	for _, dir := range places {
		if executable(filepath.Join(dir, "postgres")) && executable(filepath.Join(dir, "initdb")) {
			return dir, nil
		}
	}
	return "", fmt.Errorf("PostgreSQL %d is neither in %s: run .ci/fetch-postgres %d: %w",
		major, strings.Join(places, " nor in "), major, fs.ErrNotExist)
}

func cacheDir() (string, error) {
	if dir := os.Getenv(EnvDir); dir != "" {
		return filepath.Abs(dir)
	}
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("finding the module root: %w", err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return filepath.Join(dir, ".cache", "pg"), nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", fmt.Errorf("no go.mod above the working directory: set %s", EnvDir)
		}
		dir = parent
	}
}

func executable(path string) bool {
	fi, err := os.Stat(path)
	return err == nil && fi.Mode().IsRegular() && fi.Mode()&0o111 != 0
}

func missing(t testing.TB, format string, args ...any) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}
