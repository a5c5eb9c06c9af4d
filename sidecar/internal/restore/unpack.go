package restore

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"outrider.dev/sidecar/internal/archive"
)

// maxHeld bounds the files that are kept in memory.
const maxHeld = 1 << 20

// unpacker lays the parts of one snapshot of a chain into their places. All parts are unpacked at once, as many at a
// time as parallel says; each holds one decompressor and one buffer.
type unpacker struct {
	src      *archive.Archive
	places   *places
	owner    *owner
	meter    *meter
	parallel int
	buffers  *sync.Pool
	warn     func(format string, args ...any)
	log      *slog.Logger
	// tablespaces tells the links below pg_tblspc; where complete is false there may be others.
	tablespaces map[string]bool
	complete    bool

	link  Link
	last  bool           // of the chain: what is kept in memory comes from here
	files *filesMetadata // of the link; nil if it has none
	want  *filesMetadata // of the last of the chain; nil if everything is wanted

	mu    sync.Mutex
	held  map[string][]byte
	sure  map[string]bool // held from the part that is made for it
	seen  map[string]bool // members, where files has to be compared with them
	count int             // files laid down
	group bool            // whether the data directory lets its group in
}

// run unpacks the parts of the link.
func (u *unpacker) run(ctx context.Context, skip map[string]bool) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(u.parallel)
	for _, p := range u.link.Parts {
		if skip[p.Name] || !u.last && (labelPart.MatchString(p.Name) || controlPart.MatchString(p.Name)) {
			continue
		}
		g.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := u.part(ctx, p); err != nil {
				return fmt.Errorf("unpacking part %s of %s: %w", p.Name, u.link.Name, err)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return u.files.complete(u.link, u.seen)
}

// Waiting times between tries to unpack a part. The store's adapter has retried for a while by itself before it reports
// an error; without a try of our own one outage would cost all parts that are unpacked already.
const (
	partTries    = 8
	firstPartTry = 250 * time.Millisecond
	maxPartWait  = 15 * time.Second
)

// transferError is an error of getting a part, not of its content or of the disk.
type transferError struct{ error }

func (e transferError) Unwrap() error { return e.error }

// part unpacks one part, again if getting it failed in a way that time may heal: files are written from their
// beginning, and the pages of increments to the same places.
func (u *unpacker) part(ctx context.Context, p archive.Part) error {
	wait := firstPartTry
	for try := 1; ; try++ {
		files, bytes, err := u.partOnce(ctx, p)
		if err == nil {
			u.laid(files)
			return nil
		}
		var transfer transferError
		if try == partTries || !errors.As(err, &transfer) || final(err) || errors.Is(err, fs.ErrPermission) || ctx.Err() != nil {
			return err
		}
		u.meter.add(-bytes, 0)
		u.log.Warn("reading a part of the snapshot failed, trying again", "part", p.Name, "try", try, "error", err)
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-time.After(wait/2 + rand.N(wait/2)):
		}
		wait = min(wait*2, maxPartWait)
	}
}

func (u *unpacker) laid(files int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.count += files
	u.meter.add(0, files)
}

// partOnce unpacks one part and compares it with its manifest. The stream is read to its end: only there its checksum
// is known.
func (u *unpacker) partOnce(ctx context.Context, p archive.Part) (files int, bytes int64, err error) {
	body, err := u.src.OpenPart(ctx, u.link.Name, p)
	if err != nil {
		return 0, 0, transferError{err}
	}
	defer func() { err = errors.Join(err, body.Close()) }()
	raw := &countingReader{r: body, ctx: ctx, meter: u.meter}
	files, err = u.tar(raw, p)
	if err == nil {
		_, err = io.Copy(onlyZeros{}, raw)
	}
	switch {
	case raw.err != nil:
		return files, raw.n, transferError{raw.err}
	case errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, tar.ErrHeader):
		return files, raw.n, fmt.Errorf("%w: %w", archive.ErrCorrupt, err)
	case err != nil:
		return files, raw.n, err
	}
	if u.link.Manifest && (raw.n != p.RawSize || files != p.Files) {
		return files, raw.n, fmt.Errorf("%w: it holds %d bytes and %d files, the manifest says %d and %d", archive.ErrCorrupt,
			raw.n, files, p.RawSize, p.Files)
	}
	return files, raw.n, nil
}

// onlyZeros takes what may follow the end mark of a tar: another tar behind it would not be unpacked.
type onlyZeros struct{}

func (onlyZeros) Write(p []byte) (int, error) {
	for _, b := range p {
		if b != 0 {
			return 0, fmt.Errorf("%w: something follows the end mark of the tar", archive.ErrCorrupt)
		}
	}
	return len(p), nil
}

// tar reads the members. A tar ends with a block of zeros: one that was cut between two members does not, and would
// otherwise be missing files silently.
func (u *unpacker) tar(raw *countingReader, p archive.Part) (files int, err error) {
	const block = 512
	r := tar.NewReader(raw)
	for {
		next := (raw.n + block - 1) / block * block
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			if raw.n < next+block {
				return files, fmt.Errorf("%w: the tar ends without its end mark", archive.ErrCorrupt)
			}
			return files, nil
		}
		if err != nil {
			return files, err
		}
		file, err := u.member(h, r, p)
		if err != nil {
			return files, fmt.Errorf("%s: %w", h.Name, err)
		}
		if file {
			files++
		}
		// What was left out is read too, so that raw.n is where the next header is expected.
		if _, err := io.Copy(io.Discard, r); err != nil {
			return files, fmt.Errorf("%s: %w", h.Name, err)
		}
	}
}

