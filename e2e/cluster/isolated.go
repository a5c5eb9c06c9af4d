package cluster

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// insideVariable tells a test binary that it was started by itself, and its value by which process of the outside.
const insideVariable = "OUTRIDER_CLUSTER_INSIDE"

func inside() bool {
	return os.Getenv(insideVariable) != ""
}

// Isolated runs run in namespaces of its own for network, processes and mounts, by starting this program anew, and
// returns the exit code. prepare, if any, comes before that and outside, where the network of the host is. Call it first
// thing in TestMain:
//
//	func TestMain(m *testing.M) { os.Exit(cluster.Isolated(nil, m.Run)) }
//
// Inside, /run is a file system in memory, and so is the directory for temporary files. It needs root.
func Isolated(prepare func() error, run func() int) int {
	if IsNode() {
		return beNode()
	}
	if inside() {
		if err := settle(); err != nil {
			fmt.Fprintf(os.Stderr, "cluster: settling in namespaces of one's own: %v\n", err)
			return 1
		}
		return run()
	}
	if prepare != nil {
		if err := prepare(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	code, err := again()
	if err != nil {
		fmt.Fprintf(os.Stderr, "cluster: running the tests in namespaces of their own, which needs root: %v\n", err)
		return 1
	}
	return code
}

// again runs this program with the same arguments as the first process of new namespaces.
func again() (int, error) {
	program, err := os.Executable()
	if err != nil {
		return 0, err
	}
	// The signal below comes when this thread ends, not when this process does.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	cmd := exec.Command(program, os.Args[1:]...)
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d", insideVariable, os.Getpid()))
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:   unix.CLONE_NEWNET | unix.CLONE_NEWPID,
		Unshareflags: unix.CLONE_NEWNS, // syscall makes the mounts private at once
		Pdeathsig:    unix.SIGKILL,     // and with process 1 the kernel kills the whole process table
	}
	err = supervise(cmd)
	// All is gone by itself but the control groups of nodes, if there were any.
	if err := removeCgroup(cgroupPrefix + fmt.Sprint(os.Getpid())); err != nil {
		fmt.Fprintf(os.Stderr, "cluster: %v\n", err)
	}
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit) && exit.Exited():
		return exit.ExitCode(), nil
	case err != nil:
		return 0, err
	}
	return 0, nil
}

// supervise runs the command, and has it hear the signals that this process would end by: it has more to end than we do.
func supervise(cmd *exec.Cmd) error {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGTERM, unix.SIGINT, unix.SIGQUIT)
	if err := cmd.Start(); err != nil {
		return err
	}
	done := make(chan struct{})
	go func() {
		for {
			select {
			case s := <-signals:
				_ = cmd.Process.Signal(s) // it may have ended
			case <-done:
				return
			}
		}
	}()
	err := cmd.Wait()
	signal.Stop(signals)
	close(done)
	return err
}

// settle makes the new namespaces habitable.
func settle() error {
	if os.Getpid() != 1 {
		return fmt.Errorf("%s is set, but this is not the first process of a namespace: unset it", insideVariable)
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mounting /proc: %w", err)
	}
	// Named network namespaces are mounts below /run/netns. What lies in this /run vanishes with the mounts.
	if err := unix.Mount("tmpfs", "/run", "tmpfs", unix.MS_NOSUID, "mode=0755"); err != nil {
		return fmt.Errorf("mounting /run: %w", err)
	}
	for _, dir := range []string{"/run/netns", "/run/tmp"} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
	}
	return os.Setenv("TMPDIR", "/run/tmp")
}
