package restore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"outrider.dev/sidecar/internal/archive"
)

// Options say where and how a plan is carried out. Dir is required.
type Options struct {
	// Dir is the data directory. It must be absent, empty, or one that a restore has left half done. It may be a mount
	// point: it is never removed or renamed.
	Dir string
	// SpoolDir is the directory from which the server will fetch WAL, as the server sees it; "" for one in Dir.
	SpoolDir string
	// WALDir is the directory that pg_wal becomes a link to; "" keeps pg_wal in Dir. It must be absent or empty.
	WALDir string
	// TablespaceMapping moves tablespaces: from their object id or old location to their new one.
	TablespaceMapping map[string]string
	// Parallel is how many parts are unpacked at once, 4 if it is 0. Each needs about 10 MB of memory.
	Parallel int
	// UID and GID are those of the server. They matter to root alone; 0 stands for whoever owned the files when the
	// snapshot was taken.
	UID, GID int
	// Patience is how long the server waits for WAL while nobody is seen to fill the spool, before it gives up and
	// stops. It is rounded to seconds; 10 minutes if it is 0.
	Patience time.Duration
	// Epoch is the one that was claimed for this restore, for the marker; 0 if there was none.
	Epoch    uint64
	Progress func(Progress)
	Log      *slog.Logger
}

const (
	defaultParallel = 4
	defaultPatience = 10 * time.Minute
)

