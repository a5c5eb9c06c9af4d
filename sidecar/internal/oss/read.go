package oss

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"hash/crc64"
	"io"
	"io/fs"
	"net/http"
	"regexp"
	"strconv"
	"time"

	sdk "github.com/aliyun/aliyun-oss-go-sdk/oss"

	"outrider.dev/sidecar/internal/archive"
)

// Open implements archive.Reader. A range that ends past the end of the object is cut, one that begins there is an
// error. A read that stalls or breaks is taken up again where it was, as long as the object is still the same.
func (b *Bucket) Open(ctx context.Context, key string, r archive.Range) (io.ReadCloser, archive.ObjectInfo, error) {
	if err := b.place.checkKey(key); err != nil {
		return nil, archive.ObjectInfo{}, err
	}
	if r.From < 0 || r.To < 0 || (r.To != 0 && r.To <= r.From) {
		return nil, archive.ObjectInfo{}, fmt.Errorf("reading %s: bytes %d to %d are not a range", b.place.object(key), r.From, r.To)
	}
	g, err := b.get(ctx, key, r, "")
	if err != nil {
		return nil, archive.ObjectInfo{}, err
	}
	s := &stream{b: b, ctx: ctx, key: key, etag: g.etag, at: g.from, to: g.to, part: g, mark: g.from}
	if g.from == 0 && g.to == g.info.Size && g.hasSum {
		s.sum, s.want = crc64.New(crcTable), g.info.CRC64
	}
	return s, g.info, nil
}

// got is the answer to a GET: its body holds the bytes [from, to) of the object.
type got struct {
	body     io.ReadCloser
	cancel   context.CancelCauseFunc
	idle     *time.Timer // ends the connection when a read brings nothing for too long
	from, to int64
	info     archive.ObjectInfo
	etag     string
	hasSum   bool
}

func (g *got) close() error {
	g.idle.Stop()
	err := g.body.Close()
	g.cancel(nil)
	return err
}

// get asks for r of the object, of the version etag unless that is empty.
func (b *Bucket) get(ctx context.Context, key string, r archive.Range, etag string) (*got, error) {
	g := &got{}
	answer, err := b.do(ctx, call{
		op: opGet, key: key, keep: true,
		run: func(opts []sdk.Option) error {
			opts = append(opts, sdk.AcceptEncoding("identity"), sdk.RangeBehavior("standard"))
			if etag != "" {
				opts = append(opts, sdk.IfMatch(etag))
			}
			if r != (archive.Range{}) {
				opts = append(opts, sdk.NormalizedRange(rangeText(r)))
			}
			resp, err := b.sdk.DoGetObject(&sdk.GetObjectRequest{ObjectKey: b.place.prefix + key}, opts)
			if err != nil {
				return err
			}
			if err := g.read(key, r, resp.Response); err != nil {
				return errors.Join(err, resp.Response.Body.Close())
			}
			return nil
		},
	})
	if err != nil {
		return nil, err
	}
	g.cancel = answer.cancel
	g.idle = time.AfterFunc(b.limits.Idle, func() { g.cancel(errNoAnswer) })
	g.idle.Stop() // it runs only while somebody reads
	g.info.SeenAt = answer.date()
	return g, nil
}

// rangeText is the value of a Range header, whose ends are inclusive.
func rangeText(r archive.Range) string {
	if r.To == 0 {
		return strconv.FormatInt(r.From, 10) + "-"
	}
	return fmt.Sprintf("%d-%d", r.From, r.To-1)
}

var contentRange = regexp.MustCompile(`^bytes (\d+)-(\d+)/(\d+)$`)

// read checks that the answer is the range that was asked for: by default OSS answers a range that it cannot serve with
// the whole object.
func (g *got) read(key string, r archive.Range, resp *sdk.Response) error {
	x := &exchange{header: resp.Headers, status: resp.StatusCode}
	if err := x.checkOrigin(); err != nil {
		return err
	}
	if e := x.header.Get("Content-Encoding"); e != "" && e != "identity" {
		return fmt.Errorf("%w: its content is encoded as %q", errNotOSS, e)
	}
	info, err := x.objectInfo(key)
	if err != nil {
		return err
	}
	*g = got{body: resp.Body, to: info.Size, info: info, etag: x.header.Get("ETag"), hasSum: x.header.Get(sdk.HTTPHeaderOssCRC64) != ""}
	if r == (archive.Range{}) {
		if x.status != http.StatusOK {
			return fmt.Errorf("%w: HTTP status %d for a whole object", errNotOSS, x.status)
		}
		return nil
	}
	m := contentRange.FindStringSubmatch(x.header.Get("Content-Range"))
	if x.status != http.StatusPartialContent || m == nil {
		return fmt.Errorf("%w: HTTP status %d and Content-Range %q for bytes %s", errNotOSS, x.status, x.header.Get("Content-Range"), rangeText(r))
	}
	first, _ := strconv.ParseInt(m[1], 10, 64)
	last, _ := strconv.ParseInt(m[2], 10, 64)
	size, _ := strconv.ParseInt(m[3], 10, 64)
	end := size
	if r.To != 0 {
		end = min(r.To, size)
	}
	if first != r.From || last+1 != end || info.Size != end-first {
		return fmt.Errorf("%w: Content-Range %q and %d bytes for bytes %s", errNotOSS, m[0], info.Size, rangeText(r))
	}
	g.from, g.to, g.info.Size = first, end, size
	return nil
}

