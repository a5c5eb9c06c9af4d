package cluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// exhaustFile is what takes the memory: a file of the node, and in memory.
const exhaustFile = "/run/exhaust"

// ExhaustMemory uses up the memory that a container may have, so that the kernel kills a process of it. The container is
// named as containerd names it. What takes the memory is a file in memory that a process in the container's control group
// writes: of those that can be killed, the container's own are larger. It is gone when this returns.
func (n *Node) ExhaustMemory(ctx context.Context, container string) error {
	group, limit, err := n.memoryLimit(container)
	if err != nil {
		return fmt.Errorf("using up the memory of container %s on node %s: %w", container, n.Name, err)
	}
	script := fmt.Sprintf("echo 0 > %s/cgroup.procs || exit 9; exec head -c %d /dev/zero > %s", group, limit, exhaustFile)
	_, filled := n.Run(ctx, "/bin/sh", "-c", script) // it may be killed as well, as the last one that is left
	_, err = n.Run(context.WithoutCancel(ctx), "/bin/rm", "-f", exhaustFile)
	if filled != nil && strings.Contains(filled.Error(), "exit status 9") {
		err = errors.Join(filled, err)
	}
	return err
}

// MemoryKills is how many processes of a container the kernel has killed for want of memory since the container was started.
func (n *Node) MemoryKills(container string) (int, error) {
	dir, err := n.memoryGroup(container)
	if err != nil {
		return 0, fmt.Errorf("counting the kills in container %s on node %s: %w", container, n.Name, err)
	}
	content, err := os.ReadFile(filepath.Join(dir, memoryFile("memory.oom_control", "memory.events")))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(content)) {
		var kills int
		if n, _ := fmt.Sscanf(line, "oom_kill %d", &kills); n == 1 {
			return kills, nil
		}
	}
	return 0, fmt.Errorf("%s does not tell how many processes were killed", dir)
}

// memoryTop is the hierarchy of control groups that counts memory. memoryFile chooses the name of a file there, by its
// version.
func memoryTop() string { return memoryFile("/sys/fs/cgroup/memory", "/sys/fs/cgroup") }

func memoryFile(one, two string) string {
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		return two
	}
	return one
}

// memoryGroup finds a container's control group for memory.
func (n *Node) memoryGroup(container string) (dir string, err error) {
	top := filepath.Join(memoryTop(), n.cgroup)
	err = filepath.WalkDir(top, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist): // another container's, gone meanwhile
			return nil
		case err != nil:
			return err
		case entry.IsDir() && entry.Name() == container:
			dir = path
			return fs.SkipAll
		}
		return nil
	})
	if err == nil && dir == "" {
		err = fmt.Errorf("there is no control group of it below %s", top)
	}
	return dir, err
}

// memoryLimit is a container's control group and its limit in bytes.
func (n *Node) memoryLimit(container string) (dir string, limit int64, err error) {
	dir, err = n.memoryGroup(container)
	if err != nil {
		return "", 0, err
	}
	content, err := os.ReadFile(filepath.Join(dir, memoryFile("memory.limit_in_bytes", "memory.max")))
	if err != nil {
		return "", 0, err
	}
	const most = 4 << 30 // what has no limit shows one that is far above
	limit, err = strconv.ParseInt(strings.TrimSpace(string(content)), 10, 64)
	if err != nil || limit > most {
		return "", 0, fmt.Errorf("its limit of memory is %s: give it one below 4 GiB", strings.TrimSpace(string(content)))
	}
	return dir, limit, nil
}
