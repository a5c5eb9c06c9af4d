package restore

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"outrider.dev/sidecar/internal/archive"
)

// places are the directories that a snapshot is unpacked into: the data directory, and others that links in it will
// lead to. All access is through os.Root, so that nothing in a snapshot can lead outside of them. It is safe for
// concurrent use once it is set up.
type places struct {
	main  *os.Root
	other map[string]*place // by the path of the link, such as "pg_tblspc/16384"
	owner *owner
}

type place struct {
	root *os.Root
	path string
}

func openPlaces(dir string, o *owner) (*places, error) {
	main, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("opening the data directory: %w", err)
	}
	return &places{main: main, other: map[string]*place{}, owner: o}, nil
}

// add opens a directory outside of the data directory for what belongs below link. It must exist.
func (p *places) add(link, dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("opening the directory for %s: %w", link, err)
	}
	p.other[link] = &place{root: root, path: dir}
	return nil
}

func (p *places) close() error {
	err := p.main.Close()
	for _, o := range p.other {
		err = errors.Join(err, o.root.Close())
	}
	return err
}

// find tells where a member belongs: name is a cleaned path below the data directory.
func (p *places) find(name string) (root *os.Root, rel string) {
	if o, ok := p.other[name]; ok {
		return o.root, "."
	}
	for link, o := range p.other {
		if rest, ok := strings.CutPrefix(name, link+"/"); ok {
			return o.root, rest
		}
	}
	return p.main, name
}

// mkdir makes a directory and what is missing above it.
func (p *places) mkdir(root *os.Root, rel string, mode fs.FileMode) error {
	if rel == "." {
		return nil
	}
	err := root.Mkdir(rel, mode)
	if errors.Is(err, fs.ErrNotExist) {
		if err := p.mkdir(root, path.Dir(rel), 0o700); err != nil {
			return err
		}
		err = root.Mkdir(rel, mode)
	}
	if errors.Is(err, fs.ErrExist) {
		return nil // by another part, or by ourselves as a parent
	}
	if err != nil {
		return err
	}
	return p.owner.give(root, rel)
}

// create opens a file to be written from its beginning, or as it is where keep is set.
func (p *places) create(name string, keep bool) (*os.File, error) {
	root, rel := p.find(name)
	flags := os.O_CREATE | os.O_WRONLY | os.O_TRUNC
	if keep {
		flags = os.O_WRONLY
	}
	f, err := root.OpenFile(rel, flags, 0o600)
	if errors.Is(err, fs.ErrNotExist) && !keep {
		if err := p.mkdir(root, path.Dir(rel), 0o700); err != nil {
			return nil, err
		}
		f, err = root.OpenFile(rel, flags, 0o600)
	}
	return f, err
}

// owner is who the files shall belong to; it matters only to root. Without an order it is whoever owned them when the
// snapshot was taken.
type owner struct {
	mu       sync.Mutex
	root     bool // whether we can give files away
	known    bool
	uid, gid int
}

func newOwner(uid, gid int) *owner {
	return &owner{root: os.Geteuid() == 0, known: uid != 0, uid: uid, gid: gid}
}

// learn takes the owner from a member, unless it is root, which no server runs as.
func (o *owner) learn(uid, gid int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.known && uid != 0 {
		o.known, o.uid, o.gid = true, uid, gid
	}
}

func (o *owner) get() (uid, gid int, ok bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.uid, o.gid, o.root && o.known
}

func (o *owner) give(root *os.Root, rel string) error {
	if uid, gid, ok := o.get(); ok {
		return root.Lchown(rel, uid, gid)
	}
	return nil
}

func (o *owner) giveFile(f *os.File) error {
	if uid, gid, ok := o.get(); ok {
		return f.Chown(uid, gid)
	}
	return nil
}

// givePath gives away a file or directory of ours by its path.
func (o *owner) givePath(path string) error {
	if uid, gid, ok := o.get(); ok {
		return os.Lchown(path, uid, gid)
	}
	return nil
}

// giveTree gives away a directory of ours with what is in it.
func (o *owner) giveTree(dir string) error {
	return filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return o.givePath(path)
	})
}

func tablespaceLink(oid uint32) string { return "pg_tblspc/" + strconv.FormatUint(uint64(oid), 10) }

func parseOID(s string) (uint32, bool) {
	n, err := strconv.ParseUint(s, 10, 32)
	return uint32(n), err == nil && n > 0
}

// parseTablespaceMap reads the file tablespace_map: a line for each link, with backslashes before those and newlines in
// the location (read_tablespace_map, src/backend/access/transam/xlogrecovery.c).
func parseTablespaceMap(content []byte) ([]archive.Tablespace, error) {
	var all []archive.Tablespace
	var line []byte
	flush := func() error {
		if len(line) == 0 {
			return nil
		}
		oid, location, ok := strings.Cut(string(line), " ")
		n, valid := parseOID(oid)
		if !ok || !valid || location == "" {
			return fmt.Errorf("%w: tablespace_map has the line %q", archive.ErrCorrupt, line)
		}
		all = append(all, archive.Tablespace{OID: n, Location: location})
		line = line[:0]
		return nil
	}
	escaped := false
	for _, c := range content {
		switch {
		case !escaped && c == '\\':
			escaped = true
			continue
		case !escaped && (c == '\n' || c == '\r'):
			if err := flush(); err != nil {
				return nil, err
			}
		default:
			line = append(line, c)
		}
		escaped = false
	}
	return all, flush()
}

// ownerOf is the user that a file belongs to, -1 if that cannot be told.
func ownerOf(fi fs.FileInfo) int {
	if s, ok := fi.Sys().(*syscall.Stat_t); ok {
		return int(s.Uid)
	}
	return -1
}

func ownerGroupOf(fi fs.FileInfo) int {
	if s, ok := fi.Sys().(*syscall.Stat_t); ok {
		return int(s.Gid)
	}
	return -1
}
