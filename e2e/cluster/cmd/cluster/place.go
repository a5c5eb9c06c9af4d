package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"outrider.dev/e2e/cluster"
	"outrider.dev/e2e/images"
)

// place is the directory that outside and inside meet in: .cache/cluster. Sockets with a name in the file system are heard
// across network namespaces.
type place string

const (
	startTimeout = 10 * time.Minute // the first time, programs are compiled
	stopTimeout  = time.Minute
)

func findPlace() (place, error) {
	dir, err := images.Dir()
	if err != nil {
		return "", err
	}
	p := place(filepath.Join(filepath.Dir(dir), "cluster"))
	return p, os.MkdirAll(string(p), 0o700)
}

func (p place) file(name string) string { return filepath.Join(string(p), name) }
func (p place) kubeconfig() string      { return p.file("kubeconfig") }
func (p place) api() string             { return p.file("api.sock") }
func (p place) control() string         { return p.file("control.sock") }
func (p place) port() string            { return p.file("port") }
func (p place) pid() string             { return p.file("pid") }
func (p place) log() string             { return p.file("log") }

// lock takes the right to run the cluster, which the kernel takes back when the process ends, however it ends. It is
// false if somebody else has it.
func (p place) lock() (bool, error) {
	f, err := os.OpenFile(p.file("lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return false, err
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return false, f.Close()
	}
	// The descriptor stays open until the process ends. It is not inherited.
	_, err = unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	return err == nil, errors.Join(err, f.Close())
}

// running tells whether there is a cluster.
func (p place) running() (bool, error) {
	f, err := os.OpenFile(p.file("lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return false, err
	}
	defer f.Close()
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return true, nil
	}
	return false, err
}

// up starts the cluster in the background and waits until it can be used.
func (p place) up(ctx context.Context, workers int, stdout io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	running, err := p.running()
	if err != nil {
		return err
	}
	if !running {
		if err := p.start(ctx, workers, stdout); err != nil {
			return err
		}
	}
	if err := p.wait(ctx); err != nil {
		return err
	}
	fmt.Fprintf(stdout, "the cluster runs; its log is %s\n\n  export KUBECONFIG=%s PATH=%s:$PATH\n\n",
		p.log(), p.kubeconfig(), filepath.Join(filepath.Dir(string(p)), "kube"))
	return nil
}

func (p place) start(ctx context.Context, workers int, stdout io.Writer) error {
	fmt.Fprintln(stdout, "building images")
	if _, err := images.Build(ctx); err != nil {
		return err
	}
	for _, old := range []string{p.kubeconfig(), p.api(), p.control(), p.port()} {
		if err := os.Remove(old); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	program, err := os.Executable()
	if err != nil {
		return err
	}
	log, err := os.Create(p.log())
	if err != nil {
		return err
	}
	defer log.Close()
	fmt.Fprintf(stdout, "starting %d nodes\n", workers)
	cmd := exec.Command(program, "run", "-workers", strconv.Itoa(workers))
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	for { // until it has the lock, or has ended
		if running, err := p.running(); err != nil || running {
			return err
		}
		var status unix.WaitStatus
		if pid, _ := unix.Wait4(cmd.Process.Pid, &status, unix.WNOHANG, nil); pid != 0 {
			return p.ended()
		}
		if err := pause(ctx); err != nil {
			return err
		}
	}
}

// wait waits for the kubeconfig, which is written when everything is ready.
func (p place) wait(ctx context.Context) error {
	for {
		if _, err := os.Stat(p.kubeconfig()); err == nil {
			return nil
		}
		if running, err := p.running(); err != nil || !running {
			return errors.Join(err, p.ended())
		}
		if err := pause(ctx); err != nil {
			return err
		}
	}
}

// ended says why the cluster is not there.
func (p place) ended() error {
	log, err := os.ReadFile(p.log())
	return errors.Join(fmt.Errorf("it ended; it wrote:\n%s", log[max(0, len(log)-4000):]), err)
}

// down ends the cluster, if there is one, and removes what it left.
func (p place) down(ctx context.Context, stdout io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, stopTimeout)
	defer cancel()
	running, err := p.running()
	if err != nil {
		return err
	}
	if running {
		if _, err := p.post(ctx, "stop", nil); err != nil {
			fmt.Fprintf(stdout, "it does not answer (%v) and is killed\n", err)
			if err := p.kill(); err != nil {
				return err
			}
		}
	}
	for running {
		if running, err = p.running(); err != nil {
			return err
		}
		if err := pause(ctx); err != nil {
			return fmt.Errorf("waiting for its end: %w", err)
		}
	}
	if pid, err := p.process(); err == nil {
		if err := cluster.SweepOf(pid); err != nil {
			return err
		}
	} else if !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := errors.Join(cluster.Sweep(), os.RemoveAll(string(p))); err != nil {
		return err
	}
	fmt.Fprintln(stdout, "there is no cluster")
	return nil
}

// kill ends the process that holds the lock, and with it all others.
func (p place) kill() error {
	pid, err := p.process()
	if err != nil {
		return err
	}
	if err := unix.Kill(pid, unix.SIGKILL); !errors.Is(err, unix.ESRCH) { // it may have ended in between
		return err
	}
	return nil
}

// process is the one that holds the lock, or held it.
func (p place) process() (int, error) {
	content, err := os.ReadFile(p.pid())
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(content)))
}

// post asks the running cluster to do something.
func (p place) post(ctx context.Context, what string, query url.Values) (string, error) {
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", p.control())
	}}}
	defer client.CloseIdleConnections()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://cluster/"+what+"?"+query.Encode(), nil)
	if err != nil {
		return "", err
	}
	answer, err := client.Do(request)
	if err != nil {
		return "", fmt.Errorf("asking the cluster to %s: %w: start it with make cluster", what, err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("the cluster says: %s", strings.TrimSpace(string(body)))
	}
	return string(body), err
}

func pause(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(100 * time.Millisecond):
		return nil
	}
}
