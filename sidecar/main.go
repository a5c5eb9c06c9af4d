// Outrider rides along with a PostgreSQL server and keeps an archive of it in Alibaba Cloud OSS, from which the database
// can be rebuilt up to the last second. This program is the sidecar, the restore, and everything a person needs to look
// after an archive.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	_ "golang.org/x/crypto/x509roots/fallback" // authorities where the image has none
)

func main() {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	ctx, cancel := context.WithCancelCause(context.Background())
	go func() {
		// The first signal asks, the second insists.
		cancel(fmt.Errorf("%w by %s", errInterrupted, <-signals))
		<-signals
		os.Exit(int(exitOther))
	}()
	os.Exit(int(execute(ctx, newApp(os.Args[1:], os.LookupEnv, os.Stdout, os.Stderr))))
}