// member lays down one member and tells whether it is a file.
func (u *unpacker) member(h *tar.Header, r io.Reader, p archive.Part) (file bool, err error) {
	name, err := cleanName(h.Name)
	if err != nil {
		return false, err
	}
	u.owner.learn(h.Uid, h.Gid)
	u.saw(name)
	switch h.Typeflag {
	case tar.TypeDir:
		return false, u.dir(name, h)
	case tar.TypeReg, tar.TypeGNUSparse:
		return true, u.file(name, h, r, p)
	case tar.TypeXGlobalHeader:
		return false, nil
	}
	if u.link.Manifest {
		return false, fmt.Errorf("%w: it is neither a file nor a directory", archive.ErrCorrupt)
	}
	if dir, _ := path.Split(name); dir != "pg_tblspc/" && name != "pg_wal" {
		u.warn("%s was a link or a special file when the snapshot was taken; what it led to is not in the snapshot", name)
	}
	return false, nil
}

func (u *unpacker) saw(name string) {
	if u.files == nil && u.want == nil {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.seen[name] = true
}

func (u *unpacker) dir(name string, h *tar.Header) error {
	if leftOut(name) || u.unwanted(name) {
		return nil
	}
	if err := u.placed(name); err != nil {
		return err
	}
	root, rel := u.places.find(name)
	if err := u.places.mkdir(root, rel, modeOf(h)); err != nil {
		return err
	}
	if name == "." && modeOf(h)&0o050 == 0o050 {
		u.mu.Lock()
		defer u.mu.Unlock()
		u.group = true
	}
	if rel == "." {
		return nil // settled at the end
	}
	return root.Chmod(rel, modeOf(h)) // a file of another part may have come first
}

// placed refuses members of a tablespace of which nobody has said where it is.
func (u *unpacker) placed(name string) error {
	rest, ok := strings.CutPrefix(name, "pg_tblspc/")
	if !ok || u.complete {
		return nil
	}
	oid, _, _ := strings.Cut(rest, "/")
	if u.tablespaces["pg_tblspc/"+oid] {
		return nil
	}
	return fmt.Errorf("the snapshot does not say where tablespace %s was: map %s to a directory", oid, oid)
}

func (u *unpacker) unwanted(name string) bool {
	return u.want != nil && name != "." && !u.want.has(name)
}

func (u *unpacker) file(name string, h *tar.Header, r io.Reader, p archive.Part) error {
	if isHeld(name) {
		return u.hold(name, h, r, p)
	}
	if leftOut(name) || u.unwanted(name) {
		return nil
	}
	if err := u.placed(name); err != nil {
		return err
	}
	increment := u.files.increment(name)
	f, err := u.places.create(name, increment)
	if errors.Is(err, fs.ErrNotExist) && increment {
		return fmt.Errorf("%w: it holds changes of a file that the snapshots before do not have", archive.ErrCorrupt)
	}
	if err != nil {
		return err
	}
	return errors.Join(u.fill(f, h, r, increment), f.Close())
}

// fill writes the content of a file. The file is not synced: the kernel is told to begin writing it back, and one
// syncfs at the end waits for all files, see syncAll.
func (u *unpacker) fill(f *os.File, h *tar.Header, r io.Reader, increment bool) error {
	buf := u.buffers.Get().(*[]byte)
	defer u.buffers.Put(buf)
	if increment {
		if err := applyIncrement(f, r, h.Size, *buf); err != nil {
			return err
		}
		// The wrapper hides ReadFrom, which would use a small buffer of its own.
	} else if _, err := io.CopyBuffer(struct{ io.Writer }{f}, r, *buf); err != nil {
		return err
	}
	if err := f.Chmod(modeOf(h)); err != nil {
		return err
	}
	if err := u.owner.giveFile(f); err != nil {
		return err
	}
	if h.Size >= earlyWriteback {
		startWriteback(f)
	}
	return nil
}

// earlyWriteback is the size from which the kernel is told to begin writing a file back at once. For small files that
// costs more than it brings: one request to the disk each, where many would go together.
const earlyWriteback = 4 << 20

// hold keeps a file in memory until the end.
func (u *unpacker) hold(name string, h *tar.Header, r io.Reader, p archive.Part) error {
	if !u.last {
		return nil
	}
	if h.Size > maxHeld {
		return fmt.Errorf("%w: it has %d bytes", archive.ErrCorrupt, h.Size)
	}
	content, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	sure := labelPart.MatchString(p.Name) && name != controlFile || controlPart.MatchString(p.Name) && name == controlFile
	u.mu.Lock()
	defer u.mu.Unlock()
	if _, there := u.held[name]; there && u.sure[name] && !sure {
		return nil
	}
	u.held[name], u.sure[name] = content, sure
	return nil
}