const (
	// maxResumes is how often a read is taken up again without having moved by resumeProgress in between.
	maxResumes     = 5
	resumeProgress = 1 << 20
)

// stream reads an object through as many connections as it takes.
type stream struct {
	b        *Bucket
	ctx      context.Context //nolint:containedctx // an io.Reader has no other place for the context of its reads
	key      string
	etag     string
	at, to   int64
	part     *got
	sum      hash.Hash64 // nil unless the whole object is read
	want     uint64
	mark     int64 // where the last resumption began that counts
	resumes  int
	ended    error
	finished bool
}

// Read implements io.Reader. It is not safe for concurrent use.
func (s *stream) Read(p []byte) (int, error) {
	for s.ended == nil {
		if s.at == s.to {
			s.ended = s.verdict()
			break
		}
		if len(p) == 0 {
			return 0, nil
		}
		n, err := s.readPart(p[:min(int64(len(p)), s.to-s.at)])
		if n > 0 {
			if s.sum != nil {
				s.sum.Write(p[:n])
			}
			s.at += int64(n)
			return n, nil // err comes again if it was one
		}
		if err != nil {
			s.ended = s.resume(err)
		}
	}
	return 0, s.ended
}

func (s *stream) readPart(p []byte) (int, error) {
	s.part.idle.Reset(s.b.limits.Idle)
	defer s.part.idle.Stop()
	return s.part.body.Read(p)
}

func (s *stream) verdict() error {
	if s.sum != nil && s.sum.Sum64() != s.want {
		return fmt.Errorf("reading %s: the bytes received do not have the CRC64 that OSS has recorded (%d instead of %d): read it again",
			s.b.place.object(s.key), s.sum.Sum64(), s.want)
	}
	return io.EOF
}

// resume asks for the rest after cause has ended the connection, and returns why that cannot be, if it cannot.
func (s *stream) resume(cause error) error {
	name := s.b.place.object(s.key)
	if s.finished {
		return fmt.Errorf("reading %s: it was closed", name)
	}
	_ = s.part.close() // broken already
	s.finished = true
	if s.ctx.Err() != nil {
		return fmt.Errorf("reading %s: given up by the caller at byte %d of %d: %w", name, s.at, s.to, context.Cause(s.ctx))
	}
	if s.at-s.mark >= resumeProgress {
		s.mark, s.resumes = s.at, 0
	}
	if s.resumes++; s.resumes > maxResumes {
		return fmt.Errorf("reading %s: it broke off %d times at byte %d of %d: %s", name, s.resumes, s.at, s.to, cause.Error())
	}
	if s.etag == "" {
		return fmt.Errorf("reading %s: it broke off at byte %d of %d and has no ETag to go on by: %s", name, s.at, s.to, cause.Error())
	}
	s.b.log.DebugContext(s.ctx, "oss read broke off and is resumed", "key", s.key, "at", s.at, "error", cause)
	s.b.metrics.retries.WithLabelValues(string(opGet)).Inc()
	g, err := s.b.get(s.ctx, s.key, archive.Range{From: s.at, To: s.to}, s.etag)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		// Not as "not there": the caller has already been given a part of it.
		return fmt.Errorf("reading %s: it was deleted while it was being read, at byte %d of %d", name, s.at, s.to)
	case err != nil:
		return fmt.Errorf("resuming at byte %d of %d: %w", s.at, s.to, err)
	}
	s.part, s.finished = g, false
	return nil
}

// Close implements io.Closer.
func (s *stream) Close() error {
	if s.finished {
		return nil
	}
	s.finished = true
	if s.ended == nil {
		s.ended = fs.ErrClosed
	}
	_ = s.part.close() // what was not read does not matter any more
	return nil
}
