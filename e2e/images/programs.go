package images

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// nobody is the user of our own images: the one of distroless' nonroot.
const nobody = "65532:65532"

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
	for _, p := range [][3]string{
		{"pause", "./e2e/images/pause", "localhost/pause:1"},
		{"outrider", "./sidecar", "docker.io/library/outrider:" + Tag},
		{"outrider-webhook", "./webhook", "docker.io/library/outrider-webhook:" + Tag},
		{"devcloud", "./e2e/devcloud", "docker.io/library/devcloud:" + Tag},
	} {
		if err := program(ctx, tmp, p[0], p[1], p[2]); err != nil {
			return nil, err
		}
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
			return nil, fmt.Errorf("looking for the images, which `make test-images` builds: %w", err)
		}
		paths = append(paths, path)
	}
	return paths, nil
}

// program builds a static program of this module, and the archive of an image of nothing else.
func program(ctx context.Context, dir, name, source, image string) error {
	top, err := moduleTop()
	if err != nil {
		return err
	}
	binary := filepath.Join(dir, name)
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", binary, source)
	build.Dir = top
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("building %s: %w: %s", source, err, out)
	}
	err = Write(filepath.Join(dir, name+".tar"), []File{
		{Path: "/etc/passwd", Mode: 0o644, Content: []byte("root:x:0:0:root:/:/none\nnonroot:x:65532:65532:nonroot:/:/none\n")},
		{Path: "/etc/group", Mode: 0o644, Content: []byte("root:x:0:\nnonroot:x:65532:\n")},
		{Path: "/tmp/", Mode: 0o1777},
		// Not at the top: /outrider is a directory in pods, where the volumes of the sidecar are.
		{Path: "/usr/local/bin/" + name, Mode: 0o755, From: binary},
	}, Image{Name: image, Config: Config{User: nobody, Entrypoint: []string{"/usr/local/bin/" + name}, Env: []string{"PATH=/usr/local/bin"}}})
	if err != nil {
		return err
	}
	return os.Remove(binary)
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
