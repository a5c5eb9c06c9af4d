// Command build makes the container images of this project without a container engine: it compiles the programs, puts
// each into a layer, and writes archives that engines load, or pushes to a registry.
//
//	go run ./images/build                                       # out/images/*.tar for this machine's architecture
//	go run ./images/build -platform linux/amd64,linux/arm64 -tag v0.1.0 -repository ghcr.io/outrider-dev -push
//
// The same sources and the same Go make the same images, bit for bit, wherever and whenever they are built.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// options are what the command line says.
type options struct {
	out, tag, version, repository, ref, sidecar string
	platforms                                   []v1.Platform
	names                                       []string
	push, insecure                              bool
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
	case err != nil:
		fmt.Fprintln(os.Stderr, "images:", err)
		os.Exit(1)
	}
}

// run builds what args ask for and says on stdout what there is now.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	o, err := parse(args, stderr)
	if err != nil {
		return err
	}
	top, err := moduleTop(ctx)
	if err != nil {
		return err
	}
	for _, p := range programs() {
		if !slices.Contains(o.names, p.name) {
			continue
		}
		built, err := assemble(ctx, top, p, o)
		if err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		said, err := o.deliver(ctx, p.name, built)
		if err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		fmt.Fprintln(stdout, said)
	}
	return nil
}

func parse(args []string, stderr io.Writer) (options, error) {
	var o options
	var all []string
	for _, p := range programs() {
		all = append(all, p.name)
	}
	f := flag.NewFlagSet("build", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.StringVar(&o.out, "out", "out/images", "`directory` for the archives")
	f.StringVar(&o.tag, "tag", "dev", "`tag` of the images")
	f.StringVar(&o.version, "version", "", "`version` that the programs tell; that of the tag if it looks like one (v1.2.3)")
	f.StringVar(&o.repository, "repository", "", "where the images belong, such as ghcr.io/outrider-dev")
	f.StringVar(&o.ref, "image", "", "full `name` of the image, where only one is built")
	f.StringVar(&o.sidecar, "sidecar", "", "`name` of the sidecar's image that the webhook puts into pods where its configuration names none; that of the image outrider of this build")
	f.BoolVar(&o.push, "push", false, "push to the registry instead of writing archives; it needs -repository or -image")
	f.BoolVar(&o.insecure, "insecure", false, "push over plain http")
	platforms := f.String("platform", "linux/"+runtime.GOARCH, "`list` of platforms; more than one make an image for all of them")
	names := f.String("only", strings.Join(all, ","), "`list` of images")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if f.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", f.Arg(0))
	}
	if o.version == "" && strings.HasPrefix(o.tag, "v") {
		o.version = o.tag
	}
	if o.sidecar == "" {
		o.sidecar = options{repository: o.repository, tag: o.tag}.reference("outrider")
	}
	for s := range strings.SplitSeq(*platforms, ",") {
		p, err := v1.ParsePlatform(s)
		if err != nil || p.OS != "linux" || p.Architecture == "" {
			return o, fmt.Errorf("-platform %q: expected linux/ARCHITECTURE, such as linux/arm64", s)
		}
		o.platforms = append(o.platforms, *p)
	}
	for s := range strings.SplitSeq(*names, ",") {
		if !slices.Contains(all, s) {
			return o, fmt.Errorf("-only %q: there are %s", s, strings.Join(all, ", "))
		}
		o.names = append(o.names, s)
	}
	if o.ref != "" && len(o.names) != 1 {
		return o, fmt.Errorf("-image names one image, and %s are built: choose one with -only", strings.Join(o.names, ", "))
	}
	if _, err := name.ParseReference(o.ref); o.ref != "" && err != nil {
		return o, fmt.Errorf("-image %q: %w", o.ref, err)
	}
	if o.push && o.ref == "" && o.repository == "" {
		return o, errors.New("-push needs -repository or -image: there is no place to push to")
	}
	return o, nil
}

// reference is the full name of an image.
func (o options) reference(name string) string {
	if o.ref != "" {
		return o.ref
	}
	return path.Join(o.repository, name) + ":" + o.tag
}
