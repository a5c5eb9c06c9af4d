package restore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/wal"
)

// copyBuffer is the size of the pieces in which files are written.
const copyBuffer = 256 << 10

// unpack lays down all links of the snapshot. The label comes first, because it brings the map of the tablespaces.
func (r *restorer) unpack(ctx context.Context) error {
	links := r.plan.Snapshot.Links
	last := links[len(links)-1]
	r.held = map[string][]byte{}
	m := newMeter("unpack", r.plan.Snapshot.RawSize, r.opt.Progress)
	u := unpacker{
		src: r.src, places: r.places, owner: r.owner, meter: m, parallel: r.opt.Parallel, warn: r.warnLater(), log: r.opt.Log,
		tablespaces: map[string]bool{}, held: r.held, sure: map[string]bool{},
		buffers: &sync.Pool{New: func() any { b := make([]byte, copyBuffer); return &b }},
	}
	labels := map[string]bool{}
	label := last
	label.Parts = nil
	for _, p := range last.Parts {
		if labelPart.MatchString(p.Name) {
			label.Parts = append(label.Parts, p)
			labels[p.Name] = true
		}
	}
	u.link, u.last = label, true
	if err := u.run(ctx, nil); err != nil {
		return err
	}
	if err := r.tablespaces(&u, last); err != nil {
		return err
	}
	if err := r.links(ctx, &u, links, labels); err != nil {
		return err
	}
	done := m.done()
	r.group = u.group
	r.result.Files, r.result.Raw, r.result.Stored = u.count, done.Bytes, r.plan.Snapshot.StoredSize
	return nil
}

// warnLater collects the warnings of several goroutines.
func (r *restorer) warnLater() func(string, ...any) {
	var mu sync.Mutex
	return func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		r.warn(format, args...)
	}
}

func (r *restorer) links(ctx context.Context, u *unpacker, links []Link, labels map[string]bool) error {
	all := make([]*filesMetadata, len(links))
	for i, l := range links {
		if l.Manifest && i == 0 {
			continue // the manifest tells whether it is whole
		}
		m, err := readFilesMetadata(ctx, r.src, l)
		if errors.Is(err, fs.ErrNotExist) {
			if i > 0 {
				return fmt.Errorf("snapshot %s: %w: without the list of its files a delta cannot be restored: %w", l.Name, archive.ErrCorrupt, err)
			}
			continue
		}
		if err != nil {
			return err
		}
		all[i] = m
	}
	if len(links) > 1 {
		u.want = all[len(all)-1]
	}
	everSeen := map[string]bool{}
	for i, l := range links {
		u.link, u.last, u.files, u.seen = l, i == len(links)-1, all[i], map[string]bool{}
		var skip map[string]bool
		if u.last {
			skip = labels
			for _, name := range []string{labelFile, tablespaceMapFile} {
				u.seen[name] = u.held[name] != nil
			}
		}
		if err := u.run(ctx, skip); err != nil {
			return err
		}
		for name := range u.seen {
			everSeen[name] = true
		}
	}
	if u.want == nil {
		return nil
	}
	for name := range u.want.files {
		if !everSeen[name] {
			return fmt.Errorf("snapshot %s: %w: %s is in none of the snapshots that it builds on", r.plan.Snapshot.Name, archive.ErrCorrupt, name)
		}
	}
	return nil
}

// tablespaces decides where each tablespace goes and makes those places ours.
func (r *restorer) tablespaces(u *unpacker, last Link) error {
	at := map[uint32]string{}
	for _, t := range last.Tablespaces {
		at[t.OID] = t.Location
	}
	m, mapped := r.held[tablespaceMapFile]
	fromMap, err := parseTablespaceMap(m)
	if err != nil {
		return err
	}
	for _, t := range fromMap {
		at[t.OID] = t.Location
	}
	u.complete = last.TablespacesKnown || mapped
	used := map[string]bool{}
	for name, to := range r.opt.TablespaceMapping {
		if oid, ok := parseOID(name); ok {
			at[oid] = to
			used[name] = true
		}
	}
	for oid, location := range at {
		if to, ok := r.opt.TablespaceMapping[location]; ok {
			used[location] = true
			location = to
		}
		if !filepath.IsAbs(location) {
			continue // in place: a directory in pg_tblspc
		}
		if err := r.outside(tablespaceLink(oid), location); err != nil {
			return err
		}
		u.tablespaces[tablespaceLink(oid)] = true
	}
	for name := range r.opt.TablespaceMapping {
		if !used[name] {
			return fmt.Errorf("mapping tablespace %s: the snapshot has none there; it has %v", name, at)
		}
	}
	if r.opt.WALDir != "" {
		return r.outside("pg_wal", r.opt.WALDir)
	}
	return nil
}

