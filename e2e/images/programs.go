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

// Pause builds the image that holds the namespaces of pods.
func Pause(ctx context.Context, dir string) (string, error) {
	return program(ctx, dir, "pause", "./e2e/images/pause", "localhost/pause:1")
}

// Outrider builds the sidecar's image with that tag, as the development overlay calls it.
func Outrider(ctx context.Context, dir, tag string) (string, error) {
	return program(ctx, dir, "outrider", "./sidecar", "docker.io/library/outrider:"+tag)
}

// Webhook builds the webhook's image.
func Webhook(ctx context.Context, dir, tag string) (string, error) {
	return program(ctx, dir, "outrider-webhook", "./webhook", "docker.io/library/outrider-webhook:"+tag)
}

// Devcloud builds the image of the stand-in for Alibaba Cloud.
func Devcloud(ctx context.Context, dir, tag string) (string, error) {
	return program(ctx, dir, "devcloud", "./e2e/devcloud", "docker.io/library/devcloud:"+tag)
}

// program builds a static program of this module, and an image of nothing else, and returns the path of its archive.
func program(ctx context.Context, dir, name, source, image string) (string, error) {
	top, err := moduleTop()
	if err != nil {
		return "", err
	}
	binary := filepath.Join(dir, name)
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", binary, source)
	build.Dir = top
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building %s: %w: %s", source, err, out)
	}
	i := &Image{
		Names:  []string{image},
		Config: Config{User: nobody, Entrypoint: []string{"/" + name}, WorkingDir: "/"},
		Files: []File{
			{Path: "/etc/passwd", Mode: 0o644, Content: []byte("root:x:0:0:root:/:/none\nnonroot:x:65532:65532:nonroot:/:/none\n")},
			{Path: "/etc/group", Mode: 0o644, Content: []byte("root:x:0:\nnonroot:x:65532:\n")},
			{Path: "/tmp/", Mode: 0o1777},
			{Path: "/" + name, Mode: 0o755, From: binary},
		},
	}
	archive := filepath.Join(dir, name+".tar")
	if err := i.Write(archive); err != nil {
		return "", err
	}
	return archive, os.Remove(binary)
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
