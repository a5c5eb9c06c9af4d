package restore

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/archive/archivetest"
)

func partKey(backup, part string) string {
	return "basebackups_005/" + backup + "/tar_partitions/" + part + ".tar.zst"
}

// A snapshot that is not whole is never used silently: the one before it is, and a snapshot asked for by name is an
// error.
func TestDamagedSnapshots(t *testing.T) {
	s := tell(t)
	for name, damage := range map[string]func(b *archivetest.Bucket){
		"a part is missing": func(b *archivetest.Bucket) { must(t, b.Remove(ctx(t), partKey(s.b, "part_002"))) },
		"a part is cut": func(b *archivetest.Bucket) {
			key := partKey(s.b, "part_002")
			b.SetBytes(key, b.Bytes(key)[:1000])
		},
		"no part is left": func(b *archivetest.Bucket) {
			for _, p := range []string{"part_001", "part_002", "part_003", "pg_control", "backup_label"} {
				must(t, b.Remove(ctx(t), partKey(s.b, p)))
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := cloneBucket(t, s.bucket)
			damage(b)
			a := archive.New(b)
			plan, err := NewPlan(t.Context(), a, Request{})
			must(t, err)
			if plan.Snapshot.Name != s.a || !strings.Contains(strings.Join(plan.Warnings, "\n"), s.b) {
				t.Errorf("the restore begins at %s with the warnings %q, want %s and that %s is passed over", plan.Snapshot.Name, plan.Warnings, s.a, s.b)
			}
			_, err = NewPlan(t.Context(), a, Request{Backup: s.b})
			if !errors.Is(err, archive.ErrCorrupt) {
				t.Errorf("the damaged snapshot by its name: %v, want ErrCorrupt", err)
			}
		})
	}
	for name, damage := range map[string]func(b *archivetest.Bucket){
		"a byte of a part is flipped": func(b *archivetest.Bucket) {
			key := partKey(s.b, "part_001")
			body := b.Bytes(key)
			body[len(body)/2] ^= 1
			b.SetBytes(key, body)
		},
		"two parts are swapped": func(b *archivetest.Bucket) {
			one, two := b.Bytes(partKey(s.b, "part_001")), b.Bytes(partKey(s.b, "part_002"))
			b.SetBytes(partKey(s.b, "part_001"), two)
			b.SetBytes(partKey(s.b, "part_002"), one)
		},
		"a part is gone since it was planned": func(b *archivetest.Bucket) { must(t, b.Remove(ctx(t), partKey(s.b, "part_003"))) },
	} {
		t.Run(name, func(t *testing.T) {
			b := cloneBucket(t, s.bucket)
			a := archive.New(b)
			plan, err := NewPlan(t.Context(), a, Request{})
			must(t, err)
			damage(b)
			dir := filepath.Join(t.TempDir(), "data")
			_, err = Restore(t.Context(), a, plan, Options{Dir: dir})
			if !errors.Is(err, archive.ErrCorrupt) || !strings.Contains(err.Error(), s.b) {
				t.Errorf("restoring: %v, want ErrCorrupt that names %s", err, s.b)
			}
			if state, err := Inspect(dir); state != Unpacking || err != nil {
				t.Errorf("the directory is %s (%v), want unpacking", state, err)
			}
			// The next try takes the other snapshot, into the same directory.
			plan, err = NewPlan(t.Context(), a, Request{Backup: s.a})
			must(t, err)
			_, err = Restore(t.Context(), a, plan, Options{Dir: dir})
			must(t, err)
			if state, err := Inspect(dir); state != Recovering || err != nil {
				t.Errorf("the directory is %s (%v), want recovering", state, err)
			}
		})
	}
}

// What the manifest says is believed, even where the store's checksums agree.
func TestManifestThatDisagrees(t *testing.T) {
	s := tell(t)
	for name, change := range map[string]func(*archive.Part){
		"files": func(p *archive.Part) { p.Files++ }, "bytes": func(p *archive.Part) { p.RawSize++ },
		"checksum": func(p *archive.Part) { p.CRC64++ },
	} {
		plan, err := NewPlan(t.Context(), s.writer.a, Request{})
		must(t, err)
		change(&plan.Snapshot.Links[0].Parts[1])
		_, err = Restore(t.Context(), s.writer.a, plan, Options{Dir: filepath.Join(t.TempDir(), "data")})
		if !errors.Is(err, archive.ErrCorrupt) {
			t.Errorf("another number of %s: %v, want ErrCorrupt", name, err)
		}
	}
}