// settle completes the data directory. The order is that in which it becomes usable: until pg_control is there no
// server starts on it, and until the marker says so nobody will start one.
func (r *restorer) settle(ctx context.Context) error {
	if err := r.check(); err != nil {
		return err
	}
	if err := r.directories(); err != nil {
		return err
	}
	if err := r.configure(); err != nil {
		return err
	}
	if err := r.spool(ctx); err != nil {
		return err
	}
	for _, f := range []struct {
		name    string
		content []byte
	}{{labelFile, r.held[labelFile]}, {"recovery.signal", nil}, {controlFile, r.held[controlFile]}} {
		path := filepath.Join(r.opt.Dir, filepath.FromSlash(f.name))
		if err := os.WriteFile(path, f.content, 0o600); err != nil {
			return err
		}
		if err := r.owner.givePath(path); err != nil {
			return err
		}
	}
	if err := r.owner.giveTree(filepath.Join(r.opt.Dir, ownDir)); err != nil {
		return err
	}
	begun := time.Now()
	if err := syncAll(append([]string{r.opt.Dir}, r.marker.Outside...)...); err != nil {
		return err
	}
	r.result.Sync = time.Since(begun)
	if err := ctx.Err(); err != nil {
		return err
	}
	ready := time.Now().UTC()
	r.marker.Phase, r.marker.ReadyAt = PhaseRecovering, &ready
	if err := r.marker.write(r.opt.Dir); err != nil {
		return err
	}
	return r.owner.givePath(markerPath(r.opt.Dir))
}

// check compares what was unpacked with the plan.
func (r *restorer) check() error {
	name := r.plan.Snapshot.Name
	c, err := wal.ParseControl(r.held[controlFile])
	if err != nil {
		return fmt.Errorf("snapshot %s: %w: its pg_control: %w: use another snapshot", name, archive.ErrCorrupt, err)
	}
	if id := r.plan.SystemIdentifier; id != 0 && c.SystemIdentifier != id {
		return fmt.Errorf("snapshot %s: %w: it is of system identifier %d, the archive of %d", name, archive.ErrCorrupt, c.SystemIdentifier, id)
	}
	if c.SegmentSize != r.plan.SegmentSize {
		return fmt.Errorf("snapshot %s: %w: its WAL segments have %d bytes, those of the archive %d", name, archive.ErrCorrupt, c.SegmentSize, r.plan.SegmentSize)
	}
	label, ok := r.held[labelFile]
	if !ok {
		return fmt.Errorf("snapshot %s: %w: it has no backup_label, and cannot be made consistent without", name, archive.ErrCorrupt)
	}
	start, err := labelStart(label)
	if err != nil {
		return fmt.Errorf("snapshot %s: %w: %w", name, archive.ErrCorrupt, err)
	}
	s := r.plan.Snapshot
	if s.StartKnown && start != s.Start || !s.StartKnown && r.plan.SegmentSize.Floor(start) != s.Start {
		return fmt.Errorf("snapshot %s: %w: its label says that it begins at %s, its sentinel %s", name, archive.ErrCorrupt, start, s.Start)
	}
	if ok, err := exists(filepath.Join(r.opt.Dir, "PG_VERSION")); !ok || err != nil {
		return errors.Join(err, fmt.Errorf("snapshot %s: %w: it has no PG_VERSION", name, archive.ErrCorrupt))
	}
	return nil
}

// labelStart reads where a backup begins from its label (build_backup_content, src/backend/access/transam/xlogbackup.c).
func labelStart(label []byte) (wal.LSN, error) {
	for line := range bytes.Lines(label) {
		if rest, ok := bytes.CutPrefix(line, []byte("START WAL LOCATION: ")); ok {
			at, _, _ := bytes.Cut(rest, []byte(" "))
			return wal.ParseLSN(string(at))
		}
	}
	return 0, errors.New("its label does not say where it begins")
}

// directories makes those that snapshots leave out when they are empty, the links, and settles who owns what.
func (r *restorer) directories() error {
	p := r.places
	for link := range p.other {
		if link == "pg_wal" || inside("pg_tblspc", link) {
			if err := p.mkdir(p.main, filepath.Dir(link), 0o700); err != nil {
				return err
			}
		}
	}
	for link, o := range p.other {
		if err := p.main.Symlink(o.path, link); err != nil {
			return err
		}
		if err := r.owner.give(p.main, link); err != nil {
			return err
		}
		if err := r.owner.give(o.root, "."); err != nil {
			return err
		}
		if err := o.root.Chmod(".", 0o700); err != nil {
			return err
		}
	}
	for _, name := range emptyDirs() {
		root, rel := p.find(name)
		if err := p.mkdir(root, rel, 0o700); err != nil {
			return err
		}
	}
	return r.top()
}

// top gives the data directory itself the owner and the permissions that the server demands.
func (r *restorer) top() error {
	fi, err := os.Stat(r.opt.Dir)
	if err != nil {
		return err
	}
	if err := r.owner.givePath(r.opt.Dir); err != nil {
		return err
	}
	mode := fs.FileMode(0o700)
	if r.group {
		mode = 0o750
	}
	if fi.Mode().Perm() != mode {
		return os.Chmod(r.opt.Dir, mode)
	}
	return nil
}
