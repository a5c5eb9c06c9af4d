package cluster

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// nodeVariable tells this program that it is the first process of a node, and which directory has the node's files.
const nodeVariable = "OUTRIDER_CLUSTER_NODE"

// furnished is the name of a file that the first process makes when the node's programs may start.
const furnished = "furnished"

// Where things are inside of a node, besides the usual places.
const (
	insideDir      = "/run/node"     // the directory with the node's files
	insidePrograms = "/run/programs" // of Kubernetes and containerd
)

// diskSize is what the node's disk seems to have. Only what is used takes memory.
const diskSize = "size=64g"

// IsNode tells whether this process is to be the first one of a node: then a program calls [Isolated] at once, whatever else
// it would do.
func IsNode() bool {
	return os.Getenv(nodeVariable) != ""
}

// beNode is the life of a node's first process: it makes the place habitable and then buries the dead until it is killed.
func beNode() int {
	if err := furnish(os.Getenv(nodeVariable)); err != nil {
		fmt.Fprintf(os.Stderr, "node: furnishing the place: %v\n", err)
		return 1
	}
	dead := make(chan os.Signal, 1)
	signal.Notify(dead, syscall.SIGCHLD)
	for range dead {
		for {
			pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
			if pid <= 0 && !errors.Is(err, unix.EINTR) {
				break
			}
		}
	}
	return 0
}

// furnish mounts what a machine has for itself. The rest of the file system is that of the host, which is not written to.
func furnish(dir string) error {
	if os.Getpid() != 1 {
		return fmt.Errorf("%s is set, but this is not the first process of a namespace: unset it", nodeVariable)
	}
	files, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("opening %s: %w", dir, err)
	}
	programs, err := unix.Open(filepath.Join(dir, "programs"), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("opening the programs: %w", err)
	}
	disk, err := unix.Open(filepath.Join(dir, "disk"), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("opening the disk: %w", err)
	}
	// Mounts below what volumes are made of are to be seen in containers that ask for it.
	if err := unix.Mount("", "/", "", unix.MS_SHARED|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("sharing mounts: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mounting /proc: %w", err)
	}
	if err := mountOwn(disk); err != nil {
		return err
	}
	if err := os.Chmod("/tmp", 0o777|os.ModeSticky); err != nil {
		return err
	}
	if err := bind(fmt.Sprintf("/proc/self/fd/%d", files), insideDir); err != nil {
		return err
	}
	if err := bind(fmt.Sprintf("/proc/self/fd/%d", programs), insidePrograms); err != nil {
		return err
	}
	if err := bind(insideDir+"/pods", "/var/log/pods"); err != nil {
		return err
	}
	if err := disguise(); err != nil {
		return err
	}
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0); err != nil {
		return fmt.Errorf("letting packets through to pods: %w", err)
	}
	return os.WriteFile(filepath.Join(insideDir, furnished), nil, 0o644)
}

// mountOwn gives the node what machines write to: the disk, if it is not negative, is for /var/lib.
func mountOwn(disk int) error {
	for _, own := range []string{"/run", "/var/lib", "/var/log", "/opt", "/tmp", "/dev/shm"} {
		if own == "/var/lib" && disk >= 0 {
			if err := bind(fmt.Sprintf("/proc/self/fd/%d", disk), own); err != nil {
				return err
			}
			continue
		}
		if err := unix.Mount("tmpfs", own, "tmpfs", 0, diskSize); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("mounting %s: %w", own, err)
		}
	}
	return nil
}

// bind makes a directory and mounts another one there.
func bind(from, to string) error {
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(from, to, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mounting %s at %s: %w", from, to, err)
	}
	return nil
}

// disguise puts files over those of the kernel that a kubelet would change for the whole host, or that would show all nodes
// as one. It is content with the values that it wants (kubernetes/pkg/kubelet/cm, setupKernelTunables).
func disguise() error {
	id := make([]byte, 16)
	_, _ = rand.Read(id) // it cannot go wrong
	for path, content := range map[string]string{
		"/proc/sys/vm/overcommit_memory":      "1",
		"/proc/sys/vm/panic_on_oom":           "0",
		"/proc/sys/kernel/panic":              "10",
		"/proc/sys/kernel/panic_on_oops":      "1",
		"/proc/sys/kernel/keys/root_maxkeys":  "1000000",
		"/proc/sys/kernel/keys/root_maxbytes": "25000000",
		"/proc/sys/kernel/random/boot_id":     fmt.Sprintf("%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:]),
		"/etc/machine-id":                     fmt.Sprintf("%x", id),
	} {
		if _, err := os.Stat(path); err != nil {
			continue // another kernel
		}
		mask := "/run/masks" + path
		if err := os.MkdirAll(filepath.Dir(mask), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(mask, append(bytes.TrimSpace([]byte(content)), '\n'), 0o644); err != nil {
			return err
		}
		if err := unix.Mount(mask, path, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("putting a file over %s: %w", path, err)
		}
	}
	return nil
}
