package main

import (
	"archive/tar"
	"bytes"
	"debug/buildinfo"
	"debug/elf"
	"errors"
	"io"
	"log/slog"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

func build(t *testing.T, args ...string) string {
	t.Helper()
	var out, errs bytes.Buffer
	if err := run(t.Context(), args, &out, &errs); err != nil {
		t.Fatalf("%v: %s", err, &errs)
	}
	return out.String()
}

// extract returns the files and directories of an image.
func extract(t *testing.T, img v1.Image) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	r := mutate.Extract(img)
	defer r.Close()
	for in := tar.NewReader(r); ; {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(in)
		if err != nil {
			t.Fatal(err)
		}
		if h.Uid != 0 || h.Gid != 0 || h.ModTime.Unix() != 0 {
			t.Errorf("%s: owner %d:%d, time %v", h.Name, h.Uid, h.Gid, h.ModTime)
		}
		files[h.Name] = content
	}
}

// Every image is one static program that needs nothing of the image, and starts.
func TestImagesHoldOneProgram(t *testing.T) {
	dir := t.TempDir()
	said := build(t, "-out", dir, "-tag", "v9.8.7")
	for _, p := range programs() {
		t.Run(p.name, func(t *testing.T) {
			if !strings.Contains(said, p.name+".tar: ") {
				t.Errorf("it is not said that it is there: %s", said)
			}
			img, err := tarball.ImageFromPath(filepath.Join(dir, p.name+".tar"), nil)
			if err != nil {
				t.Fatal(err)
			}
			files := extract(t, img)
			binary := files["usr/local/bin/"+p.name]
			delete(files, "usr/local/bin/"+p.name)
			var rest []string
			for f := range files {
				rest = append(rest, f)
			}
			want := []string{"etc", "etc/group", "etc/passwd", "tmp", "usr", "usr/local", "usr/local/bin"}
			if diff := cmp.Diff(want, rest, sorted); diff != "" {
				t.Errorf("beside the program: -want +got\n%s", diff)
			}
			checkProgram(t, p, binary)
			checkConfig(t, p, img)
		})
	}
}

var sorted = cmp.Transformer("set", func(s []string) map[string]bool {
	m := map[string]bool{}
	for _, v := range s {
		m[v] = true
	}
	return m
})

func checkProgram(t *testing.T, p program, binary []byte) {
	t.Helper()
	path := filepath.Join(t.TempDir(), p.name)
	if err := os.WriteFile(path, binary, 0o755); err != nil {
		t.Fatal(err)
	}
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, s := range f.Progs {
		if s.Type == elf.PT_INTERP || s.Type == elf.PT_DYNAMIC {
			t.Error("it is linked dynamically, and there are no libraries in the image")
		}
	}
	info, err := buildinfo.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	roots := false
	for _, d := range info.Deps {
		roots = roots || d.Path == "golang.org/x/crypto/x509roots/fallback"
	}
	if !roots && p.name != "devcloud" { // which calls nobody
		t.Error("it has no certificate authorities compiled in, and there are none in the image")
	}
	if p.name == "devcloud" {
		return
	}
	cmd := exec.CommandContext(t.Context(), path, "version")
	cmd.Env = []string{}
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "v9.8.7") {
		t.Errorf("version: %v: %s", err, out)
	}
}

func checkConfig(t *testing.T, p program, img v1.Image) {
	t.Helper()
	c, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if c.Config.User != nobody || !cmp.Equal(c.Config.Entrypoint, []string{"/usr/local/bin/" + p.name}) || len(c.Config.Cmd) > 0 ||
		c.OS != "linux" || c.Architecture != runtime.GOARCH || c.Config.Labels["org.opencontainers.image.version"] != "v9.8.7" {
		t.Errorf("its configuration is %+v", c)
	}
}

// The same program makes the same image, whenever and wherever: a digest can be compared with one of one's own.
func TestImagesAreReproducible(t *testing.T) {
	digest := func() string {
		dir := t.TempDir()
		build(t, "-out", dir, "-only", "devcloud")
		img, err := tarball.ImageFromPath(filepath.Join(dir, "devcloud.tar"), nil)
		if err != nil {
			t.Fatal(err)
		}
		d, err := img.ConfigName()
		if err != nil {
			t.Fatal(err)
		}
		return d.String()
	}
	first := digest()
	t.Setenv("GOFLAGS", "-p=1 -tags=other -ldflags=-X=main.x=y")
	if second := digest(); first != second {
		t.Errorf("%s, and then %s", first, second)
	}
}

// platforms are two, with a stand-in for the program: what is compiled for them is Go's matter.
func twoPlatforms(t *testing.T) []built {
	t.Helper()
	var all []built
	for _, arch := range []string{"amd64", "arm64"} {
		platform := v1.Platform{OS: "linux", Architecture: arch}
		img, err := imageOf(programs()[0], []byte("program for "+arch), "v1", platform)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, built{platform, img})
	}
	return all
}