func (o *Options) normalize() error {
	var err error
	if o.Dir == "" {
		return errors.New("restoring: no data directory was named")
	}
	for _, dir := range []*string{&o.Dir, &o.SpoolDir, &o.WALDir} {
		if *dir == "" {
			continue
		}
		if *dir, err = filepath.Abs(*dir); err != nil {
			return err
		}
	}
	for from, to := range o.TablespaceMapping {
		if !filepath.IsAbs(to) {
			return fmt.Errorf("mapping tablespace %s to %q: the path must be absolute", from, to)
		}
	}
	if o.SpoolDir == "" {
		o.SpoolDir = filepath.Join(o.Dir, ownDir, spoolName)
	}
	if o.Parallel <= 0 {
		o.Parallel = defaultParallel
	}
	if o.Patience <= 0 {
		o.Patience = defaultPatience
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return nil
}

// Result is what a restore has laid down. What recovery makes of it is told by the plan.
type Result struct {
	Snapshot string        `json:"snapshot"`
	Files    int           `json:"files"`
	Stored   int64         `json:"stored_bytes"` // fetched
	Raw      int64         `json:"raw_bytes"`    // unpacked
	Unpack   time.Duration `json:"unpack"`       // fetching is part of it
	Sync     time.Duration `json:"sync"`
	Warnings []string      `json:"warnings,omitempty"`
}

// Restore lays the snapshot of the plan into a data directory and leaves it ready for recovery, which needs the WAL
// that Fill lays down. An empty directory becomes one; one that an interrupted Restore has left is emptied first and
// filled again. Any other is ErrNotEmpty and stays as it is. When it is interrupted at any point, the next Inspect says
// Unpacking or, if all was done, Recovering.
func Restore(ctx context.Context, src *archive.Archive, plan Plan, opt Options) (Result, error) {
	if err := opt.normalize(); err != nil {
		return Result{}, err
	}
	r := &restorer{src: src, plan: plan, opt: opt, owner: newOwner(opt.UID, opt.GID)}
	res, err := r.run(ctx)
	if err != nil {
		return res, fmt.Errorf("restoring into %s: %w", opt.Dir, err)
	}
	return res, nil
}

type restorer struct {
	src    *archive.Archive
	plan   Plan
	opt    Options
	owner  *owner
	marker Marker
	places *places
	result Result
	held   map[string][]byte
	group  bool // whether the data directory lets its group in, as initdb -g makes it
}

func (r *restorer) run(ctx context.Context) (res Result, err error) {
	if err := r.begin(); err != nil {
		return Result{}, err
	}
	r.places, err = openPlaces(r.opt.Dir, r.owner)
	if err != nil {
		return Result{}, err
	}
	defer func() { err = errors.Join(err, r.places.close()) }()
	r.result.Snapshot = r.plan.Snapshot.Name
	begun := time.Now()
	if err := r.unpack(ctx); err != nil {
		return r.result, err
	}
	unpacked := time.Now().UTC()
	r.result.Unpack, r.marker.UnpackedAt = unpacked.Sub(begun), &unpacked
	if err := r.settle(ctx); err != nil {
		return r.result, err
	}
	return r.result, nil
}

func (r *restorer) warn(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if !slices.Contains(r.result.Warnings, text) {
		r.result.Warnings = append(r.result.Warnings, text)
		r.opt.Log.Warn("restoring the snapshot", "snapshot", r.plan.Snapshot.Name, "warning", text)
	}
}

// begin makes the directory ours: it writes the marker before anything else, or empties what an earlier marker says is
// ours.
func (r *restorer) begin() error {
	dir := r.opt.Dir
	state, err := Inspect(dir)
	if err != nil {
		return err
	}
	var old Marker
	switch state {
	case Absent, Empty:
	case Unpacking:
		if old, err = ReadMarker(dir); err != nil {
			return err
		}
	case Recovering:
		return fmt.Errorf("%w: it holds a restore that has not finished recovery: fill its spool and start the server, or remove it", ErrNotEmpty)
	default:
		return fmt.Errorf("%w: it holds %s: restore into an empty one", ErrNotEmpty, describe(state))
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := r.suits(); err != nil {
		return err
	}
	if state == Unpacking {
		if err := clean(dir, old); err != nil {
			return fmt.Errorf("removing what an interrupted restore has left: %w", err)
		}
	}
	if err := r.room(); err != nil {
		return err
	}
	r.marker = Marker{Phase: PhaseUnpacking, StartedAt: time.Now().UTC(), Plan: r.plan, Epoch: r.opt.Epoch, SpoolDir: spoolFor(dir, r.opt.SpoolDir)}
	if err := os.Mkdir(filepath.Join(dir, ownDir), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := r.marker.write(dir); err != nil {
		return err
	}
	return syncDir(dir)
}

func describe(s State) string {
	if s == Data {
		return "a PostgreSQL data directory"
	}
	return "files that are not PostgreSQL's"
}

// spoolFor is the spool's place in the marker and for the server, whose working directory is the data directory.
func spoolFor(dir, spool string) string {
	rel, err := filepath.Rel(dir, spool)
	if err != nil || !filepath.IsLocal(rel) {
		return spool
	}
	return rel
}

// suits refuses a directory that the server would refuse, before hours are spent on it: it wants to own it, and nobody
// else to see into it.
func (r *restorer) suits() error {
	fi, err := os.Stat(r.opt.Dir)
	if err != nil {
		return err
	}
	uid := os.Geteuid()
	if uid == 0 || ownerOf(fi) == uid {
		return nil
	}
	return fmt.Errorf("it belongs to user %d and we are user %d: PostgreSQL would refuse it; use a directory below it, or change its owner", ownerOf(fi), uid)
}

// room refuses to begin when the snapshot cannot fit.
func (r *restorer) room() error {
	need := r.plan.Snapshot.RawSize
	free, err := freeBytes(r.opt.Dir)
	if err != nil {
		return err
	}
	if need > free && len(r.opt.TablespaceMapping) == 0 && len(r.plan.Snapshot.tablespaces()) == 0 {
		return fmt.Errorf("snapshot %s needs %d bytes, its file system has %d: use a larger volume", r.plan.Snapshot.Name, need, free)
	}
	return nil
}

func (s Snapshot) tablespaces() []archive.Tablespace {
	if len(s.Links) == 0 {
		return nil
	}
	return s.Links[len(s.Links)-1].Tablespaces
}

// clean empties the directories that a marker says are ours. The marker itself goes last, that is, it is overwritten
// by the next one.
func clean(dir string, m Marker) error {
	for _, outside := range m.Outside {
		if err := empty(outside, func(string) bool { return false }); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	keep := func(name string) bool { return name == ownDir }
	if err := empty(dir, keep); err != nil {
		return err
	}
	return empty(filepath.Join(dir, ownDir), func(name string) bool { return name == markerName })
}

func empty(dir string, keep func(name string) bool) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() == "lost+found" || keep(e.Name()) {
			continue
		}
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// outside makes an absent or empty directory outside of the data directory one of this restore's.
func (r *restorer) outside(link, dir string) error {
	if !filepath.IsAbs(dir) {
		return fmt.Errorf("%s cannot be in %q: the path must be absolute", link, dir)
	}
	dir = filepath.Clean(dir)
	if inside(r.opt.Dir, dir) || inside(dir, r.opt.Dir) || slices.Contains(r.marker.Outside, dir) {
		return fmt.Errorf("%s cannot be in %s: it needs a directory of its own, outside of the data directory", link, dir)
	}
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("looking at the place of %s: %w", link, err)
	}
	for _, e := range entries {
		if e.Name() != "lost+found" {
			return fmt.Errorf("%w: %s is to be %s and holds %s: empty it, or map it to another place", ErrNotEmpty, dir, link, e.Name())
		}
	}
	// The marker says that it is ours before anything is in it.
	r.marker.Outside = append(r.marker.Outside, dir)
	if err := r.marker.write(r.opt.Dir); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("making the place of %s: %w: map it to another place", link, err)
	}
	return r.places.add(link, dir)
}

// inside tells whether b is a or lies in it.
func inside(a, b string) bool { return a == b || strings.HasPrefix(b, a+string(filepath.Separator)) }
