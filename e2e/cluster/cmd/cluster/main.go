// Program cluster is a Kubernetes on this machine for people: a control plane and workers in namespaces of their own, which
// only the API server can be seen of from outside.
//
//	cluster up [-workers N]     starts it, if it does not run, and prints the path of a kubeconfig
//	cluster down                ends it without a trace
//	cluster notice NODE [in]    announces that the node will be reclaimed, in 2m if nothing else is said
//	cluster lose NODE           takes the node away, as if its power were cut, and deletes its Node object
//	cluster add NODE            adds a worker
//
// All of it is in memory, databases included, and gone with the process. It needs root.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/signal"
	"syscall"

	"outrider.dev/e2e/cluster"
)

const defaultWorkers = 3

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	if cluster.IsNode() {
		return cluster.Isolated(nil, nil)
	}
	flags := flag.NewFlagSet("cluster", flag.ContinueOnError)
	flags.SetOutput(stderr)
	workers := flags.Int("workers", defaultWorkers, "`number` of nodes")
	command := ""
	if len(args) > 0 {
		command, args = args[0], args[1:]
	}
	if err := flags.Parse(args); err != nil {
		return 2
	}
	place, err := findPlace()
	if err == nil {
		switch rest := flags.Args(); command {
		case "up":
			err = place.up(ctx, *workers, stdout)
		case "down":
			err = place.down(ctx, stdout)
		case "run": // what up starts
			return cluster.Isolated(place.open, func() int { return place.serve(ctx, *workers, stderr) })
		case "notice", "lose", "add":
			err = place.ask(ctx, command, rest, stdout)
		default:
			fmt.Fprintln(stderr, "usage: cluster up [-workers N] | down | notice NODE [in] | lose NODE | add NODE")
			return 2
		}
	}
	if err != nil {
		fmt.Fprintln(stderr, "cluster:", err)
		return 1
	}
	return 0
}

// ask has the running cluster do something with a node.
func (p place) ask(ctx context.Context, what string, args []string, stdout io.Writer) error {
	if len(args) == 0 {
		return fmt.Errorf("%s: which node? kubectl get nodes", what)
	}
	query := url.Values{"node": {args[0]}}
	if len(args) > 1 {
		query.Set("in", args[1])
	}
	answer, err := p.post(ctx, what, query)
	if err == nil {
		fmt.Fprint(stdout, answer)
	}
	return err
}