func TestSeveralPlatformsAreOneImage(t *testing.T) {
	dir := t.TempDir()
	o := options{out: dir, tag: "v1", repository: "ghcr.io/outrider-dev"}
	if _, err := o.deliver(t.Context(), "outrider", twoPlatforms(t)); err != nil {
		t.Fatal(err)
	}
	unpacked := filepath.Join(dir, "unpacked")
	if err := os.Mkdir(unpacked, 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "tar", "-xf", filepath.Join(dir, "outrider.tar"), "-C", unpacked).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	l, err := layout.ImageIndexFromPath(unpacked)
	if err != nil {
		t.Fatal(err)
	}
	top, err := l.IndexManifest()
	if err != nil || len(top.Manifests) != 1 || top.Manifests[0].Annotations["io.containerd.image.name"] != "ghcr.io/outrider-dev/outrider:v1" {
		t.Fatalf("%+v, %v", top, err)
	}
	index, err := l.ImageIndex(top.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	checkPlatforms(t, index)
}

func checkPlatforms(t *testing.T, index v1.ImageIndex) {
	t.Helper()
	m, err := index.IndexManifest()
	if err != nil || len(m.Manifests) != 2 {
		t.Fatalf("%+v, %v", m, err)
	}
	for _, d := range m.Manifests {
		img, err := index.Image(d.Digest)
		if err != nil {
			t.Fatal(err)
		}
		if got := string(extract(t, img)["usr/local/bin/outrider"]); got != "program for "+d.Platform.Architecture {
			t.Errorf("the image for %s holds %q", d.Platform, got)
		}
	}
}

// What is pushed to a registry is what it serves.
func TestPush(t *testing.T) {
	server := httptest.NewServer(registry.New(registry.Logger(slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo))))
	defer server.Close()
	host := strings.TrimPrefix(server.URL, "http://")
	o := options{tag: "v1", repository: host + "/outrider-dev", push: true, insecure: true}
	said, err := o.deliver(t.Context(), "outrider", twoPlatforms(t))
	if err != nil {
		t.Fatal(err)
	}
	ref, err := name.ParseReference(host+"/outrider-dev/outrider:v1", name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	index, err := remote.Index(ref)
	if err != nil {
		t.Fatal(err)
	}
	checkPlatforms(t, index)
	if d, err := index.Digest(); err != nil || !strings.HasSuffix(strings.TrimSpace(said), "@"+d.String()) {
		t.Errorf("%q, and the digest is %s, %v", said, d, err)
	}
	o.ref = host + "/outrider-dev/one:x"
	if _, err := o.deliver(t.Context(), "outrider", twoPlatforms(t)[:1]); err != nil {
		t.Fatal(err)
	}
	ref, err = name.ParseReference(o.ref, name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	if img, err := remote.Image(ref); err != nil || img == nil {
		t.Errorf("the image for one platform: %v", err)
	}
}

func TestBadOptionsAreSaid(t *testing.T) {
	for want, args := range map[string][]string{
		"unexpected argument":  {"x"},
		"linux/ARCHITECTURE":   {"-platform", "windows/amd64"},
		"there are outrider":   {"-only", "outridr"},
		"choose one with":      {"-image", "a/b:c"},
		"no place to push to":  {"-push"},
		"-image \"A B\"":       {"-only", "devcloud", "-image", "A B"},
		"flag provided but no": {"-plattform", "linux/amd64"},
	} {
		if err := run(t.Context(), args, io.Discard, io.Discard); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", args, err, want)
		}
	}
}

// The Dockerfile makes the same: for those who have an engine.
func TestDockerfileMakesTheSame(t *testing.T) {
	raw, err := os.ReadFile("../Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	text := strings.ReplaceAll(string(raw), "\\\n        ", "")
	flags := strings.Join(buildArgs(link{"$VERSION", "$SIDECAR"}, "OUT", "SRC"), " ")
	flags = strings.TrimSuffix(strings.Replace(flags, "-ldflags=-s -w -buildid= -X main.linkedVersion=$VERSION -X main.linkedImage=$SIDECAR", `"-ldflags=-s -w -buildid= -X main.linkedVersion=$VERSION -X main.linkedImage=$SIDECAR"`, 1), "-o OUT SRC")
	for _, want := range []string{"go " + flags, "USER " + nobody, "ENV PATH=/" + binDir, "FROM scratch AS base"} {
		if !strings.Contains(text, want) {
			t.Errorf("there is no %q", want)
		}
	}
	for _, p := range programs() {
		for _, want := range []string{
			p.name + "=" + p.source, "FROM base AS " + p.name + "\n",
			"COPY --from=build /programs/" + p.name + " /" + binDir + "/" + p.name + "\n", `ENTRYPOINT ["/` + binDir + "/" + p.name + `"]`,
		} {
			if !strings.Contains(text, want) {
				t.Errorf("there is no %q", want)
			}
		}
	}
}
