package basebackup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"outrider.dev/e2e/pgtest"
	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/restore"
)

// TestDoubtMakesAFullSnapshot: whatever is wrong with what a delta would be built on, the next snapshot is right.
func TestDoubtMakesAFullSnapshot(t *testing.T) {
	w := start(t, pgtest.Options{InitdbArgs: []string{"-k"}, Settings: map[string]string{"autovacuum": "off"}})
	take := func(change func(*Config)) archive.Manifest {
		t.Helper()
		cfg := w.config()
		var err error
		cfg.Known, err = w.archive.Backups(t.Context())
		check(t, err)
		if change != nil {
			change(&cfg)
		}
		m, err := New(cfg).Take(t.Context())
		check(t, err)
		return m
	}
	key := func(m archive.Manifest, name string) string { return "basebackups_005/" + m.Name + "/" + name }
	full := take(nil)
	if full.Delta != nil || full.FileList == nil {
		t.Fatalf("the first snapshot is %+v", full)
	}
	first := take(nil)
	if first.Delta == nil || first.Delta.Parent != full.Name || first.Delta.Count != 1 || !strings.HasSuffix(first.Name, "_D_"+full.Name[5:]) ||
		first.Delta.ChainStored != full.StoredSize+first.StoredSize || first.Delta.Since != full.Start {
		t.Fatalf("the second snapshot is %s with %+v", first.Name, first.Delta)
	}
	checkDelta(t, w, first)
	second := take(nil)
	if second.Delta == nil || second.Delta.Parent != first.Name || second.Delta.Full != full.Name || second.Delta.Count != 2 || strings.Count(second.Name, "_D_") != 1 {
		t.Fatalf("the third snapshot is %s with %+v", second.Name, second.Delta)
	}
	all, err := w.archive.Backups(t.Context())
	check(t, err)
	chainOnly := func(cfg *Config) { cfg.Known = all }
	if m := take(func(cfg *Config) { cfg.Full = true }); m.Delta != nil {
		t.Error("a full one was asked for")
	}
	if m := take(func(cfg *Config) { cfg.Known = all; cfg.Lists = nil }); m.Delta != nil || m.FileList != nil {
		t.Error("there is a delta without lists")
	}
	for name, object := range map[string]string{
		"the list of the parent": key(second, "outrider-files.json.zst"),
		"a part of the parent":   key(second, "tar_partitions/part_001.tar.zst"),
		"a part of the full one": key(full, "tar_partitions/part_001.tar.zst"),
		"the control file":       key(full, "tar_partitions/pg_control.tar.zst"),
	} {
		was := w.bucket.Bytes(object)
		if was == nil {
			t.Fatalf("there is no %s", object)
		}
		w.bucket.SetBytes(object, was[:len(was)-1])
		if m := take(chainOnly); m.Delta != nil {
			t.Errorf("%s is cut, and the next snapshot is built on it", name)
		}
		check(t, w.bucket.Remove(t.Context(), object))
		if m := take(chainOnly); m.Delta != nil {
			t.Errorf("%s is gone, and the next snapshot is built on it", name)
		}
		w.bucket.SetBytes(object, was)
	}
	w.bucket.Fault(func(operation, k string) error {
		if operation == "open" && strings.HasSuffix(k, "outrider-files.json.zst") {
			return fs.ErrPermission
		}
		return nil
	})
	if m := take(chainOnly); m.Delta != nil {
		t.Error("the list cannot be read, and the next snapshot is a delta")
	}
	w.bucket.Fault(nil)
	if m := take(chainOnly); m.Delta == nil {
		t.Errorf("nothing is wrong any more, and the next snapshot is a full one:\n%s", w.log)
	}
}

func TestParentThatExpiresWhileADeltaIsTaken(t *testing.T) {
	w := start(t, pgtest.Options{InitdbArgs: []string{"-k"}})
	full := w.take(t)
	cfg := w.config()
	var err error
	cfg.Known, err = w.archive.Backups(t.Context())
	check(t, err)
	cfg.WAL = spoiler{func() { _ = w.archive.RemoveBackup(t.Context(), full.Name) }}
	m, err := New(cfg).Take(t.Context())
	check(t, err)
	if m.Delta != nil {
		t.Errorf("%s is built on a snapshot that is gone", m.Name)
	}
	all, err := w.archive.Backups(t.Context())
	check(t, err)
	if len(all) != 1 || all[0].Name != m.Name {
		t.Errorf("the snapshots are %v, want %s alone", all, m.Name)
	}
}

