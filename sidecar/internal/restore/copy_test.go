package restore

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/wal"
)

// filesCopy is a copy of a data directory as tar parts.
type filesCopy struct {
	name         string
	start, stop  wal.LSN
	began, ended time.Time
	parts        map[string][]byte // tar streams
	order        []string
	tablespaces  []archive.Tablespace
	label        string
}

func (w *writer) copyFiles() filesCopy {
	w.t.Helper()
	conn := w.db.Conn()
	defer conn.Close(ctx(w.t))
	start, stop := "pg_backup_start('test', true)", "pg_backup_stop(false)"
	if w.db.Major < 15 {
		start, stop = "pg_start_backup('test', true, false)", "pg_stop_backup(false, false)"
	}
	s := filesCopy{parts: map[string][]byte{}, began: time.Now().UTC()}
	s.start = parseLSN(w.t, scan[string](w.t, conn, "SELECT "+start+"::text"))
	s.name = archive.BackupName(segmentSize.SegmentAt(w.tli, s.start), segmentSize)
	files := tarFiles(w.t, w.db.DataDir)
	const parts = 3
	for i := range parts {
		s.add(w.t, fmt.Sprintf("part_%03d", i+1), func(tw *tar.Writer) {
			for j, f := range files {
				if j%parts == i {
					f.write(w.t, tw)
				}
			}
		})
	}
	var lsn, label, spcmap string
	must(w.t, conn.QueryRow(ctx(w.t), "SELECT lsn::text, labelfile, spcmapfile FROM "+stop).Scan(&lsn, &label, &spcmap))
	s.stop, s.ended, s.label = parseLSN(w.t, lsn), time.Now().UTC(), label
	control, err := os.ReadFile(wal.ControlPath(w.db.DataDir))
	must(w.t, err)
	s.add(w.t, "pg_control", func(tw *tar.Writer) { writeMember(w.t, tw, "/global/pg_control", control) })
	s.add(w.t, "backup_label", func(tw *tar.Writer) {
		writeMember(w.t, tw, "backup_label", []byte(label))
		writeMember(w.t, tw, "tablespace_map", []byte(spcmap))
	})
	s.tablespaces, err = parseTablespaceMap([]byte(spcmap))
	must(w.t, err)
	w.ship()
	return s
}

func scan[T any](t testing.TB, conn *pgx.Conn, sql string) T {
	t.Helper()
	var v T
	must(t, conn.QueryRow(ctx(t), sql).Scan(&v))
	return v
}

func (s *filesCopy) add(t testing.TB, name string, fill func(*tar.Writer)) {
	t.Helper()
	var b bytes.Buffer
	tw := tar.NewWriter(&b)
	fill(tw)
	must(t, tw.Close())
	s.parts[name] = b.Bytes()
	s.order = append(s.order, name)
}

func countFiles(t testing.TB, tarball []byte) (n int) {
	t.Helper()
	for r := tar.NewReader(bytes.NewReader(tarball)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return n
		}
		must(t, err)
		if h.Typeflag == tar.TypeReg {
			n++
		}
	}
}

type tarFile struct {
	name string // as in the tar
	path string
	dir  bool
}

// tarFiles lists what a snapshot holds, in WAL-G's spelling.
func tarFiles(t testing.TB, dir string) []tarFile {
	t.Helper()
	var all []tarFile
	walk := func(top, prefix string) {
		must(t, filepath.WalkDir(top, func(path string, e fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil {
				return err
			}
			rel, _ := filepath.Rel(top, path)
			name := "/" + filepath.Join(prefix, rel)
			switch {
			case strings.HasPrefix(name, "/pg_wal/") && e.Type().IsRegular(), name == "/global/pg_control", name == "/postmaster.pid",
				strings.HasPrefix(name, "/outrider"):
			case e.IsDir():
				all = append(all, tarFile{name: name, path: path, dir: true})
			case e.Type().IsRegular():
				all = append(all, tarFile{name: name, path: path})
			}
			return nil
		}))
	}
	walk(dir, "")
	links, err := filepath.Glob(filepath.Join(dir, "pg_tblspc", "*"))
	must(t, err)
	for _, l := range links {
		target, err := os.Readlink(l)
		must(t, err)
		walk(target, "pg_tblspc/"+filepath.Base(l))
	}
	return all
}

func (f tarFile) write(t testing.TB, tw *tar.Writer) {
	t.Helper()
	fi, err := os.Stat(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	must(t, err)
	owner := fi.Sys().(*syscall.Stat_t)
	h := &tar.Header{Name: f.name, Mode: int64(fi.Mode().Perm()), Uid: int(owner.Uid), Gid: int(owner.Gid), ModTime: fi.ModTime(), Format: tar.FormatUSTAR}
	if f.dir {
		h.Typeflag = tar.TypeDir
		must(t, tw.WriteHeader(h))
		return
	}
	content, err := os.ReadFile(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	must(t, err)
	h.Typeflag, h.Size = tar.TypeReg, int64(len(content))
	must(t, tw.WriteHeader(h))
	_, err = tw.Write(content)
	must(t, err)
}

func writeMember(t testing.TB, tw *tar.Writer, name string, content []byte) {
	t.Helper()
	must(t, tw.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: int64(len(content)), Typeflag: tar.TypeReg, Format: tar.FormatUSTAR}))
	_, err := tw.Write(content)
	must(t, err)
}
