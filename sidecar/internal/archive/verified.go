package archive

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
)

// verifiedReader passes on exactly size bytes and checks what it saw before it says that this was the end.
type verifiedReader struct {
	io.ReadCloser
	key   string
	size  int64
	seen  int64
	info  SegmentInfo
	sum   hash.Hash
	ended error
}

func newVerifiedReader(raw io.ReadCloser, key string, size int64, info SegmentInfo) *verifiedReader {
	v := &verifiedReader{ReadCloser: raw, key: key, size: size, info: info}
	if info.Known {
		v.sum = sha256.New()
	}
	return v
}

func (v *verifiedReader) Read(p []byte) (int, error) {
	if v.ended != nil {
		return 0, v.ended
	}
	n, err := v.ReadCloser.Read(p)
	if left := v.info.Valid - v.seen; v.sum != nil && left > 0 {
		v.sum.Write(p[:min(int64(n), left)])
	}
	v.seen += int64(n)
	if v.seen > v.size {
		v.ended = fmt.Errorf("reading %s: %w: more than the %d bytes of a segment", v.key, ErrCorrupt, v.size)
		return 0, v.ended
	}
	if err == nil {
		return n, nil
	}
	if err == io.EOF { //nolint:errorlint // a wrapped one is not the end
		err = v.verdict()
	} else {
		err = fmt.Errorf("reading %s: %w", v.key, err)
	}
	v.ended = err
	return n, v.ended
}

func (v *verifiedReader) verdict() error {
	switch {
	case v.seen != v.size:
		return fmt.Errorf("reading %s: %w: it holds %d bytes instead of the %d of a segment", v.key, ErrCorrupt, v.seen, v.size)
	case v.sum != nil && hex.EncodeToString(v.sum.Sum(nil)) != v.info.SHA256:
		return fmt.Errorf("reading %s: %w: its WAL does not have the sha256 that was recorded", v.key, ErrCorrupt)
	}
	return io.EOF
}
