package cluster

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// bridge joins all namespaces. The test itself has an address on it.
const bridge = "outrider0"

// Network is a bridge that namespaces are attached to. Its methods are safe for concurrent use.
type Network struct {
	mu   sync.Mutex
	next int // number of the next link
}

// Namespace is a network namespace with one address on the bridge.
type Namespace struct {
	Name    string
	Address netip.Addr

	link string // the bridge's end of its link
}

func newNetwork(ctx context.Context) (*Network, error) {
	err := ip(
		ctx,
		"link set lo up",
		"link add "+bridge+" type bridge",
		fmt.Sprintf("addr add %s/%d dev %s", worldAddress, prefixBits, bridge),
		"link set "+bridge+" up",
	)
	if err != nil {
		return nil, fmt.Errorf("making a network: %w", err)
	}
	return &Network{}, nil
}

// Close removes the bridge.
func (n *Network) Close() error {
	return ip(context.Background(), "link del "+bridge)
}

// Attach makes a network namespace with that address on the bridge. The name must be free.
func (n *Network) Attach(ctx context.Context, name string, address netip.Addr) (*Namespace, error) {
	n.mu.Lock()
	n.next++
	s := &Namespace{Name: name, Address: address, link: fmt.Sprintf("link%d", n.next)}
	n.mu.Unlock()

	err := ip(
		ctx,
		"netns add "+name,
		fmt.Sprintf("link add %s type veth peer name eth0 netns %s", s.link, name),
		fmt.Sprintf("link set %s master %s up", s.link, bridge),
		fmt.Sprintf("-n %s addr add %s/%d dev eth0", name, address, prefixBits),
		fmt.Sprintf("-n %s link set eth0 up", name),
		fmt.Sprintf("-n %s link set lo up", name),
	)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("attaching %s to the network: %w", name, err), s.Close())
	}
	return s, nil
}

// Connect plugs the namespace's link in, or pulls it out: packets to and from it are lost without a word.
func (s *Namespace) Connect(ctx context.Context, connected bool) error {
	state := "down"
	if connected {
		state = "up"
	}
	return ip(ctx, fmt.Sprintf("link set %s %s", s.link, state))
}

// Close takes the namespace away from the network. Processes that are still in it stay, cut off.
func (s *Namespace) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	// Without the link the address is free at once, even if the namespace lives on in a process.
	linked := ip(ctx, "link del "+s.link)
	return errors.Join(linked, ip(ctx, "netns del "+s.Name))
}

// start starts a command in the namespace.
func (s *Namespace) start(cmd *exec.Cmd) error {
	result := make(chan error)
	go func() {
		// The thread's namespace becomes the command's. Locked for good, the thread ends with this goroutine.
		runtime.LockOSThread()
		result <- s.enterAndStart(cmd)
	}()
	return <-result
}

func (s *Namespace) enterAndStart(cmd *exec.Cmd) error {
	f, err := os.Open("/run/netns/" + s.Name)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("entering network namespace %s: %w", s.Name, err)
	}
	return cmd.Start()
}

// ip runs the program of that name once for each line of arguments, until one goes wrong.
func ip(ctx context.Context, lines ...string) error {
	for _, line := range lines {
		if out, err := exec.CommandContext(ctx, "ip", strings.Fields(line)...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %s: %w: %s", line, err, out)
		}
	}
	return nil
}