// handmade is a snapshot without a manifest, of members that a test chooses.
func handmade(t *testing.T, members []tar.Header, end bool) *unpackTest {
	t.Helper()
	var b bytes.Buffer
	tw := tar.NewWriter(&b)
	for _, h := range members {
		body := []byte(strings.Repeat("x", int(h.Size)))
		must(t, tw.WriteHeader(&h))
		if h.Typeflag == tar.TypeReg {
			_, err := tw.Write(body)
			must(t, err)
		}
	}
	must(t, tw.Flush())
	if end {
		must(t, tw.Close())
	}
	return handmadeTar(t, b.Bytes())
}

func handmadeTar(t *testing.T, tarball []byte) *unpackTest {
	t.Helper()
	bucket := archivetest.Memory()
	e, err := zstd.NewWriter(nil)
	must(t, err)
	const name = "base_000000010000000000000001"
	bucket.SetBytes(partKey(name, "part_001"), e.EncodeAll(tarball, nil))
	bucket.SetBytes("basebackups_005/"+name+"_backup_stop_sentinel.json", []byte("{}"))
	u := &unpackTest{t: t, dir: t.TempDir()}
	r := &restorer{
		src: archive.New(bucket), opt: Options{Dir: u.dir}, owner: newOwner(0, 0),
		plan: Plan{Snapshot: Snapshot{Name: name, Links: []Link{{Name: name, Parts: []archive.Part{{Name: "part_001.tar.zst"}}}}}},
	}
	must(t, r.opt.normalize())
	r.places, err = openPlaces(u.dir, r.owner)
	must(t, err)
	u.err = errors.Join(r.unpack(t.Context()), r.places.close())
	u.warnings = r.result.Warnings
	return u
}

type unpackTest struct {
	t        *testing.T
	dir      string
	err      error
	warnings []string
}

func reg(name string) tar.Header {
	return tar.Header{Name: name, Mode: 0o600, Size: 100, Typeflag: tar.TypeReg}
}

func TestMembers(t *testing.T) {
	for _, name := range []string{"/base/1/112", "./base/1/112", "base/1/112", "//base/1/112"} {
		u := handmade(t, []tar.Header{reg(name)}, true)
		if _, err := os.Stat(filepath.Join(u.dir, "base", "1", "112")); err != nil || u.err != nil {
			t.Errorf("%s: %v, %v", name, u.err, err)
		}
	}
	for _, name := range []string{"../etc/passwd", "/../etc/passwd", "base/../../x", "base//x", "base/./x", "..", `base\x`} {
		u := handmade(t, []tar.Header{reg(name)}, true)
		if !errors.Is(u.err, archive.ErrCorrupt) {
			t.Errorf("a member called %q: %v, want ErrCorrupt", name, u.err)
		}
	}
	t.Run("links", func(t *testing.T) {
		outside := t.TempDir()
		u := handmade(t, []tar.Header{
			{Name: "base", Linkname: outside, Typeflag: tar.TypeSymlink},
			reg("base/evil"),
			{Name: "global", Linkname: "/etc/passwd", Typeflag: tar.TypeLink},
			{Name: "pipe", Typeflag: tar.TypeFifo},
		}, true)
		must(t, u.err)
		if entries, err := os.ReadDir(outside); err != nil || len(entries) > 0 {
			t.Errorf("a link led outside: %v %v", entries, err)
		}
		if fi, err := os.Lstat(filepath.Join(u.dir, "base", "evil")); err != nil || !fi.Mode().IsRegular() {
			t.Errorf("base/evil: %v %v", fi, err)
		}
		if len(u.warnings) != 3 {
			t.Errorf("warnings %q, want one for each link", u.warnings)
		}
	})
	t.Run("left out", func(t *testing.T) {
		names := []string{
			"pg_wal/000000010000000000000001", "pg_replslot/s/state", "recovery.signal", "standby.signal", "postmaster.pid",
			"outrider/restore.json",
		}
		var members []tar.Header
		for _, n := range names {
			members = append(members, reg("/"+n))
		}
		u := handmade(t, members, true)
		must(t, u.err)
		for _, n := range names {
			if _, err := os.Lstat(filepath.Join(u.dir, n)); err == nil {
				t.Errorf("%s was laid down", n)
			}
		}
	})
	t.Run("without an end", func(t *testing.T) {
		// As it is when a part was cut between two members, which a reader of tar does not notice.
		u := handmade(t, []tar.Header{reg("a"), reg("b")}, false)
		if !errors.Is(u.err, archive.ErrCorrupt) {
			t.Errorf("a tar that was cut between two members: %v, want ErrCorrupt", u.err)
		}
	})
	t.Run("a tablespace of which nobody says where it is", func(t *testing.T) {
		u := handmade(t, []tar.Header{reg("pg_tblspc/16384/PG_15_202209061/5/1")}, true)
		if u.err == nil || !strings.Contains(u.err.Error(), "16384") {
			t.Errorf("%v, want an error that names the tablespace", u.err)
		}
	})
}

