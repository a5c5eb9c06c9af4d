package images

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// The user of PostgreSQL in docker-library's image that is based on Debian.
const postgresID = 999

// postgresMajor is that of Debian's package, which brings all client programs.
const postgresMajor = "15"

//go:embed entrypoint.sh
var postgresEntrypoint []byte

// Postgres builds the archive of a test image that behaves as docker-library's does, of the files of Debian's packages: the container
// starts as root and changes its user, the first start makes a database with a server of its own that no network reaches,
// and the image asks for SIGINT to stop. It is called postgres:15. A second name, postgres:15-sigterm, does not ask for a
// signal, as some images do: SIGTERM makes PostgreSQL wait for its clients.
func Postgres(ctx context.Context, archive string) error {
	files, err := postgresFiles(ctx)
	if err != nil {
		return fmt.Errorf("collecting the files of PostgreSQL %s: %w", postgresMajor, err)
	}
	asks := Image{Name: "docker.io/library/postgres:" + postgresMajor, Config: Config{
		Env: []string{
			"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/lib/postgresql/" + postgresMajor + "/bin",
			"LANG=C.UTF-8", "PG_MAJOR=" + postgresMajor, "PGDATA=/var/lib/postgresql/data",
		},
		Entrypoint: []string{"docker-entrypoint.sh"}, Cmd: []string{"postgres"},
		StopSignal: "SIGINT",
		Volumes:    map[string]struct{}{"/var/lib/postgresql/data": {}},
	}}
	doesNot := asks
	doesNot.Name += "-sigterm"
	doesNot.Config.StopSignal = ""
	return Write(archive, files, asks, doesNot)
}

func postgresFiles(ctx context.Context) ([]File, error) {
	files := []File{
		{Path: "/bin", Link: "usr/bin"},
		{Path: "/sbin", Link: "usr/sbin"},
		{Path: "/lib", Link: "usr/lib"},
		{Path: "/lib64", Link: "usr/lib64"},
		{Path: "/var/run", Link: "/run"},
		{Path: "/tmp/", Mode: 0o1777},
		{Path: "/docker-entrypoint-initdb.d/", Mode: 0o755},
		{Path: "/run/postgresql/", Mode: 0o3777, UID: postgresID, GID: postgresID},
		{Path: "/var/lib/postgresql/", Mode: 0o1777, UID: postgresID, GID: postgresID},
		{Path: "/var/lib/postgresql/data/", Mode: 0o1777, UID: postgresID, GID: postgresID},
		{Path: "/etc/passwd", Mode: 0o644, Content: []byte("root:x:0:0:root:/root:/bin/sh\npostgres:x:999:999::/var/lib/postgresql:/bin/sh\n")},
		{Path: "/etc/group", Mode: 0o644, Content: []byte("root:x:0:\npostgres:x:999:\n")},
		{Path: "/etc/nsswitch.conf", Mode: 0o644, Content: []byte("passwd: files\ngroup: files\nhosts: files dns\n")},
		{Path: "/usr/local/bin/docker-entrypoint.sh", Mode: 0o755, Content: postgresEntrypoint},
		{Path: "/usr/local/bin/gosu", Mode: 0o755, From: "/usr/sbin/gosu"},
		{Path: "/usr/bin/busybox", Mode: 0o755, From: "/bin/busybox"},
	}
	applets, err := exec.CommandContext(ctx, "/bin/busybox", "--list").Output()
	if err != nil {
		return nil, fmt.Errorf("asking busybox for its programs: %w", err)
	}
	for _, name := range strings.Fields(string(applets)) {
		if name != "busybox" {
			files = append(files, File{Path: "/usr/bin/" + name, Link: "busybox"})
		}
	}
	programs := "/usr/lib/postgresql/" + postgresMajor
	for _, tree := range []string{programs, "/usr/share/postgresql/" + postgresMajor, "/usr/share/zoneinfo", "/usr/lib/locale/C.utf8"} {
		more, err := copyTree(tree)
		if err != nil {
			return nil, err
		}
		files = append(files, more...)
	}
	libraries, err := librariesOf(ctx, files, programs)
	if err != nil {
		return nil, err
	}
	return append(files, libraries...), nil
}

// copyTree takes all files and links below a directory. The compiler and what it compiled queries with are left out: they
// are larger than all the rest, and PostgreSQL does without.
func copyTree(top string) ([]File, error) {
	var files []File
	err := filepath.WalkDir(top, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && entry.Name() == "bitcode":
			return fs.SkipDir
		case strings.HasPrefix(entry.Name(), "llvmjit"), entry.IsDir():
			return nil
		case entry.Type() == fs.ModeSymlink:
			target, err := os.Readlink(path)
			files = append(files, File{Path: path, Link: target})
			return err
		}
		f := File{Path: path, From: path}
		if filepath.Base(path) == "postgresql.conf.sample" {
			// As in docker-library's image: a container is to be reached.
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			f = File{Path: path, Mode: 0o644, Content: append(content, "\nlisten_addresses = '*'\n"...)}
		}
		files = append(files, f)
		return nil
	})
	if err == nil && len(files) == 0 {
		err = fmt.Errorf("%s is empty: %w", top, fs.ErrNotExist)
	}
	return files, err
}

// librariesOf are the shared libraries that ldd names for programs and libraries below a directory.
func librariesOf(ctx context.Context, files []File, below string) ([]File, error) {
	found := map[string]string{}
	var args []string
	for _, f := range files {
		if strings.HasPrefix(f.From, below+"/bin/") || strings.HasPrefix(f.From, below+"/lib/") && strings.HasSuffix(f.From, ".so") {
			args = append(args, f.From)
		}
	}
	out, err := exec.CommandContext(ctx, "ldd", args...).Output()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) { // it complains about scripts, and goes on
		return nil, fmt.Errorf("asking ldd for libraries: %w", err)
	}
	for line := range strings.Lines(string(out)) {
		for _, word := range strings.Fields(line) {
			if strings.HasPrefix(word, "/") && !strings.HasSuffix(word, ":") {
				path := word
				if strings.HasPrefix(path, "/lib") {
					path = "/usr" + path // where the links of the image lead
				}
				found[path] = word
			}
		}
		if strings.Contains(line, "not found") {
			return nil, fmt.Errorf("ldd: %s", strings.TrimSpace(line))
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("ldd names no library: %s", out)
	}
	var libraries []File
	for _, path := range slices.Sorted(maps.Keys(found)) {
		libraries = append(libraries, File{Path: path, From: found[path], Mode: 0o755})
	}
	return libraries, nil
}
