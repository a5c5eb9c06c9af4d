package restore

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"outrider.dev/sidecar/internal/wal"
)

// Files in the spool beside segments and histories; see the package's documentation.
const (
	scriptFile    = "restore-command"
	spoolFile     = "SPOOL"
	historiesFile = "HISTORIES"
	endFile       = "END"
	askedFile     = "ASKED"
	aliveFile     = "ALIVE"
	failedFile    = "FAILED"
	tmpPrefix     = ".tmp-"
)

// spool is the directory from which the server fetches WAL. Nothing in it is synced: what was laid on another boot of
// the machine is thrown away.
type spool struct {
	dir string
	id  string // of the restore
}

// spoolPath is where the spool of a marker is.
func spoolPath(dir, inMarker string) string {
	if filepath.IsAbs(inMarker) {
		return inMarker
	}
	return filepath.Join(dir, inMarker)
}

func (s spool) path(name string) string { return filepath.Join(s.dir, name) }

type spoolIdentity struct {
	Restore string `json:"restore"`
	Boot    string `json:"boot"`
}

// prepare makes the spool this restore's own and lays everything but the segments: all .history files are there before
// the server asks for the first.
func (s spool) prepare(hist map[string][]byte, patience time.Duration) error {
	if err := s.adopt(); err != nil {
		return fmt.Errorf("preparing the spool %s: %w", s.dir, err)
	}
	err := s.write(scriptFile, []byte(scriptText(patience)), 0o755)
	for _, name := range slices.Sorted(maps.Keys(hist)) {
		err = errors.Join(err, s.write(name, hist[name], 0o644))
	}
	err = errors.Join(err, s.writeList(historiesFile, slices.Sorted(maps.Keys(hist))))
	if there, eerr := exists(s.path(askedFile)); !there {
		err = errors.Join(err, eerr, s.write(askedFile, nil, 0o666))
	}
	if err != nil {
		return fmt.Errorf("preparing the spool %s: %w", s.dir, err)
	}
	return nil
}

// adopt empties a spool of another restore or another boot.
func (s spool) adopt() error {
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		return err
	}
	want := spoolIdentity{Restore: s.id, Boot: bootID()}
	var have spoolIdentity
	b, err := os.ReadFile(s.path(spoolFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err == nil && json.Unmarshal(b, &have) == nil && have == want && want.Boot != "" {
		return nil
	}
	if err := s.wipe(); err != nil {
		return err
	}
	body, err := json.Marshal(want)
	if err != nil {
		return err
	}
	return s.write(spoolFile, body, 0o644)
}

// wipe removes what a restore lays into a spool. What says that files are absent goes first.
func (s spool) wipe() error {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	all := []string{endFile, historiesFile, spoolFile}
	for _, e := range entries {
		_, history := wal.ParseHistoryName(e.Name())
		switch name := e.Name(); {
		case name == tmpPrefix+aliveFile: // somebody is just writing it
		case name == scriptFile, name == askedFile, name == failedFile, history, wal.IsSegmentName(name),
			strings.HasPrefix(name, tmpPrefix):
			all = append(all, name)
		}
	}
	for _, name := range all {
		if err := os.Remove(s.path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// write creates or replaces a file in one step, for readers; it is not synced.
func (s spool) write(name string, content []byte, mode fs.FileMode) error {
	tmp := s.path(tmpPrefix + name)
	if err := os.WriteFile(tmp, content, 0o600); err != nil {
		return err
	}
	if err := os.Chmod(tmp, mode); err != nil { // whatever the umask is: the server may be another user
		return err
	}
	return os.Rename(tmp, s.path(name))
}

// writeList writes names as the script reads them.
func (s spool) writeList(name string, lines []string) error {
	var b strings.Builder
	for _, l := range lines {
		b.WriteString(l)
		b.WriteByte('\n')
	}
	return s.write(name, []byte(b.String()), 0o644)
}

// asked is the start of the segment that the server asked for last, 0 if it has not asked yet.
func (s spool) asked(z wal.SegmentSize) wal.LSN {
	b, err := os.ReadFile(s.path(askedFile))
	if err != nil {
		return 0
	}
	seg, err := wal.ParseSegment(strings.TrimSpace(string(b)), z)
	if err != nil {
		return 0 // nothing yet, or a write half done: asked for again in a moment
	}
	return seg.Start(z)
}

// has tells whether a segment lies there whole.
func (s spool) has(name string, z wal.SegmentSize) bool {
	fi, err := os.Stat(s.path(name))
	return err == nil && fi.Mode().IsRegular() && fi.Size() == int64(z)
}

// drop removes the segments that end at or before keep.
func (s spool) drop(z wal.SegmentSize, keep wal.LSN) error {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		seg, err := wal.ParseSegment(e.Name(), z)
		if err != nil || seg.End(z) > keep {
			continue
		}
		if err := os.Remove(s.path(e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// fail tells the server why it will not get its WAL.
func (s spool) fail(reason error) error {
	return s.write(failedFile, []byte(strings.ReplaceAll(reason.Error(), "\n", " ")+"\n"), 0o644)
}
