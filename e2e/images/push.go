package images

import (
	"context"
	"fmt"
	"io"
	"os"
	"path"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// Push pushes all images of these archives to a place in a registry, under the last part of their names, and says to w what it
// has pushed. The registry's credentials are those of `docker login`.
func Push(ctx context.Context, w io.Writer, to string, archives ...string) error {
	for _, archive := range archives {
		open := func() (io.ReadCloser, error) { return os.Open(archive) }
		manifest, err := tarball.LoadManifest(open)
		if err != nil {
			return fmt.Errorf("reading %s: %w", archive, err)
		}
		for _, image := range manifest {
			for _, tag := range image.RepoTags {
				there := to + "/" + path.Base(tag)
				if err := push(ctx, open, tag, there); err != nil {
					return fmt.Errorf("pushing %s of %s to %s: %w", tag, archive, there, err)
				}
				fmt.Fprintln(w, there)
			}
		}
	}
	return nil
}

func push(ctx context.Context, open tarball.Opener, tag, there string) error {
	from, err := name.NewTag(tag)
	if err != nil {
		return err
	}
	to, err := name.NewTag(there)
	if err != nil {
		return err
	}
	image, err := tarball.Image(open, &from)
	if err != nil {
		return err
	}
	return remote.Write(to, image, remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain))
}
