package restore

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"outrider.dev/sidecar/internal/wal"
)

// State is what a directory is that is to be a data directory.
type State int

// The states.
const (
	// Absent: there is no such directory.
	Absent State = iota
	// Empty: there is nothing in it, or only lost+found.
	Empty
	// Unpacking: a restore of ours was interrupted. Restore starts over.
	Unpacking
	// Recovering: a restore of ours is laid down, and PostgreSQL has not finished recovery from it. Fill goes on.
	Recovering
	// Data: a PostgreSQL data directory, to be judged by CheckDisk. Recovery may have been finished; Finish cleans up.
	Data
	// Foreign: something else, such as an initdb that was interrupted. It is left alone.
	Foreign
)

// String is the state in a word.
func (s State) String() string {
	words := [...]string{"absent", "empty", "unpacking", "recovering", "data", "foreign"}
	if int(s) < len(words) && s >= 0 {
		return words[s]
	}
	return fmt.Sprintf("state %d", int(s))
}

// Inspect tells what dir is. An error means that it could not be told.
func Inspect(dir string) (State, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return Absent, nil
	}
	if errors.Is(err, syscall.ENOTDIR) {
		return Foreign, nil
	}
	if err != nil {
		return Foreign, fmt.Errorf("looking into the data directory: %w", err)
	}
	if empty, err := holdsNothing(dir, entries); empty || err != nil {
		return Empty, err
	}
	m, err := ReadMarker(dir)
	if err == nil && m.Phase == PhaseUnpacking {
		return Unpacking, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Foreign, err
	}
	if err == nil {
		signal, err := exists(filepath.Join(dir, "recovery.signal"))
		if signal || err != nil {
			return Recovering, err
		}
	}
	for _, path := range []string{filepath.Join(dir, "PG_VERSION"), wal.ControlPath(dir)} {
		if ok, err := exists(path); err != nil || !ok {
			return Foreign, err
		}
	}
	return Data, nil
}

// holdsNothing ignores lost+found, and what is left of ours when a restore ended before its marker was written.
func holdsNothing(dir string, entries []fs.DirEntry) (bool, error) {
	for _, e := range entries {
		if e.Name() == ownDir && e.IsDir() {
			ours, err := os.ReadDir(filepath.Join(dir, ownDir))
			if err != nil {
				return false, fmt.Errorf("looking into the data directory: %w", err)
			}
			if len(ours) == 0 || len(ours) == 1 && ours[0].Name() == markerName+".tmp" {
				continue
			}
		}
		if e.Name() != "lost+found" {
			return false, nil
		}
	}
	return true, nil
}

func exists(path string) (bool, error) {
	_, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}
