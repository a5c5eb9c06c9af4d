package main

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// nobody is the user of all images, in numbers, so that a kubelet can tell that it is not root.
const nobody = "65532:65532"

// binDir is on the PATH, so that `kubectl exec POD -c outrider -- outrider status` needs no path.
const binDir = "usr/local/bin"

// built is an image for one platform.
type built struct {
	platform v1.Platform
	image    v1.Image
}

// assemble compiles a program and makes its image, for each platform.
func assemble(ctx context.Context, top string, p program, o options) ([]built, error) {
	dir, err := os.MkdirTemp("", "outrider-images-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }() // nobody misses what stays
	var all []built
	for _, platform := range o.platforms {
		output := filepath.Join(dir, p.name)
		if err := compile(ctx, top, p, link{version: o.version, sidecar: o.sidecar}, platform, output); err != nil {
			return nil, err
		}
		binary, err := os.ReadFile(output)
		if err != nil {
			return nil, err
		}
		img, err := imageOf(p, binary, o.version, platform)
		if err != nil {
			return nil, fmt.Errorf("making the image for %s: %w", platform, err)
		}
		all = append(all, built{platform, img})
	}
	return all, nil
}

// imageOf is an image of one layer, with the program and next to nothing else: no shell, no package manager, no
// certificates, which are compiled in. Its times are all the beginning of 1970, so that it depends on its content alone.
func imageOf(p program, binary []byte, version string, platform v1.Platform) (v1.Image, error) {
	raw, err := layerOf(p.name, binary)
	if err != nil {
		return nil, err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(raw)), nil },
		tarball.WithMediaType(types.OCILayer))
	if err != nil {
		return nil, err
	}
	img, err := mutate.AppendLayers(mutate.MediaType(mutate.ConfigMediaType(empty.Image, types.OCIConfigJSON), types.OCIManifestSchema1), layer)
	if err != nil {
		return nil, err
	}
	file, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	file = file.DeepCopy()
	file.OS, file.Architecture, file.Variant = platform.OS, platform.Architecture, platform.Variant
	file.Created = v1.Time{Time: time.Unix(0, 0).UTC()}
	file.Config = v1.Config{
		User: nobody, WorkingDir: "/", Env: []string{"PATH=/" + binDir}, Entrypoint: []string{"/" + binDir + "/" + p.name},
		Labels: map[string]string{
			"org.opencontainers.image.title":       p.name,
			"org.opencontainers.image.description": p.about,
			"org.opencontainers.image.licenses":    "Apache-2.0",
			"org.opencontainers.image.version":     version,
		},
	}
	return mutate.ConfigFile(img, file)
}

// layerOf is the tar of the files.
func layerOf(name string, binary []byte) ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	dir := func(path string, mode int64) error {
		return w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: path + "/", Mode: mode, ModTime: time.Unix(0, 0)})
	}
	file := func(path string, mode int64, content []byte) error {
		err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: path, Mode: mode, Size: int64(len(content)), ModTime: time.Unix(0, 0)})
		if err == nil {
			_, err = w.Write(content)
		}
		return err
	}
	for _, step := range []func() error{
		func() error { return dir("etc", 0o755) },
		func() error { return file("etc/group", 0o644, []byte("root:x:0:\nnonroot:x:65532:\n")) },
		func() error {
			return file("etc/passwd", 0o644, []byte("root:x:0:0:root:/:/none\nnonroot:x:65532:65532:nonroot:/:/none\n"))
		},
		func() error { return dir("tmp", 0o1777) },
		func() error { return dir("usr", 0o755) },
		func() error { return dir("usr/local", 0o755) },
		func() error { return dir(binDir, 0o755) },
		func() error { return file(binDir+"/"+name, 0o755, binary) },
		w.Close,
	} {
		if err := step(); err != nil {
			return nil, fmt.Errorf("writing the layer: %w", err)
		}
	}
	return b.Bytes(), nil
}
