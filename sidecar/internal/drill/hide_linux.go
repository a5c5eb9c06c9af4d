package drill

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// hide keeps processes of the same user from reading our environment in /proc, where the keys to the archive are: what a
// superuser has put into the restored database runs as that user (proc(5), PR_SET_DUMPABLE in prctl(2)).
func hide() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("hiding this process's environment from the restored server: %w", err)
	}
	return nil
}
