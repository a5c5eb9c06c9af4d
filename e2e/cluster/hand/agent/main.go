// Program agent is what the tests of package hand run in pods: it shows what it was given.
package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// run serves files (/file/PATH), variables (/env/NAME) and the user id (/user) until SIGTERM, and then a second longer.
func run() error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /file/", func(w http.ResponseWriter, r *http.Request) {
		content, err := os.ReadFile(strings.TrimPrefix(r.URL.Path, "/file"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusNotFound)
			return
		}
		_, _ = w.Write(content)
	})
	mux.HandleFunc("GET /env/{name}", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, os.Getenv(r.PathValue("name")))
	})
	mux.HandleFunc("GET /user", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, os.Getuid(), os.Args) })
	mux.HandleFunc("GET /ready", func(http.ResponseWriter, *http.Request) {})
	server := &http.Server{Addr: ":8000", Handler: mux, ReadHeaderTimeout: time.Second}
	failed := make(chan error, 1)
	go func() { failed <- server.ListenAndServe() }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	time.Sleep(time.Second)
	fmt.Fprintln(os.Stderr, "stopped in order")
	return server.Close()
}
