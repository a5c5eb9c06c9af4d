package drill

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// FindServer finds the server's program: in bindir if that is named, else on the path, or where packages of distributions
// have it. Its major version must be that of the data, 0 if that is not known.
func FindServer(ctx context.Context, bindir string, major int) (string, error) {
	places := []string{filepath.Join(bindir, "postgres")}
	if bindir == "" {
		n := strconv.Itoa(major)
		places = []string{"postgres", "/usr/lib/postgresql/" + n + "/bin/postgres", "/usr/pgsql-" + n + "/bin/postgres"}
	}
	var seen []string
	for _, place := range places {
		path, err := exec.LookPath(place)
		if err != nil {
			continue
		}
		found, err := majorOf(ctx, path)
		if err != nil {
			return "", err
		}
		if found == major || major == 0 {
			return path, nil
		}
		seen = append(seen, fmt.Sprintf("%s is of PostgreSQL %d", path, found))
	}
	if len(seen) > 0 {
		return "", fmt.Errorf("the database is of PostgreSQL %d, and %s: hold the drill with the image, or the packages, of the database", major, strings.Join(seen, ", "))
	}
	return "", fmt.Errorf("there is no server of PostgreSQL %d here: hold the drill with the image, or the packages, of the database, or name their directory with --bindir", major)
}

// majorOf asks the server's program, which says "postgres (PostgreSQL) 15.14 (Debian …)".
func majorOf(ctx context.Context, path string) (int, error) {
	out, err := exec.CommandContext(ctx, path, "--version").Output()
	if err != nil {
		return 0, fmt.Errorf("asking %s for its version: %w", path, err)
	}
	m := regexp.MustCompile(`\) ([0-9]+)`).FindSubmatch(out)
	if m == nil {
		return 0, fmt.Errorf("asking %s for its version: it says %q", path, strings.TrimSpace(string(out)))
	}
	return strconv.Atoi(string(m[1]))
}
