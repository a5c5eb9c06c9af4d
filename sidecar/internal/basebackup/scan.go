package basebackup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"outrider.dev/sidecar/internal/archive"
)

// tree is a directory on disk and the place it has in the data directory. All access is through os.Root, so that a
// link that appears in the middle of a snapshot leads nowhere else.
type tree struct {
	root  *os.Root
	place string // "" for the data directory itself, or such as "pg_tblspc/16384"
}

// entry is one member of a snapshot.
type entry struct {
	tree    *tree
	rel     string // path in the tree, "." for itself
	as      string // the path in the data directory, where that does not follow from tree and rel
	dir     bool
	size    int64       // when it was listed
	info    fs.FileInfo // of a file, when it was listed
	segment int32       // of a relation's fork, or noRelation
}

// name is the path in the data directory, "." for that itself.
func (e entry) name() string {
	if e.as != "" {
		return e.as
	}
	return path.Join(e.tree.place, e.rel)
}

// inventory is what a snapshot consists of, less pg_control and the labels.
type inventory struct {
	entries     []entry
	trees       []*tree
	tablespaces []archive.Tablespace // those that are links
	files       int64
	bytes       int64
}

func (inv *inventory) close() {
	for _, t := range inv.trees {
		_ = t.root.Close() // was only read from
	}
}

func (inv *inventory) add(e entry) {
	inv.entries = append(inv.entries, e)
	if !e.dir {
		inv.files++
		inv.bytes += e.size
	}
}

// leaveOut takes the entries out that drop says so of.
func (inv *inventory) leaveOut(drop func(e entry) bool) {
	all := inv.entries
	inv.entries, inv.files, inv.bytes = nil, 0, 0
	for _, e := range all {
		if e.dir || !drop(e) {
			inv.add(e)
		}
	}
}

// scanner lists a data directory. The server may be changing it: what vanishes meanwhile is left out.
type scanner struct {
	pgdata string
	facts  Facts
	names  relationNames
	log    *slog.Logger
	owner  uint32 // of the data directory
	inv    *inventory
}

// scan lists the data directory. The caller closes the inventory, also after an error.
func scan(ctx context.Context, pgdata string, f Facts, log *slog.Logger) (*inventory, error) {
	s := &scanner{pgdata: pgdata, facts: f, names: newRelationNames(), log: log, inv: &inventory{}}
	t, err := s.open(pgdata, "")
	if err != nil {
		return s.inv, fmt.Errorf("opening the data directory: %w", err)
	}
	info, err := t.root.Stat(".")
	if err != nil {
		return s.inv, fmt.Errorf("looking at the data directory: %w", err)
	}
	s.owner = ownerOf(info)
	return s.inv, s.directory(ctx, t, ".")
}

func (s *scanner) open(dir, place string) (*tree, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	t := &tree{root: root, place: place}
	s.inv.trees = append(s.inv.trees, t)
	return t, nil
}

// directory adds a directory and what is in it.
func (s *scanner) directory(ctx context.Context, t *tree, rel string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	d := entry{tree: t, rel: rel, dir: true, segment: noRelation}
	children, err := readDir(t.root, rel)
	if errors.Is(err, fs.ErrNotExist) && rel != "." {
		return nil
	}
	if err != nil {
		return readable(fmt.Errorf("listing %s: %w", s.path(d.name()), err))
	}
	s.inv.add(d)
	var rels relations
	inRelations := holdsRelations(d.name())
	if inRelations {
		rels = s.names.in(namesOf(children))
	}
	for _, c := range children {
		e := entry{tree: t, rel: path.Join(rel, c.Name()), segment: noRelation}
		v := judge(e.name())
		if v == skip || inRelations && c.Type().IsRegular() && rels.skips(c.Name()) || e.name() == controlFile {
			continue
		}
		if inRelations {
			e.segment = rels.segment(c.Name())
		}
		if err := s.child(ctx, e, c, v); err != nil {
			return err
		}
	}
	return nil
}

func (s *scanner) child(ctx context.Context, e entry, c fs.DirEntry, v verdict) error {
	switch typ := c.Type(); {
	case v == empty && (typ.IsDir() || typ == fs.ModeSymlink):
		s.inv.add(emptyDirectory(e))
	case typ.IsDir() && path.Dir(e.name()) == "pg_tblspc":
		// A directory in the place of a link is a tablespace too (allow_in_place_tablespaces).
		return s.tablespace(ctx, e.tree, e.rel)
	case typ.IsDir():
		return s.directory(ctx, e.tree, e.rel)
	case typ.IsRegular():
		info, err := c.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return readable(fmt.Errorf("looking at %s: %w", s.path(e.name()), err))
		}
		e.size, e.info = info.Size(), info
		s.inv.add(e)
	case typ == fs.ModeSymlink && path.Dir(e.name()) == "pg_tblspc":
		return s.linkedTablespace(ctx, e)
	case typ == fs.ModeSymlink:
		return s.link(ctx, e)
	default:
		s.log.Debug("left out of the snapshot: neither file nor directory", "path", e.name(), "type", typ.String())
	}
	return nil
}

