package kubectl

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/util/exec"
	"k8s.io/streaming/pkg/httpstream"

	"outrider.dev/webhook/internal/inject"
)

// sidecarPort is the one that is injected, for pods whose container does not say it.
const sidecarPort = 9850

// status asks a sidecar: through the API server's proxy, or, where that is not allowed or finds no way, with the
// program itself inside of the container.
func (c *Cluster) status(ctx context.Context, pod *corev1.Pod) (*Report, error) {
	body, perr := c.client.CoreV1().Pods(pod.Namespace).ProxyGet("http", pod.Name, strconv.Itoa(portOf(pod)), "status", nil).DoRaw(ctx)
	if perr == nil {
		r, err := parseReport(body)
		if err == nil {
			return r, nil
		}
		perr = err
	}
	var out, errs bytes.Buffer
	err := c.Run(ctx, Command{
		Namespace: pod.Namespace, Pod: pod.Name, Args: []string{"outrider", "status", "-o", "json"}, Stdout: &out, Stderr: &errs,
	})
	if r, err := parseReport(out.Bytes()); err == nil {
		return r, nil // also one that ends with an error, such as that of a superseded writer
	}
	if text := strings.TrimSpace(errs.String()); text != "" && err != nil {
		err = fmt.Errorf("%w: %s", err, text)
	}
	return nil, fmt.Errorf("the sidecar could not be asked: through the API server: %w; with exec: %w", perr, err)
}

func portOf(pod *corev1.Pod) int {
	if c := initContainer(pod, inject.SidecarContainer); c != nil {
		for _, p := range c.Ports {
			if p.Name == inject.SidecarContainer {
				return int(p.ContainerPort)
			}
		}
	}
	return sidecarPort
}

func parseReport(body []byte) (*Report, error) {
	var r Report
	if err := json.Unmarshal(body, &r); err != nil {
		return nil, fmt.Errorf("reading the answer: %w", err)
	}
	if r.State == "" {
		return nil, errors.New("reading the answer: it names no state: is it outrider that answers there?")
	}
	return &r, nil
}

// Command is a program that runs in the sidecar's container of a pod.
type Command struct {
	Namespace, Pod string
	Args           []string // the program first
	Stdout, Stderr io.Writer
}

// ExitError is a command that ran and ended with this code, which is not 0. It has said why itself.
type ExitError struct{ Code int }

// Error names the code.
func (e ExitError) Error() string { return fmt.Sprintf("it ended with exit code %d", e.Code) }

// Run runs a command to its end. That it ended with an error is an ExitError; everything else is that it did not run, or
// that what became of it is unknown.
func (c *Cluster) Run(ctx context.Context, cmd Command) error {
	url := c.client.CoreV1().RESTClient().Post().Resource("pods").Namespace(cmd.Namespace).Name(cmd.Pod).SubResource("exec").
		VersionedParams(&corev1.PodExecOptions{
			Container: inject.SidecarContainer, Command: cmd.Args, Stdout: cmd.Stdout != nil, Stderr: cmd.Stderr != nil,
		}, scheme.ParameterCodec).URL()
	socket, err := remotecommand.NewWebSocketExecutor(c.config, "GET", url.String())
	if err != nil {
		return fmt.Errorf("preparing exec in pod %s/%s: %w", cmd.Namespace, cmd.Pod, err)
	}
	spdy, err := remotecommand.NewSPDYExecutor(c.config, "POST", url)
	if err != nil {
		return fmt.Errorf("preparing exec in pod %s/%s: %w", cmd.Namespace, cmd.Pod, err)
	}
	// As kubectl does: API servers and proxies of old know only SPDY.
	executor, err := remotecommand.NewFallbackExecutor(socket, spdy, func(err error) bool {
		return httpstream.IsUpgradeFailure(err) || httpstream.IsHTTPSProxyError(err)
	})
	if err != nil {
		return fmt.Errorf("preparing exec in pod %s/%s: %w", cmd.Namespace, cmd.Pod, err)
	}
	err = executor.StreamWithContext(ctx, remotecommand.StreamOptions{Stdout: cmd.Stdout, Stderr: cmd.Stderr})
	var code exec.CodeExitError
	if errors.As(err, &code) {
		return ExitError{Code: code.Code}
	}
	if err != nil {
		return fmt.Errorf("running %s in container %s of pod %s/%s: %w", cmd.Args[0], inject.SidecarContainer, cmd.Namespace, cmd.Pod, err)
	}
	return nil
}
