package restore

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Finish takes away what a restore has left in a data directory and in its spool once the server has finished
// recovery: fs.ErrNotExist if there was no restore, an error if recovery is not over. The settings have to be reset in
// the server, see RecoverySettings. Where the data directory is read-only the marker stays, which does no harm.
func Finish(dir string) error {
	m, err := ReadMarker(dir)
	if err != nil {
		return err
	}
	signal, err := exists(filepath.Join(dir, "recovery.signal"))
	if err != nil {
		return fmt.Errorf("looking whether recovery is over: %w", err)
	}
	if signal || m.Phase != PhaseRecovering {
		return fmt.Errorf("the restore in %s is not over: its phase is %s", dir, m.Phase)
	}
	s := spool{dir: spoolPath(dir, m.SpoolDir), id: m.Plan.ID}
	err = s.wipe()
	if err == nil {
		err = os.Remove(s.path(aliveFile))
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("emptying the spool: %w", err)
	}
	if filepath.Dir(s.dir) == filepath.Join(dir, ownDir) {
		if err := os.Remove(s.dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("removing the spool: %w", err)
		}
	}
	if err := os.Remove(markerPath(dir)); err != nil {
		return fmt.Errorf("removing the marker of a restore: %w", err)
	}
	if err := os.Remove(filepath.Join(dir, ownDir)); err != nil {
		return fmt.Errorf("removing the directory of a restore: %w", err)
	}
	return nil
}

// Abandon takes back a restore whose server has not finished recovery: the next one into this directory empties it and begins
// anew. The server must not run, and a fork is refused: its data is nowhere else.
func Abandon(dir string) error {
	m, err := ReadMarker(dir)
	if err != nil {
		return err
	}
	state, err := Inspect(dir)
	if err != nil {
		return err
	}
	if m.Fork || state != Recovering {
		return fmt.Errorf("taking back the restore in %s: it is no restore that has not finished recovery", dir)
	}
	m.Phase = PhaseUnpacking
	return m.write(dir)
}