// emptyDirectory stands for a directory that need not be one, such as a pg_wal that is a link: owner and permissions
// are those of the data directory.
func emptyDirectory(e entry) entry {
	return entry{tree: e.tree, rel: ".", as: e.name(), dir: true, segment: noRelation}
}

// tablespace adds the directory of one and in it only what belongs to this server.
func (s *scanner) tablespace(ctx context.Context, t *tree, rel string) error {
	place := path.Join(t.place, rel)
	if t.place == "" {
		s.inv.add(entry{tree: t, rel: rel, dir: true, segment: noRelation})
	}
	version := path.Join(rel, versionDirectory(s.facts))
	_, err := t.root.Stat(version)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // no database uses it yet, or it was dropped
	}
	if err != nil {
		return readable(fmt.Errorf("looking at %s: %w", s.path(path.Join(place, versionDirectory(s.facts))), err))
	}
	return s.directory(ctx, t, version)
}

func (s *scanner) linkedTablespace(ctx context.Context, e entry) error {
	location, err := e.tree.root.Readlink(e.rel)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return readable(fmt.Errorf("reading the link of tablespace %s: %w", e.name(), err))
	}
	oid, ok := parseOID(path.Base(e.rel))
	if !ok {
		s.log.Warn("left out of the snapshot: a link that is no tablespace", "path", e.name())
		return nil
	}
	dir := location
	if !filepath.IsAbs(dir) {
		dir = filepath.Join(s.path("pg_tblspc"), dir)
	}
	t, err := s.open(dir, e.name())
	if err != nil {
		if _, gone := e.tree.root.Lstat(e.rel); errors.Is(gone, fs.ErrNotExist) {
			return nil // dropped in this moment
		}
		return fmt.Errorf("opening tablespace %d: %w: let this process see %s at the same path as the server does", oid, err, location)
	}
	s.inv.tablespaces = append(s.inv.tablespaces, archive.Tablespace{OID: oid, Location: location})
	return s.tablespace(ctx, t, ".")
}

// link adds what a link leads to: a snapshot holds none. A directory of the server's own that was moved elsewhere is
// followed, and so is a file, such as a configuration that is mounted from elsewhere. Other directories could be
// anything, so they are named and left out.
func (s *scanner) link(ctx context.Context, e entry) error {
	target, info, err := s.target(e)
	switch {
	case err != nil:
		s.log.Warn("left out of the snapshot: a link that leads nowhere from here", "path", e.name(), "error", err)
	case info.IsDir() && ownsSymlink(e.name()):
		t, err := s.open(target, e.name())
		if err != nil {
			return readable(fmt.Errorf("opening %s, to which %s leads: %w", target, e.name(), err))
		}
		return s.directory(ctx, t, ".")
	case info.IsDir():
		s.log.Warn("a linked directory is in the snapshot as an empty one", "path", e.name(), "target", target)
		s.inv.add(emptyDirectory(e))
	case !s.follows(target, info):
		s.log.Warn("left out of the snapshot: a link to what is not the server's", "path", e.name(), "target", target)
	default:
		t, err := s.open(filepath.Dir(target), "")
		if err != nil {
			return readable(fmt.Errorf("opening the directory of %s, to which %s leads: %w", target, e.name(), err))
		}
		s.log.Info("a linked file is in the snapshot as a file", "path", e.name(), "target", target)
		s.inv.add(entry{tree: t, rel: filepath.Base(target), as: e.name(), size: info.Size(), info: info, segment: e.segment})
	}
	return nil
}

func (s *scanner) target(e entry) (string, fs.FileInfo, error) {
	target, err := filepath.EvalSymlinks(filepath.Join(e.tree.root.Name(), e.rel))
	if err != nil {
		return "", nil, err
	}
	info, err := os.Lstat(target)
	return target, info, err
}

// follows tells whether a linked file may go into the archive. Who can write to the data directory could otherwise
// have this process, which may be more privileged, archive its own secrets.
func (s *scanner) follows(target string, info fs.FileInfo) bool {
	for _, dir := range []string{"/proc/", "/sys/", "/dev/", "/run/secrets/", "/var/run/secrets/"} {
		if strings.HasPrefix(target, dir) {
			return false
		}
	}
	return info.Mode().IsRegular() && (ownerOf(info) == s.owner || info.Mode().Perm()&0o004 != 0)
}

func (s *scanner) path(name string) string { return filepath.Join(s.pgdata, name) }

func readDir(root *os.Root, rel string) ([]fs.DirEntry, error) {
	d, err := root.Open(rel)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	children, err := d.ReadDir(-1)
	slices.SortFunc(children, func(x, y fs.DirEntry) int { return strings.Compare(x.Name(), y.Name()) })
	return children, err
}

func namesOf(children []fs.DirEntry) []string {
	names := make([]string, len(children))
	for i, c := range children {
		names[i] = c.Name()
	}
	return names
}

func ownerOf(info fs.FileInfo) uint32 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Uid
	}
	return 0
}

func parseOID(s string) (uint32, bool) {
	var n uint32
	_, err := fmt.Sscanf(s, "%d", &n)
	return n, err == nil && fmt.Sprint(n) == s
}

// readable adds the remedy where this process may not read what the server may.
func readable(err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w: run as the user that the server runs as", err)
	}
	return err
}
