package archive

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
	"sync"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"

	"outrider.dev/sidecar/internal/wal"
)

// Extension is the suffix of everything that we compress: zstd frames with checksums, one or, for a segment that went up
// in chunks, several, which stock WAL-G reads.
const Extension = ".zst"

// window is how far back matches reach. The library's default is four times as much, and so is the memory for it; on WAL
// that saves 0.1 %.
const window = 1 << 20

// codec pools what is expensive to make. Encoders run on the caller's goroutine: parallelism belongs to the caller,
// who knows the limits.
type codec struct {
	encoders sync.Pool
	decoders sync.Pool
}

func newCodec() *codec {
	return &codec{
		encoders: sync.Pool{New: func() any {
			// Without "lower memory" the history holds two windows instead of one and a block, and is moved down once in a
			// window instead of with every block: that was a quarter of all CPU time. The options are constant and valid, so
			// this cannot err.
			e, _ := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1),
				zstd.WithEncoderCRC(true), zstd.WithWindowSize(window), zstd.WithLowerEncoderMem(false))
			return e
		}},
		decoders: sync.Pool{New: func() any {
			// WAL-G's zstd -19 --long=27 archives need a window of 128 MiB.
			d, _ := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(128<<20),
				zstd.WithDecoderLowmem(true))
			return d
		}},
	}
}

// compress makes one frame of raw, appended to dst.
func (c *codec) compress(dst, raw []byte) []byte {
	dst, _ = c.compressFrom(dst, bytes.NewReader(raw), int64(len(raw))) // neither side of it can fail
	return dst
}

// compressFrom makes one frame of the n bytes of src, appended to dst. It reads src in order and holds little of it.
// All that is compressed goes the streaming way: the other one has a history of its own in every encoder.
func (c *codec) compressFrom(dst []byte, src io.Reader, n int64) ([]byte, error) {
	e := c.encoders.Get().(*zstd.Encoder)
	defer c.encoders.Put(e)
	to := appending(dst)
	e.ResetContentSize(&to, n)
	_, err := e.ReadFrom(src)
	if cerr := e.Close(); err == nil {
		err = cerr
	}
	return to, err
}

// appending is a slice as a writer.
type appending []byte

// largeBuffer is the size from which on a buffer grows to that of a segment at once: small steps would leave several
// times as much garbage behind as is stored in the end.
const largeBuffer = 4 << 20

func (a *appending) Write(p []byte) (int, error) {
	if n := len(*a) + len(p); n > cap(*a) && n < wal.DefaultSegmentSize {
		if n = max(2*cap(*a), n); n > largeBuffer {
			n = wal.DefaultSegmentSize + largeBuffer/16
		}
		*a = append(make([]byte, 0, n), *a...)
	}
	*a = append(*a, p...)
	return len(p), nil
}

// compressing returns a stream that reads src and yields its compressed form. It must be read to the end or closed.
func (c *codec) compressing(src io.Reader) io.ReadCloser {
	pr, pw := io.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		e := c.encoders.Get().(*zstd.Encoder)
		defer c.encoders.Put(e)
		e.Reset(pw)
		_, err := e.ReadFrom(src)
		if cerr := e.Close(); err == nil {
			err = cerr
		}
		pw.CloseWithError(err)
	}()
	return &compressStream{PipeReader: pr, done: done}
}

type compressStream struct {
	*io.PipeReader
	done chan struct{}
}

// Close ends the compressor and waits for it.
func (s *compressStream) Close() error {
	err := s.PipeReader.CloseWithError(errors.New("the reader of a compressed stream went away"))
	<-s.done
	return err
}

func knownExtension(ext string) bool {
	switch ext {
	case "", ".zst", ".lz4", ".gz":
		return true
	}
	return false
}

// decompressing chooses the decompressor by the extension of key, as WAL-G does. Closing it closes src. Bytes that
// cannot be decoded are ErrCorrupt; an error of src is src's error.
func (c *codec) decompressing(key string, src io.ReadCloser) (io.ReadCloser, error) {
	s := &decompressStream{key: key, src: &source{ReadCloser: src}, done: func() {}}
	switch ext := path.Ext(key); {
	case ext == ".zst":
		d := c.decoders.Get().(*zstd.Decoder)
		s.Reader = d
		s.done = func() {
			// An unread decoder holds on to what it reads from; resetting with nil lets go.
			if d.Reset(nil) == nil {
				c.decoders.Put(d)
			}
		}
		if err := d.Reset(s.src); err != nil {
			return nil, errors.Join(s.judge(err), s.Close())
		}
	case ext == ".lz4":
		s.Reader = lz4.NewReader(s.src)
	case ext == ".gz":
		g, err := gzip.NewReader(s.src)
		if err != nil {
			return nil, errors.Join(s.judge(err), s.Close())
		}
		s.Reader = g
	case ext == ".tar" || !strings.Contains(path.Base(key), "."):
		return src, nil
	default:
		return nil, errors.Join(src.Close(), fmt.Errorf("reading %s: files ending in %q are not understood; expected .zst, .lz4, .gz or nothing", key, ext))
	}
	return s, nil
}

// source remembers how reading it ended, which decoders do not tell apart from bytes that make no sense.
type source struct {
	io.ReadCloser
	err error
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.ReadCloser.Read(p)
	if err != nil {
		s.err = err
	}
	return n, err
}

type decompressStream struct {
	io.Reader
	key    string
	src    *source
	done   func()
	closed bool
}

func (s *decompressStream) Read(p []byte) (int, error) {
	if s.closed {
		return 0, fmt.Errorf("reading %s: %w", s.key, fs.ErrClosed)
	}
	n, err := s.Reader.Read(p)
	if err == nil {
		return n, nil
	}
	if err == io.EOF {
		// The checksum of the object is compared at its end, which a decoder need not have reached.
		return n, s.drain()
	}
	return n, s.judge(err)
}

// drain reads what is left of the object and returns io.EOF, or why it could not be read.
func (s *decompressStream) drain() error {
	if s.src.err == nil {
		_, _ = io.Copy(io.Discard, s.src) // its error is remembered
	}
	if s.src.err == nil || s.src.err == io.EOF { //nolint:errorlint // as above
		return io.EOF
	}
	return fmt.Errorf("reading %s: %w", s.key, s.src.err)
}

// judge decides whether err is about the bytes or about getting them: a transfer that was damaged or broke off says
// nothing about the object.
func (s *decompressStream) judge(err error) error {
	if d := s.drain(); d != io.EOF { //nolint:errorlint // as above
		return d
	}
	return fmt.Errorf("reading %s: %w: %w", s.key, ErrCorrupt, err)
}

// Close may be called more than once; a decoder must go back only once, or two readers would share it.
func (s *decompressStream) Close() error {
	if s.closed {
		return nil
	}
	s.closed = true
	s.done()
	return s.src.Close()
}
