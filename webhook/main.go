// The program outrider-webhook makes pods protected. The command serve answers the API server; inject says offline what it
// would change, and why not.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	_ "golang.org/x/crypto/x509roots/fallback" // authorities where the image has none
)

func main() {
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	code := execute(ctx, newApp(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
	cancel()
	os.Exit(code)
}
