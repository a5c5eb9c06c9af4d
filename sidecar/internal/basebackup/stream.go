package basebackup

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"

	"outrider.dev/sidecar/internal/archive"
)

// chunkSize is how much of a file is read at a time: whole pages of any size.
const chunkSize = 256 << 10

// stream is one part as a tar, read from the files while it is read itself. It holds one file open and one chunk in
// memory. Names, directories and the end are as WAL-G writes them: a leading slash, no trailing one, two zero blocks.
type stream struct {
	part    part
	reading *reading
	wait    func(n int) error // before n bytes are read from a file; also where cancelling is noticed
	check   func(e entry, file io.ReaderAt, chunk []byte, offset int64) (bad int, err error)

	next    int // of the part's entries
	ready   []byte
	chunk   []byte
	file    *os.File
	entry   entry
	state   archive.FileState // of the file, before it was read
	inc     *increment        // nil if the file is stored whole
	size    int64             // that the header announced
	offset  int64
	checked int64 // up to here the pages of the file have been verified
	counted int64 // and up to here its bytes are in the progress
	pad     int64 // zero bytes to be written
	ended   bool
	members int // files, not directories
}

// reading is what all streams of an attempt share.
type reading struct {
	limiter  *rate.Limiter // nil without a limit
	verifier *verifier     // nil without checksums
	base     *base         // nil in a full snapshot
	register *register
	progress *progress
	metrics  *Metrics
}

// stream begins a part, whose reading ends with ctx.
func (r *reading) stream(ctx context.Context, p part) *stream {
	return &stream{
		part: p, reading: r, chunk: make([]byte, chunkSize),
		wait: func(n int) error {
			if r.limiter == nil || n == 0 {
				return ctx.Err()
			}
			return r.limiter.WaitN(ctx, n)
		},
		check: func(e entry, file io.ReaderAt, chunk []byte, offset int64) (int, error) {
			if r.verifier == nil || e.segment == noRelation {
				return 0, nil
			}
			return r.verifier.check(ctx, e, file, chunk, offset)
		},
	}
}

// Read implements io.Reader.
func (s *stream) Read(p []byte) (int, error) {
	for len(s.ready) == 0 {
		if err := s.advance(); err != nil {
			return 0, err
		}
	}
	n := copy(p, s.ready)
	s.ready = s.ready[n:]
	return n, nil
}

// advance makes the next bytes ready.
func (s *stream) advance() error {
	switch {
	case s.file != nil && s.inc != nil:
		return s.pages()
	case s.file != nil:
		return s.content()
	case s.pad > 0:
		n := min(s.pad, int64(len(s.chunk)))
		clear(s.chunk[:n])
		s.ready, s.pad = s.chunk[:n], s.pad-n
		return nil
	case s.next < len(s.part.entries):
		e := s.part.entries[s.next]
		s.next++
		if e.dir {
			return s.directory(e)
		}
		return s.begin(e)
	case !s.ended:
		s.ended = true
		s.pad = tarTrailer
		return nil
	}
	return io.EOF
}

func (s *stream) directory(e entry) error {
	if err := s.wait(0); err != nil {
		return err
	}
	info, err := e.tree.root.Stat(e.rel)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return readable(fmt.Errorf("looking at %s: %w", e.name(), err))
	}
	h := header(e.name(), info)
	h.Typeflag, h.Size = tar.TypeDir, 0
	s.reading.register.dir(h.Name, info.ModTime())
	s.ready, err = encode(h)
	return err
}

// begin opens a file and makes its header ready. A file that vanished has neither.
func (s *stream) begin(e entry) error {
	if err := s.wait(0); err != nil {
		return err
	}
	// Without O_NONBLOCK a FIFO that took the file's place would hold us up for ever.
	f, err := e.tree.root.OpenFile(e.rel, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		s.reading.progress.vanished(e.size)
		return nil
	}
	if err != nil {
		return readable(fmt.Errorf("opening %s: %w", e.name(), err))
	}
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		if err == nil {
			err = fmt.Errorf("it is not a file any more but %s", info.Mode())
		}
		return errors.Join(fmt.Errorf("looking at %s: %w", e.name(), err), f.Close())
	}
	_ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_SEQUENTIAL) // a hint
	if err := s.describe(e, f, info); err != nil {
		return errors.Join(err, f.Close())
	}
	s.file = f
	s.members++
	return nil
}

