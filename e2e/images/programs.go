package images

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// Tag is that of the images of this repository's programs.
const Tag = "dev"

// Dir is where Build puts archives: .cache/images at the top of this repository.
func Dir() (string, error) {
	top, err := moduleTop()
	return filepath.Join(top, ".cache", "images"), err
}

// Build builds all images that the cluster needs and returns their archives: PostgreSQL, the programs of this repository
// tagged with [Tag], and what holds the namespaces of pods. It may have to fetch modules.
func Build(ctx context.Context) ([]string, error) {
	dir, err := Dir()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	tmp, err := os.MkdirTemp(dir, ".new-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(tmp) }() // it is empty by then, or something else went wrong
	if err := Postgres(ctx, filepath.Join(tmp, "postgres.tar")); err != nil {
		return nil, err
	}
	if err := pause(ctx, tmp); err != nil {
		return nil, err
	}
	if err := run(ctx, "building the images of this repository", "run", "./images/build", "-out", tmp, "-tag", Tag); err != nil {
		return nil, err
	}
	for _, archive := range archives() {
		if err := os.Rename(filepath.Join(tmp, archive), filepath.Join(dir, archive)); err != nil {
			return nil, err
		}
	}
	return Archives()
}

func archives() []string {
	return []string{"pause.tar", "outrider.tar", "outrider-webhook.tar", "devcloud.tar", "postgres.tar"}
}

// Archives are what Build has built.
func Archives() ([]string, error) {
	dir, err := Dir()
	if err != nil {
		return nil, err
	}
	var paths []string
	for _, name := range archives() {
		path := filepath.Join(dir, name)
		if _, err := os.Stat(path); err != nil {
			return nil, fmt.Errorf("looking for the images, which `make e2e` and `make cluster` build: %w", err)
		}
		paths = append(paths, path)
	}
	return paths, nil
}

// pause builds the image that holds the namespaces of pods.
func pause(ctx context.Context, dir string) error {
	binary := filepath.Join(dir, "pause")
	if err := run(ctx, "building pause", "build", "-trimpath", "-ldflags=-s -w", "-o", binary, "./e2e/images/pause"); err != nil {
		return err
	}
	err := Write(binary+".tar", []File{{Path: "/pause", Mode: 0o755, From: binary}},
		Image{Name: "localhost/pause:1", Config: Config{Entrypoint: []string{"/pause"}}})
	if err != nil {
		return err
	}
	return os.Remove(binary)
}

// run runs the go command at the top of this repository.
func run(ctx context.Context, what string, args ...string) error {
	top, err := moduleTop()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = top
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", what, err, out)
	}
	return nil
}

// moduleTop is the top of this repository, above the working directory.
func moduleTop() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, ".ci", "setup")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("looking for the top of the repository above the working directory: %w", os.ErrNotExist)
		}
	}
}
