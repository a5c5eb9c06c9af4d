// Program push builds the images that the scenarios need and pushes them to where the nodes of a cluster pull from. Without a
// place to push to it says which archives it has built.
//
//	push [registry.example.com/team]
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"outrider.dev/e2e/images"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "push:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout io.Writer) error {
	if len(args) > 1 {
		return errors.New("usage: push [registry.example.com/team]")
	}
	archives, err := images.Build(ctx)
	if err != nil {
		return err
	}
	if len(args) == 1 {
		return images.Push(ctx, stdout, args[0], archives...)
	}
	for _, archive := range archives {
		fmt.Fprintln(stdout, archive)
	}
	return nil
}
