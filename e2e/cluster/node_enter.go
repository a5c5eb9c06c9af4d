package cluster

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// Run runs a program in the node and returns what it wrote. If it goes wrong, that is in the error as well.
func (n *Node) Run(ctx context.Context, name string, args ...string) ([]byte, error) {
	var out bytes.Buffer
	cmd := n.command(ctx, name, args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	err := n.start(cmd)
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		return out.Bytes(), fmt.Errorf("running %s %s on node %s: %w: %s", name, strings.Join(args, " "), n.Name, err, bytes.TrimSpace(out.Bytes()))
	}
	return out.Bytes(), nil
}

// command is a call of a program in the node, not yet started. It is named by its whole path.
func (n *Node) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=" + insidePrograms + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/run", "TMPDIR=/tmp"}
	return cmd
}

// start starts a command inside of the node.
func (n *Node) start(cmd *exec.Cmd) error {
	result := make(chan error)
	go func() {
		// The thread's namespaces become the command's. Locked for good, the thread ends with this goroutine.
		runtime.LockOSThread()
		err := n.enter("net", "pid", "mnt")
		if err == nil {
			err = cmd.Start()
		}
		result <- err
	}()
	return <-result
}

// Listen listens on an address that only the node itself and its pods can reach, for example that of the metadata service.
func (n *Node) Listen(ctx context.Context, address string) (net.Listener, error) {
	type listening struct {
		net.Listener
		error
	}
	result := make(chan listening)
	go func() {
		runtime.LockOSThread() // as above; a socket stays where it was made
		err := n.enter("net")
		var l net.Listener
		if err == nil {
			l, err = (&net.ListenConfig{}).Listen(ctx, "tcp4", address)
		}
		result <- listening{l, err}
	}()
	l := <-result
	if l.error != nil {
		return nil, fmt.Errorf("listening on %s of node %s: %w", address, n.Name, l.error)
	}
	return l.Listener, nil
}

// enter moves the calling thread into namespaces of the node. For processes, that concerns its children only.
func (n *Node) enter(kinds ...string) error {
	var open []*os.File
	defer func() {
		for _, f := range open {
			_ = f.Close() // nothing was written
		}
	}()
	for _, kind := range kinds { // before /proc is another one
		f, err := os.Open(fmt.Sprintf("/proc/%d/ns/%s", n.machine.cmd.Process.Pid, kind))
		if err != nil {
			return fmt.Errorf("entering node %s: %w", n.Name, err)
		}
		open = append(open, f)
	}
	// Threads share their root and working directory, and one that does cannot have mounts of its own.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("entering node %s: %w", n.Name, err)
	}
	for _, f := range open {
		if err := unix.Setns(int(f.Fd()), 0); err != nil {
			return fmt.Errorf("entering %s of node %s: %w", f.Name(), n.Name, err)
		}
	}
	return nil
}
