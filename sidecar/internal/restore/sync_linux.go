package restore

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// startWriteback has the kernel begin to write a file to disk, without waiting. It is only about speed, so that an
// error is no trouble.
func startWriteback(f interface{ Fd() uintptr }) {
	_ = unix.SyncFileRange(int(f.Fd()), 0, 0, unix.SYNC_FILE_RANGE_WRITE)
}

// syncAll makes everything durable that was written on the file systems of the directories. It costs one wait for the
// disk instead of one for each file; since Linux 5.8 it reports write errors that happened meanwhile, too. PostgreSQL
// syncs all files again when recovery begins, and finds them clean.
func syncAll(dirs ...string) error {
	for _, dir := range dirs {
		f, err := os.Open(dir)
		if err == nil {
			err = unix.Syncfs(int(f.Fd()))
			err = errors.Join(err, f.Close())
		}
		if err != nil {
			return fmt.Errorf("syncing the file system of %s: %w", dir, err)
		}
	}
	return nil
}

// freeBytes is the space for us on the file system of a directory.
func freeBytes(dir string) (int64, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, fmt.Errorf("asking for the free space of %s: %w", dir, err)
	}
	return int64(s.Bavail) * s.Bsize, nil
}

// bootID tells one boot of the machine from another, "" if it cannot be told.
func bootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return string(b)
}
