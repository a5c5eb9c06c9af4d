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

// The majors in the image: that of Debian's package, which brings all client programs, and the one that README's examples
// name, whose server .ci/fetch-postgres has fetched.
const (
	debianMajor  = "15"
	exampleMajor = "17"
)

//go:embed entrypoint.sh
var postgresEntrypoint []byte

// Postgres builds the archive of test images that behave as docker-library's do, of the files of Debian's packages: the
// container starts as root and changes its user, the first start makes a database with a server of its own that no network
// reaches, and the image asks for SIGINT to stop. They are called postgres:15 and postgres:17. A third name,
// postgres:15-sigterm, does not ask for a signal, as some images do: SIGTERM makes PostgreSQL wait for its clients.
func Postgres(ctx context.Context, archive string) error {
	files, err := postgresFiles(ctx)
	if err != nil {
		return fmt.Errorf("collecting the files of PostgreSQL: %w", err)
	}
	silent := postgresImage(debianMajor)
	silent.Name += "-sigterm"
	silent.Config.StopSignal = ""
	return Write(archive, files, postgresImage(debianMajor), silent, postgresImage(exampleMajor))
}

func postgresImage(major string) Image {
	return Image{Name: "docker.io/library/postgres:" + major, Config: Config{
		Env: []string{
			// What the one has not got, the other's clients do.
			fmt.Sprintf("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/lib/postgresql/%s/bin:/usr/lib/postgresql/%s/bin",
				major, debianMajor),
			"LANG=C.UTF-8", "PG_MAJOR=" + major, "PGDATA=/var/lib/postgresql/data",
		},
		Entrypoint: []string{"docker-entrypoint.sh"}, Cmd: []string{"postgres"},
		StopSignal: "SIGINT",
		Volumes:    map[string]struct{}{"/var/lib/postgresql/data": {}},
	}}
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
	top, err := moduleTop()
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(filepath.Join(top, ".cache", "pg", exampleMajor)); err != nil {
		return nil, fmt.Errorf("looking for PostgreSQL %s, which make setup fetches if OUTRIDER_TEST_MAJORS leaves it in: %w", exampleMajor, err)
	}
	var servers []File
	for _, tree := range [][2]string{
		{"/usr/lib/postgresql/" + debianMajor, "/usr/lib/postgresql/" + debianMajor},
		{filepath.Join(top, ".cache", "pg", exampleMajor), "/usr/lib/postgresql/" + exampleMajor},
	} {
		more, err := copyTree(tree[0], tree[1])
		if err != nil {
			return nil, err
		}
		servers = append(servers, more...)
	}
	files = append(files, servers...)
	for _, tree := range []string{"/usr/share/postgresql/" + debianMajor, "/usr/share/zoneinfo", "/usr/lib/locale/C.utf8"} {
		more, err := copyTree(tree, tree)
		if err != nil {
			return nil, err
		}
		files = append(files, more...)
	}
	libraries, err := librariesOf(ctx, servers)
	if err != nil {
		return nil, err
	}
	return append(files, libraries...), nil
}

// sample is added to the sample of the configuration, as docker-library does: a container is to be reached.
const sample = "\nlisten_addresses = '*'\nunix_socket_directories = '/var/run/postgresql'\n"

// copyTree takes all files and links below a directory to another place. The compiler and what it compiled queries with are
// left out: they are larger than all the rest, and PostgreSQL does without. So are headers and archives of libraries.
func copyTree(top, to string) ([]File, error) {
	var files []File
	err := filepath.WalkDir(top, func(path string, entry fs.DirEntry, err error) error {
		f := File{Path: to + strings.TrimPrefix(path, top), From: path}
		switch {
		case err != nil:
			return err
		case entry.IsDir() && (entry.Name() == "bitcode" || entry.Name() == "include"):
			return fs.SkipDir
		case entry.IsDir(), strings.HasPrefix(entry.Name(), "llvmjit"), strings.HasSuffix(entry.Name(), ".a"):
			return nil
		case entry.Type() == fs.ModeSymlink:
			f.From = ""
			f.Link, err = os.Readlink(path)
		case entry.Name() == "postgresql.conf.sample":
			f.From, f.Mode = "", 0o644
			f.Content, err = os.ReadFile(path)
			f.Content = append(f.Content, sample...)
		}
		files = append(files, f)
		return err
	})
	if err == nil && len(files) == 0 {
		err = fmt.Errorf("%s is empty: %w", top, fs.ErrNotExist)
	}
	return files, err
}

// librariesOf are the system's shared libraries that ldd names for programs and libraries.
func librariesOf(ctx context.Context, files []File) ([]File, error) {
	found := map[string]string{}
	var args []string
	for _, f := range files {
		if dir := filepath.Base(filepath.Dir(f.From)); dir == "bin" || strings.HasSuffix(f.From, ".so") {
			args = append(args, f.From)
		}
	}
	out, err := exec.CommandContext(ctx, "ldd", args...).Output()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) { // it complains about scripts, and goes on
		return nil, fmt.Errorf("asking ldd for libraries: %w", err)
	}
	of := "" // whose libraries the lines are
	for line := range strings.Lines(string(out)) {
		if name, ok := strings.CutSuffix(strings.TrimSpace(line), ":"); ok {
			of = name
		}
		for _, word := range strings.Fields(line) {
			system := strings.HasPrefix(word, "/lib") || strings.HasPrefix(word, "/usr/lib/x86_64") || strings.HasPrefix(word, "/usr/lib/aarch64")
			if system && !strings.HasSuffix(word, ":") {
				path := word
				if strings.HasPrefix(path, "/lib") {
					path = "/usr" + path // where the links of the image lead
				}
				found[path] = word
			}
		}
		// Procedural languages whose interpreters are not here do not work. Programs have to.
		if strings.Contains(line, "not found") && !strings.HasSuffix(of, ".so") {
			return nil, fmt.Errorf("ldd: %s: %s", of, strings.TrimSpace(line))
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
