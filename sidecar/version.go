package main

import (
	"fmt"
	"io"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// linkedVersion is set by -ldflags "-X main.linkedVersion=v1.2.3" where the version is not in the build's own record.
var linkedVersion string //nolint:gochecknoglobals // the linker can set nothing else

// build is what this program was made of.
type build struct {
	Version  string `json:"version"`
	Commit   string `json:"commit,omitempty"`
	Time     string `json:"commit_time,omitempty"`
	Modified bool   `json:"modified,omitempty"` // the sources differed from the commit
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

func thisBuild() build {
	b := build{Version: linkedVersion, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if ok {
		for _, s := range info.Settings {
			switch s.Key {
			case "vcs.revision":
				b.Commit = s.Value
			case "vcs.time":
				b.Time = s.Value
			case "vcs.modified":
				b.Modified = s.Value == "true"
			}
		}
		if b.Version == "" && info.Main.Version != "(devel)" {
			b.Version = info.Main.Version
		}
	}
	if b.Version == "" {
		b.Version = "devel"
	}
	return b
}

// version is the short form, for logs, metrics and the archive.
func version() string { return thisBuild().Version }

func newVersionCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use: "version", Short: "Print the version", Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			b := thisBuild()
			return a.show(b, func(w io.Writer) {
				fmt.Fprintf(w, "outrider %s (%s, %s)\n", b.Version, b.Go, b.Platform)
				if b.Commit != "" {
					changed := ""
					if b.Modified {
						changed = ", modified"
					}
					fmt.Fprintf(w, "commit %s of %s%s\n", b.Commit, b.Time, changed)
				}
			})
		},
	}
	a.outputFlag(cmd)
	return cmd
}
