package cluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// cgroupPrefix begins the names of control groups that are ours.
const cgroupPrefix = "outrider-"

// cgroupTops are the hierarchies of control groups: one in version 2, one for each controller in version 1.
func cgroupTops() []string {
	const top = "/sys/fs/cgroup"
	tops, _ := filepath.Glob(top + "/*/cgroup.procs") // the pattern is good
	if _, err := os.Stat(top + "/cgroup.procs"); err == nil {
		tops = []string{top + "/cgroup.procs"}
	}
	for i := range tops {
		tops[i] = filepath.Dir(tops[i])
	}
	return tops
}

// makeCgroup makes a control group in every hierarchy, where a kubelet looks for the one that its pods go below.
func makeCgroup(name string) error {
	for _, top := range cgroupTops() {
		if err := os.MkdirAll(filepath.Join(top, name), 0o755); err != nil {
			return fmt.Errorf("making a control group, which needs a writable %s: %w", top, err)
		}
	}
	return nil
}

// removeCgroup removes a control group and all below it from every hierarchy. The processes that were in there are dead or
// dying, and a group is busy until the kernel has buried the last one.
func removeCgroup(name string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for _, top := range cgroupTops() {
		for {
			err := removeGroups(filepath.Join(top, name))
			if err == nil {
				break
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("removing control group %s of %s: %w", name, top, err)
			case <-time.After(50 * time.Millisecond):
			}
		}
	}
	return nil
}

// removeGroups removes a directory of control groups from below; their files cannot be removed and need not.
func removeGroups(dir string) error {
	var groups []string
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() {
			groups = append(groups, path)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
	if err != nil {
		return err
	}
	for _, group := range slices.Backward(groups) {
		if err := unix.Rmdir(group); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("removing %s: %w", group, err)
		}
	}
	return nil
}

// SweepOf removes the control groups of a cluster that has ended, of which the process of the outside had this number. Its last
// processes may be dying still.
func SweepOf(pid int) error {
	return removeCgroup(cgroupPrefix + strconv.Itoa(pid))
}

// Sweep removes the control groups of clusters whose processes were killed before they could do it. Those of clusters that
// run are busy, and stay.
func Sweep() error {
	var errs []error
	for _, top := range cgroupTops() {
		groups, err := filepath.Glob(filepath.Join(top, cgroupPrefix+"*"))
		if err != nil {
			return err
		}
		for _, group := range groups {
			if err := removeGroups(group); err != nil && !errors.Is(err, unix.EBUSY) {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}