func TestDirectoriesThatAreNotOurs(t *testing.T) {
	s := tell(t)
	plan, err := NewPlan(t.Context(), s.writer.a, Request{})
	must(t, err)
	for name, fill := range map[string]func(dir string){
		"a file":             func(dir string) { must(t, os.WriteFile(filepath.Join(dir, "x"), []byte("x"), 0o600)) },
		"a data directory":   func(dir string) { must(t, os.CopyFS(dir, os.DirFS(s.db.DataDir))) },
		"half an initdb":     func(dir string) { must(t, os.WriteFile(filepath.Join(dir, "PG_VERSION"), []byte("18\n"), 0o600)) },
		"an unknown marker":  func(dir string) { writeMarker(t, dir, `{"phase":"frozen"}`) },
		"a marker of later":  func(dir string) { writeMarker(t, dir, `{"format":99,"phase":"unpacking"}`) },
		"a damaged marker":   func(dir string) { writeMarker(t, dir, `{`) },
		"a marker and no ID": func(dir string) { writeMarker(t, dir, ``) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			fill(dir)
			before := listing(t, dir)
			if _, err := Restore(t.Context(), s.writer.a, plan, Options{Dir: dir}); err == nil {
				t.Fatal("restored into a directory that is not ours")
			}
			if after := listing(t, dir); after != before {
				t.Errorf("the directory was changed:\n%s\nbefore:\n%s", after, before)
			}
		})
	}
	for name, fill := range map[string]func(dir string){
		"lost+found":       func(dir string) { must(t, os.Mkdir(filepath.Join(dir, "lost+found"), 0o700)) },
		"nothing":          func(string) {},
		"no directory":     func(dir string) { must(t, os.Remove(dir)) },
		"a marker unborn":  func(dir string) { must(t, os.Mkdir(filepath.Join(dir, ownDir), 0o700)) },
		"half of a marker": func(dir string) { writeMarker(t, dir, ""); must(t, os.Rename(markerPath(dir), markerPath(dir)+".tmp")) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			fill(dir)
			_, err := Restore(t.Context(), s.writer.a, plan, Options{Dir: dir})
			must(t, err)
			if state, err := Inspect(dir); state != Recovering || err != nil {
				t.Errorf("the directory is %s (%v), want recovering", state, err)
			}
			if _, err := Restore(t.Context(), s.writer.a, plan, Options{Dir: dir}); !errors.Is(err, ErrNotEmpty) {
				t.Errorf("a second restore into it: %v, want ErrNotEmpty", err)
			}
		})
	}
}

func writeMarker(t *testing.T, dir, content string) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Join(dir, ownDir), 0o700))
	must(t, os.WriteFile(markerPath(dir), []byte(content), 0o600))
}

// listing tells what is in a directory, with sizes and times.
func listing(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	must(t, filepath.Walk(dir, func(path string, fi os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		fmt.Fprintln(&b, path, fi.Mode(), fi.Size(), fi.ModTime())
		return nil
	}))
	return b.String()
}
