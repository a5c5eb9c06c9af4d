// The program kubectl-outrider is a plugin of kubectl: `kubectl outrider status` tells of every database whether it is
// protected, `check` what will hurt and what to do about it; why, list and backup are handed to the sidecar of a pod, and
// restore makes a throw-away copy.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	_ "k8s.io/client-go/plugin/pkg/client/auth" // whatever ways to log in a kubeconfig may name
)

func main() {
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	code := execute(ctx, os.Args[1:], os.Stdout, os.Stderr)
	cancel()
	os.Exit(code)
}
