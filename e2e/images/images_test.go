package images_test

import (
	"archive/tar"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"outrider.dev/e2e/images"
)

// TestPostgres looks for what the image cannot do without. Whether it works, the scenarios show.
func TestPostgres(t *testing.T) {
	path := filepath.Join(t.TempDir(), "postgres.tar")
	if err := images.Postgres(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var names []string
	for archive := tar.NewReader(f); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if filepath.Ext(header.Name) == ".tar" {
			names = list(t, archive)
		}
	}
	for _, want := range []string{
		"usr/lib/postgresql/15/bin/postgres", "usr/lib/postgresql/15/bin/psql", "usr/lib/x86_64-linux-gnu/libc.so.6", "usr/bin/sh",
		"usr/lib64/ld-linux-x86-64.so.2", "usr/local/bin/gosu",
	} {
		if !slices.Contains(names, want) {
			t.Errorf("%s is not in the image", want)
		}
	}
}

func list(t *testing.T, content io.Reader) []string {
	t.Helper()
	var names []string
	for layer := tar.NewReader(content); ; {
		header, err := layer.Next()
		if errors.Is(err, io.EOF) {
			return names
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, header.Name)
	}
}