// describe decides how an open file is stored, and makes the beginning of its member ready.
func (s *stream) describe(e entry, f *os.File, info fs.FileInfo) error {
	s.entry, s.state, s.inc = e, stateOf(e.name(), info), nil
	s.size, s.offset, s.checked, s.counted = info.Size(), 0, 0, 0
	s.state.Born = bornAt(f)
	if s.reading.verifier == nil && isMainFork(e) {
		s.state.Visible = marks(s.size)
	}
	if b := s.reading.base; b != nil {
		if old, ok := b.patchable(e, s.state); ok {
			var err error
			if s.inc, err = s.compare(f, compareWith(old, b.since()), s.size); err != nil {
				return err
			}
		}
	}
	h := header(e.name(), info)
	h.Typeflag, h.Size = tar.TypeReg, s.size
	var body []byte
	if s.inc != nil {
		body = s.inc.head()
		h.Size = s.inc.length()
		s.size = h.Size
	}
	var err error
	s.ready, err = encode(h)
	s.ready = append(s.ready, body...)
	return err
}

// count notes that the file was read up to a byte for the first time.
func (s *stream) count(to int64) {
	if n := to - s.counted; n > 0 {
		s.reading.progress.read(int(n))
		s.counted = to
	}
}

// content makes the next chunk of the open file ready, or ends the file.
func (s *stream) content() error {
	n := int(min(s.size-s.offset, int64(len(s.chunk))))
	if n == 0 {
		return s.end(0)
	}
	if err := s.wait(n); err != nil {
		return err
	}
	got, err := io.ReadFull(s.file, s.chunk[:n])
	short := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
	if err != nil && !short {
		return fmt.Errorf("reading %s at byte %d: %w", s.entry.name(), s.offset, err)
	}
	if s.offset >= s.checked {
		if _, err := s.check(s.entry, s.file, s.chunk[:got], s.offset); err != nil {
			return fmt.Errorf("verifying %s: %w", s.entry.name(), err)
		}
	}
	s.look(s.chunk[:got], s.offset)
	s.ready = s.chunk[:got]
	s.offset += int64(got)
	s.count(s.offset)
	s.reading.metrics.read.Add(float64(got))
	if short {
		return s.end(s.size - s.offset)
	}
	return nil
}

// end closes the file. missing is how many of the announced bytes it no longer had.
func (s *stream) end(missing int64) error {
	s.pad = missing + padded(s.size) - s.size
	f := s.file
	s.file = nil
	s.reading.register.stored(s.state, s.inc)
	s.reading.progress.done()
	if err := f.Close(); err != nil {
		return fmt.Errorf("closing %s: %w", s.entry.name(), err)
	}
	return nil
}

// close ends the stream early.
func (s *stream) close() {
	if s.file != nil {
		_ = s.file.Close() // was only read from
		s.file = nil
	}
}

// header is what WAL-G and a restore want to know of a file. Names of users are those of another machine.
func header(name string, info fs.FileInfo) *tar.Header {
	h := &tar.Header{Name: "/" + name, Mode: int64(info.Mode().Perm()), ModTime: info.ModTime().Truncate(time.Second)}
	if name == "." {
		h.Name = "/"
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		h.Uid, h.Gid = int(st.Uid), int(st.Gid)
	}
	return h
}

// encode is the header's blocks: USTAR, or PAX for what does not fit into it.
func encode(h *tar.Header) ([]byte, error) {
	var b bytes.Buffer
	if err := tar.NewWriter(&b).WriteHeader(h); err != nil {
		return nil, fmt.Errorf("describing %s in a tar: %w", h.Name, err)
	}
	return b.Bytes(), nil
}
