package restore

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// Places below the data directory that are ours. Snapshots must leave ownDir out.
const (
	ownDir     = "outrider"
	markerName = "restore.json"
	spoolName  = "spool"
)

// markerFormat is the number of the marker's layout.
const markerFormat = 1

// Phase is how far a restore is.
type Phase string

// The phases, in order.
const (
	PhaseUnpacking  Phase = "unpacking"
	PhaseRecovering Phase = "recovering"
)

// Marker is outrider/restore.json at the top of a data directory in the making: whose it is, and how to go on.
type Marker struct {
	Format    int       `json:"format"`
	Phase     Phase     `json:"phase"`
	StartedAt time.Time `json:"started_at"`
	Plan      Plan      `json:"plan"`
	// Epoch is the one that was claimed for this restore; 0 for one by hand, for a copy, and in markers of older versions.
	Epoch uint64 `json:"epoch,omitempty"`
	// UnpackedAt and ReadyAt are when the snapshot was unpacked and when the server could be started; nil before, and in
	// what older versions have restored.
	UnpackedAt *time.Time `json:"unpacked_at,omitempty"`
	ReadyAt    *time.Time `json:"ready_at,omitempty"`
	// SpoolDir is where WAL is laid for the server, relative to the data directory if it lies in it.
	SpoolDir string `json:"spool_dir"`
	// Outside are the directories outside of the data directory that this restore found empty and fills: tablespaces
	// and pg_wal.
	Outside []string `json:"outside,omitempty"`
	// Fork says that nothing was restored: a data directory was put on a new timeline, see Fork.
	Fork bool `json:"fork,omitempty"`
}

func markerPath(dir string) string { return filepath.Join(dir, ownDir, markerName) }

// ReadMarker reads the marker of a data directory; fs.ErrNotExist if it has none.
func ReadMarker(dir string) (Marker, error) {
	var m Marker
	b, err := os.ReadFile(markerPath(dir))
	if err != nil {
		return m, fmt.Errorf("reading the marker of a restore: %w", err)
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return m, fmt.Errorf("reading the marker %s: %w: if no restore is wanted here, remove it", markerPath(dir), err)
	}
	if m.Format > markerFormat {
		return m, fmt.Errorf("the marker %s has format %d, this program knows up to %d: use a newer outrider", markerPath(dir), m.Format, markerFormat)
	}
	if m.Phase != PhaseUnpacking && m.Phase != PhaseRecovering {
		return m, fmt.Errorf("the marker %s names an unknown phase %q: use a newer outrider", markerPath(dir), m.Phase)
	}
	return m, nil
}

// write replaces the marker so that after a crash there is the old one or the new one.
func (m Marker) write(dir string) error {
	m.Format = markerFormat
	b, err := json.MarshalIndent(m, "", "\t")
	if err != nil {
		return fmt.Errorf("encoding the marker of a restore: %w", err)
	}
	if err := replaceFile(markerPath(dir), append(b, '\n'), 0o600); err != nil {
		return fmt.Errorf("writing the marker of a restore: %w", err)
	}
	return nil
}

// replaceFile writes a file durably: after a crash the old content is there, or the new one.
func replaceFile(path string, content []byte, mode fs.FileMode) error {
	tmp := path + ".tmp"
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Chmod(mode)
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	if err := os.Rename(tmp, path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