// checkDelta looks at what stock tools read.
func checkDelta(t *testing.T, w *world, m archive.Manifest) {
	t.Helper()
	b, err := w.archive.Backup(t.Context(), m.Name)
	check(t, err)
	s := b.Sentinel
	if s.FilesMetadataDisabled || *s.DeltaLSN != uint64(m.Delta.Since) || *s.DeltaFrom != m.Delta.Parent || *s.DeltaFullName != m.Delta.Full || *s.DeltaCount != m.Delta.Count {
		t.Errorf("the sentinel is %+v", s)
	}
	var meta struct {
		Files map[string]archive.FileMetadata
	}
	check(t, w.archive.FilesMetadata(t.Context(), m.Name, m.FilesMetadata, &meta))
	members := w.members(t, m)
	for name, f := range meta.Files {
		_, there := members[name]
		if there == f.Skipped || !strings.HasPrefix(name, "/") || f.MTime.IsZero() || f.Incremented && f.Skipped {
			t.Errorf("%s is %+v, and its member is there: %v", name, f, there)
		}
	}
	for name := range members {
		if _, ok := meta.Files[name]; !ok && !slices.Contains([]string{"/global/pg_control", "backup_label", "tablespace_map"}, name) {
			t.Errorf("%s is not listed", name)
		}
	}
	if d := m.Delta; d.UnchangedFiles+d.WholeFiles+d.PatchedFiles == 0 || d.DataBytes < d.ChangedBytes {
		t.Errorf("the delta is %+v", d)
	}
}

// TestDamagedChainIsNotRestored: what is missing or cut in any snapshot of a chain makes the restore choose another, or
// say so.
func TestDamagedChainIsNotRestored(t *testing.T) {
	majors := pgtest.Majors(t)
	c := newChain(t, majors[len(majors)-1], true)
	c.populate()
	old := c.next(t)
	c.known = nil
	var names []string
	for i := range 3 {
		c.Exec(fmt.Sprintf("UPDATE w0_big SET k = %d WHERE id %% 400 = 0", i+2))
		names = append(names, c.next(t).Name)
	}
	if !c.known[2].Delta() || !c.known[1].Delta() {
		t.Fatal("there is no chain")
	}
	c.ship(t)
	patched := c.known[1].Manifest
	for name, object := range map[string]string{
		"part of the full one":      names[0] + "/tar_partitions/part_001.tar.zst",
		"part of the middle":        names[1] + "/tar_partitions/" + patched.Parts[1].Name,
		"part of the last":          names[2] + "/tar_partitions/part_001.tar.zst",
		"sentinel of the middle":    names[1] + "_backup_stop_sentinel.json",
		"file list of WAL-G's":      names[2] + "/files_metadata.json",
		"file list in the middle":   names[1] + "/files_metadata.json",
		"manifest of the full one":  names[0] + "/outrider.json",
		"control file of the first": names[0] + "/tar_partitions/pg_control.tar.zst",
	} {
		key := "basebackups_005/" + object
		was := c.bucket.Bytes(key)
		if was == nil {
			t.Fatalf("there is no %s", key)
		}
		for what, spoil := range map[string]func(){
			"gone":    func() { check(t, c.bucket.Remove(t.Context(), key)) },
			"changed": func() { b := slices.Clone(was); b[len(b)/2] ^= 0xff; c.bucket.SetBytes(key, b) },
		} {
			spoil()
			plan, err := restore.NewPlan(t.Context(), c.archive, restore.Request{})
			if err == nil && plan.Snapshot.Name == names[2] {
				_, err = restore.Restore(t.Context(), c.archive, plan, restore.Options{Dir: filepath.Join(t.TempDir(), "d"), TablespaceMapping: map[string]string{c.space: filepath.Join(t.TempDir(), "s")}})
				if err == nil && !strings.HasPrefix(name, "control file") && (what == "gone" || !strings.HasPrefix(name, "manifest")) {
					t.Errorf("%s is %s, and a chain with it is restored", name, what)
				}
			}
			if err == nil && plan.Snapshot.Name != names[2] && plan.Snapshot.Name != old.Name && plan.Snapshot.Name != names[0] && plan.Snapshot.Name != names[1] {
				t.Errorf("%s is %s: the plan is %s", name, what, plan)
			}
		}
		c.bucket.SetBytes(key, was)
	}
	if _, err := os.Stat(c.laid(t, names[2], false)); err != nil || errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}
