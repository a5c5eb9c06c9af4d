package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// program is something that an image is made of.
type program struct {
	name, source string
	about        string // one line, for the image's label
}

func programs() []program {
	return []program{
		{"outrider", "./sidecar", "ships a PostgreSQL server's WAL and snapshots to OSS, and restores it"},
		{"outrider-webhook", "./webhook", "makes PostgreSQL pods protected by Outrider"},
		{"devcloud", "./e2e/devcloud", "a stand-in for Alibaba Cloud's OSS and metadata service, for development"},
	}
}

// moduleTop is the directory of go.mod.
func moduleTop(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("asking go for the module: %w", err)
	}
	mod := strings.TrimSpace(string(out))
	if filepath.Base(mod) != "go.mod" {
		return "", fmt.Errorf("this is not a directory of the module: %w", os.ErrNotExist)
	}
	return filepath.Dir(mod), nil
}

// link is what the linker puts into a program.
type link struct {
	version string
	sidecar string // the image that the webhook puts into pods; nothing to the other programs
}

// buildArgs are those of `go build`: nothing of the machine, of the day, or of the state of the repository gets into
// the program. images/Dockerfile has the same.
func buildArgs(l link, output, source string) []string {
	return []string{
		"build", "-trimpath", "-buildvcs=false",
		"-ldflags=-s -w -buildid= -X main.linkedVersion=" + l.version + " -X main.linkedImage=" + l.sidecar, "-o", output, source,
	}
}

// compile makes a static program for a platform.
func compile(ctx context.Context, top string, p program, l link, platform v1.Platform, output string) error {
	cmd := exec.CommandContext(ctx, "go", buildArgs(l, output, p.source)...)
	cmd.Dir = top
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS="+platform.OS, "GOARCH="+platform.Architecture, "GOFLAGS="+withoutModifiers(os.Getenv("GOFLAGS")))
	switch {
	case platform.Architecture == "arm" && platform.Variant != "":
		cmd.Env = append(cmd.Env, "GOARM="+strings.TrimPrefix(platform.Variant, "v"))
	case platform.Architecture == "amd64" && platform.Variant != "":
		cmd.Env = append(cmd.Env, "GOAMD64="+platform.Variant)
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("compiling %s for %s: %w: %s", p.source, platform, err, out)
	}
	return nil
}

// withoutModifiers keeps of GOFLAGS what does not change the program.
func withoutModifiers(flags string) string {
	var kept []string
	for _, f := range strings.Fields(flags) {
		if strings.HasPrefix(f, "-p=") || strings.HasPrefix(f, "-mod=") || strings.HasPrefix(f, "-modcacherw") {
			kept = append(kept, f)
		}
	}
	return strings.Join(kept, " ")
}
