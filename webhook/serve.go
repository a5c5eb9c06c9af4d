package main

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	"k8s.io/klog/v2"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"
)

// serveFlags are those of `outrider-webhook serve`.
type serveFlags struct {
	config, kubeconfig, namespace, logLevel string
	listen, metricsListen, healthListen     string
	dnsNames                                []string
}

func newServeCommand(a *app) *cobra.Command {
	var f serveFlags
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Answer the API server, and sidecars that ask for their evacuation",
		Long: "Runs in the namespace outrider-system, in two replicas, as manifests/base installs it. It answers /mutate-pod,\n" +
			"/review-workload and /review-scale over TLS with certificates that it makes and renews itself. SIGTERM makes it say that it is not ready,\n" +
			"answer a while longer (lameDuck in the configuration), and end.",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.serve(cmd.Context(), f) },
	}
	fs := cmd.Flags()
	fs.StringVar(&f.config, "config", "", "configuration file; it is read again when it changes")
	fs.StringVar(&f.listen, "listen", ":9443", "address for the API server and for sidecars (TLS)")
	fs.StringVar(&f.metricsListen, "metrics-listen", ":8080", "address of /metrics, 0 for none")
	fs.StringVar(&f.healthListen, "health-listen", ":8081", "address of /healthz and /readyz")
	fs.StringVar(&f.namespace, "namespace", cmp.Or(os.Getenv("POD_NAMESPACE"), "outrider-system"), "where the Service, the Secret and the lease are (POD_NAMESPACE)")
	fs.StringVar(&f.kubeconfig, "kubeconfig", "", "how to reach the API server, outside of a pod")
	fs.StringArrayVar(&f.dnsNames, "dns-name", nil, "another name of this server for its certificate, beside those of the Service; may be repeated")
	fs.StringVar(&f.logLevel, "log-level", "info", "debug, info, warn or error; the log is JSON on stderr")
	return cmd
}

// serve runs until ctx ends, as a signal ends it.
func (a *app) serve(ctx context.Context, f serveFlags) error {
	var level slog.Level
	if level.UnmarshalText([]byte(f.logLevel)) != nil {
		return fmt.Errorf("%w: log level %q: expected debug, info, warn or error", errUsage, f.logLevel)
	}
	for flag, address := range map[string]string{"listen": f.listen, "metrics-listen": f.metricsListen, "health-listen": f.healthListen} {
		if _, _, err := net.SplitHostPort(address); err != nil && (flag != "metrics-listen" || address != "0") {
			return fmt.Errorf("%w: --%s %q: expected HOST:PORT or :PORT", errUsage, flag, address)
		}
	}
	handler := slog.NewJSONHandler(a.stderr, &slog.HandlerOptions{Level: level})
	// Libraries log where the program does. There is no other way to tell them.
	libraries := logr.FromSlogHandler(handler.WithAttrs([]slog.Attr{slog.String("by", "kubernetes libraries")}))
	ctrllog.SetLogger(libraries)
	klog.SetLogger(libraries)
	return newServer(f, slog.New(handler)).run(ctx)
}
