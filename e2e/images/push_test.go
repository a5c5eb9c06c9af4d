package images_test

import (
	"log/slog"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"outrider.dev/e2e/images"
)

// TestPush pushes two images of one archive, as those of PostgreSQL are.
func TestPush(t *testing.T) {
	archive := filepath.Join(t.TempDir(), "two.tar")
	files := []images.File{{Path: "/hello", Mode: 0o644, Content: []byte("hello")}}
	err := images.Write(archive, files,
		images.Image{Name: "docker.io/library/postgres:15"},
		images.Image{Name: "docker.io/library/postgres:15-sigterm", Config: images.Config{StopSignal: "SIGTERM"}})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(registry.New(registry.Logger(slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo))))
	defer server.Close()
	to := strings.TrimPrefix(server.URL, "http://") + "/team"
	var said strings.Builder
	if err := images.Push(t.Context(), &said, to, archive); err != nil {
		t.Fatal(err)
	}
	if want := to + "/postgres:15\n" + to + "/postgres:15-sigterm\n"; said.String() != want {
		t.Errorf("it says %q, not %q", said.String(), want)
	}
	repository, err := name.NewRepository(to + "/postgres")
	if err != nil {
		t.Fatal(err)
	}
	tags, err := remote.List(repository)
	if err != nil || !slices.Equal(tags, []string{"15", "15-sigterm"}) {
		t.Errorf("the registry has %v, %v", tags, err)
	}
	signal := ""
	if image, err := remote.Image(repository.Tag("15-sigterm")); err != nil {
		t.Error(err)
	} else if config, err := image.ConfigFile(); err != nil {
		t.Error(err)
	} else {
		signal = config.Config.StopSignal
	}
	if signal != "SIGTERM" {
		t.Errorf("the image wants to be stopped with %q", signal)
	}
}
