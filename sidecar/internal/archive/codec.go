package archive

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"sync"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// Extension is the suffix of everything that we compress: one zstd frame with a checksum, which stock WAL-G reads.
const Extension = ".zst"

// codec pools what is expensive to make. Encoders run on the caller's goroutine: parallelism belongs to the caller,
// who knows the limits.
type codec struct {
	encoders sync.Pool
	decoders sync.Pool
}

func newCodec() *codec {
	return &codec{
		encoders: sync.Pool{New: func() any {
			// The options are constant and valid, so this cannot err.
			e, _ := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1),
				zstd.WithEncoderCRC(true), zstd.WithLowerEncoderMem(true))
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
	e := c.encoders.Get().(*zstd.Encoder)
	defer c.encoders.Put(e)
	return e.EncodeAll(raw, dst)
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

// decompressing chooses the decompressor by the extension of key, as WAL-G does. Closing it closes src. What src
// delivers but cannot be decompressed is ErrCorrupt; an error of src itself is passed on as it is.
func (c *codec) decompressing(key string, src io.ReadCloser) (io.ReadCloser, error) {
	watched := &watchedSource{Reader: src}
	switch ext := path.Ext(key); {
	case ext == ".zst":
		d := c.decoders.Get().(*zstd.Decoder)
		if err := d.Reset(watched); err != nil {
			return nil, fmt.Errorf("reading %s as zstd: %w", key, errors.Join(watched.blame(err), src.Close()))
		}
		return &decompressStream{Reader: d, src: watched, close: func() error {
			// An unread decoder keeps its goroutine; resetting with nil ends it.
			err := d.Reset(nil)
			c.decoders.Put(d)
			return errors.Join(err, src.Close())
		}}, nil
	case ext == ".lz4":
		return &decompressStream{Reader: lz4.NewReader(watched), src: watched, close: src.Close}, nil
	case ext == ".gz":
		g, err := gzip.NewReader(watched)
		if err != nil {
			return nil, fmt.Errorf("reading %s as gzip: %w", key, errors.Join(watched.blame(err), src.Close()))
		}
		return &decompressStream{Reader: g, src: watched, close: src.Close}, nil
	case ext == ".tar" || !strings.Contains(path.Base(key), "."):
		return src, nil
	default:
		return nil, fmt.Errorf("reading %s: files ending in %q are not understood; expected .zst, .lz4, .gz or nothing", key, ext)
	}
}

// watchedSource remembers whether it was the source that failed.
type watchedSource struct {
	io.Reader
	failed bool
}

func (w *watchedSource) Read(p []byte) (int, error) {
	n, err := w.Reader.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		w.failed = true
	}
	return n, err
}

// blame makes an error of the decompressor ErrCorrupt if the source was read without one.
func (w *watchedSource) blame(err error) error {
	if err == nil || w.failed {
		return err
	}
	return fmt.Errorf("%w: %w", ErrCorrupt, err)
}

type decompressStream struct {
	io.Reader
	src   *watchedSource
	close func() error
}

func (s *decompressStream) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	if err == nil || err == io.EOF { //nolint:errorlint // a wrapped EOF is a truncation, see below
		return n, err
	}
	// Not io.EOF or io.ErrUnexpectedEOF any more for those who look for the end of a stream.
	return n, s.src.blame(err)
}

func (s *decompressStream) Close() error { return s.close() }
