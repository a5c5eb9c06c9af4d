package stage

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// shmemLine is the line of postmaster.pid that names the System V shared memory segment, as key and id
// (LOCK_FILE_LINE_SHMEM_KEY in PostgreSQL's miscadmin.h counts from 1).
const shmemLine = 7

// SharedMemory is the id of the System V shared memory segment that the server of a data directory uses, false if it
// has told none.
func SharedMemory(data string) (id int, ok bool) {
	b, err := os.ReadFile(filepath.Join(data, "postmaster.pid"))
	if err != nil {
		return 0, false
	}
	lines := strings.Split(string(b), "\n")
	if len(lines) < shmemLine {
		return 0, false
	}
	words := strings.Fields(lines[shmemLine-1])
	if len(words) != 2 {
		return 0, false
	}
	id, err = strconv.Atoi(words[1])
	return id, err == nil
}

// FreeSharedMemory removes a segment whose server was killed with all its children: nobody else does before the machine
// starts anew, and a machine has only so many (4096 by default).
func FreeSharedMemory(id int) {
	_, _ = unix.SysvShmCtl(id, unix.IPC_RMID, nil) // it is gone if the server ended in order after all
}
