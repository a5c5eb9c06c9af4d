package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	"k8s.io/client-go/tools/clientcmd"

	"outrider.dev/e2e/cluster"
	"outrider.dev/e2e/cluster/local"
)

// monitorGrace is how long a node may be silent: shorter than by default, so that losing one can be watched.
const monitorGrace = 20 * time.Second

// defaultNotice is how long before its end a node is warned.
const defaultNotice = 2 * time.Minute

// open is what happens outside, in the network of the host: there a port of the loopback address leads to the API server.
func (p place) open() error {
	alone, err := p.lock()
	if err != nil {
		return err
	}
	if !alone {
		return errors.New("a cluster runs already: make cluster-down ends it")
	}
	if err := os.WriteFile(p.pid(), fmt.Appendln(nil, os.Getpid()), 0o600); err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listening for kubectl: %w", err)
	}
	if err := os.WriteFile(p.port(), []byte(l.Addr().String()), 0o600); err != nil {
		return err
	}
	go forward(l, "unix", p.api()) // until the process ends
	return nil
}

// serve is what happens inside: the cluster runs until somebody asks for its end.
func (p place) serve(ctx context.Context, workers int, stderr io.Writer) int {
	log := slog.New(slog.NewTextHandler(stderr, nil))
	if err := p.live(ctx, workers, log); err != nil {
		log.Error("the cluster ended", "error", err)
		return 1
	}
	return 0
}

func (p place) live(ctx context.Context, workers int, log *slog.Logger) (err error) {
	c, err := local.Start(ctx, workers, log, cluster.MonitorGrace(monitorGrace))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Stop()) }()
	api, err := net.Listen("unix", p.api())
	if err != nil {
		return err
	}
	defer api.Close()
	host, port := c.APIAddress()
	go forward(api, "tcp", net.JoinHostPort(host, port)) // until it is closed
	control, err := net.Listen("unix", p.control())
	if err != nil {
		return err
	}
	defer control.Close()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	server := &http.Server{Handler: p.switches(c, stop), ReadHeaderTimeout: time.Minute}
	served := make(chan error, 1)
	go func() { served <- server.Serve(control) }()
	if err := p.writeKubeconfig(c); err != nil {
		return err
	}
	log.Info("ready")
	select {
	case <-ctx.Done():
	case err := <-served:
		return err
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_ = server.Shutdown(last) // who asked for the end has been answered, or is gone
	return nil
}

// writeKubeconfig writes the administrator's credentials with the address outside. It appears at once as a whole.
func (p place) writeKubeconfig(c *local.Cluster) error {
	config, err := clientcmd.LoadFromFile(c.Kubeconfig())
	if err != nil {
		return err
	}
	address, err := os.ReadFile(p.port())
	if err != nil {
		return err
	}
	for _, server := range config.Clusters {
		server.Server = "https://" + string(address)
	}
	if err := clientcmd.WriteToFile(*config, p.kubeconfig()+".new"); err != nil {
		return err
	}
	return os.Rename(p.kubeconfig()+".new", p.kubeconfig())
}

// switches are what the program's other commands ask for.
func (p place) switches(c *local.Cluster, stop func()) http.Handler {
	mux := http.NewServeMux()
	handle := func(name string, do func(ctx context.Context, node, in string) (string, error)) {
		mux.HandleFunc("POST /"+name, func(w http.ResponseWriter, r *http.Request) {
			said, err := do(r.Context(), r.FormValue("node"), r.FormValue("in"))
			if err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
			fmt.Fprintln(w, said)
		})
	}
	handle("stop", func(context.Context, string, string) (string, error) { stop(); return "stopping", nil })
	handle("notice", func(_ context.Context, node, in string) (string, error) { return notice(c, node, in) })
	handle("add", func(ctx context.Context, node, _ string) (string, error) {
		if c.Node(node) != nil {
			return "", fmt.Errorf("there is a node %s", node)
		}
		_, err := c.AddWorker(context.WithoutCancel(ctx), node, nil)
		return node + " is ready", err
	})
	handle("lose", func(ctx context.Context, node, _ string) (string, error) {
		n := c.Node(node)
		if n == nil {
			return "", fmt.Errorf("there is no node %s", node)
		}
		return node + " is gone", errors.Join(n.Lose(), c.Forget(ctx, node))
	})
	return mux
}

func notice(c *local.Cluster, node, in string) (string, error) {
	m := c.Cloud.Metadata(node)
	if m == nil || c.Node(node) == nil {
		return "", fmt.Errorf("there is no node %s", node)
	}
	d := defaultNotice
	if in != "" {
		var err error
		if d, err = time.ParseDuration(in); err != nil {
			return "", err
		}
	}
	at := time.Now().Add(d)
	m.SetSpotTermination(at)
	return fmt.Sprintf("%s learns that it will be reclaimed at %s", node, at.UTC().Format(time.RFC3339)), nil
}

// forward carries each connection to another address.
func forward(l net.Listener, network, address string) {
	for {
		from, err := l.Accept()
		if err != nil {
			return // closed
		}
		go func() {
			defer from.Close()
			to, err := net.Dial(network, address)
			if err != nil {
				return // whoever asks sees a connection that ends
			}
			defer to.Close()
			done := make(chan struct{}, 2)
			for _, way := range [][2]net.Conn{{from, to}, {to, from}} {
				go func() {
					_, _ = io.Copy(way[0], way[1]) // it ends however it ends
					done <- struct{}{}
				}()
			}
			<-done
		}()
	}
}
