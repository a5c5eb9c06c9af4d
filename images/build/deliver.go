package main

import (
	"archive/tar"
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// deliver writes or pushes an image and says where it is.
func (o options) deliver(ctx context.Context, program string, all []built) (string, error) {
	var how []name.Option
	if o.insecure {
		how = append(how, name.Insecure)
	}
	ref, err := name.ParseReference(o.reference(program), how...)
	if err != nil {
		return "", fmt.Errorf("the name of the image: %w", err)
	}
	if o.push {
		return push(ctx, ref, all)
	}
	if err := os.MkdirAll(o.out, 0o755); err != nil {
		return "", err
	}
	path := filepath.Join(o.out, program+".tar")
	if len(all) == 1 {
		// The form of `docker save`, which every engine loads.
		if err := replace(path, func(f *os.File) error { return tarball.Write(ref, all[0].image, f) }); err != nil {
			return "", err
		}
	} else if err := replace(path, func(f *os.File) error { return writeLayout(f, ref, all) }); err != nil {
		return "", err
	}
	size, err := sizeOf(path)
	return fmt.Sprintf("%s: %s (%.1f MB)", path, ref.Name(), float64(size)/1e6), err
}

func push(ctx context.Context, ref name.Reference, all []built) (string, error) {
	opts := []remote.Option{remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain)}
	if len(all) == 1 {
		digest, err := all[0].image.Digest()
		if err == nil {
			err = remote.Write(ref, all[0].image, opts...)
		}
		return fmt.Sprintf("%s@%s", ref.Name(), digest), err
	}
	index := indexOf(all)
	digest, err := index.Digest()
	if err == nil {
		err = remote.WriteIndex(ref, index, opts...)
	}
	return fmt.Sprintf("%s@%s", ref.Name(), digest), err
}

// indexOf is one image for all platforms.
func indexOf(all []built) v1.ImageIndex {
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, b := range all {
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: b.image, Descriptor: v1.Descriptor{Platform: &b.platform}})
	}
	return index
}

// writeLayout writes an OCI layout as a tar: what engines load when an image is for more than one platform.
func writeLayout(f *os.File, ref name.Reference, all []built) error {
	dir, err := os.MkdirTemp("", "outrider-layout-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }() // nobody misses what stays
	l, err := layout.Write(dir, empty.Index)
	if err != nil {
		return err
	}
	// containerd takes the name from the one annotation, others from the other.
	names := map[string]string{"io.containerd.image.name": ref.Name(), "org.opencontainers.image.ref.name": ref.Identifier()}
	if err := l.AppendIndex(indexOf(all), layout.WithAnnotations(names)); err != nil {
		return err
	}
	w := tar.NewWriter(f)
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		return addFile(w, dir, path)
	})
	if err != nil {
		return err
	}
	return w.Close()
}

func addFile(w *tar.Writer, dir, path string) error {
	short, err := filepath.Rel(dir, path)
	if err != nil {
		return err
	}
	from, err := os.Open(path)
	if err != nil {
		return err
	}
	defer from.Close()
	info, err := from.Stat()
	if err != nil {
		return err
	}
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: filepath.ToSlash(short), Mode: 0o644, Size: info.Size()}); err != nil {
		return err
	}
	_, err = io.Copy(w, from)
	return err
}

// replace writes a file beside the old one, which it then takes the place of.
func replace(path string, write func(*os.File) error) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-")
	if err != nil {
		return err
	}
	err = write(f)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Chmod(f.Name(), 0o644)
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return nil
}

func sizeOf(path string) (int64, error) {
	info, err := os.Stat(path)
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}
