package oss

import (
	"crypto/md5"
	"encoding/base64"
	"io"
)

// connectionError is a body that ended because the connection did: there is nobody to answer to.
type connectionError struct{ err error }

func (e *connectionError) Error() string {
	return "connection lost in the request body: " + e.err.Error()
}
func (e *connectionError) Unwrap() error { return e.err }

// bodyReader reads the body of a request, counts, and tells errors of the client from those of the server.
type bodyReader struct {
	r io.Reader
	n int64
}

func (b *bodyReader) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	b.n += int64(n)
	if err != nil && err != io.EOF {
		err = &connectionError{err}
	}
	return n, err
}

// maxDrain bounds how much of an unwanted body is read. Without reading it, the client might meet a reset while
// it writes, and never see the answer.
const maxDrain = 256 << 20

func (b *bodyReader) drain() { _, _ = io.CopyN(io.Discard, b, maxDrain) }

// limited stops with an error once more than limit bytes have come.
type limited struct {
	r     io.Reader
	left  int64
	limit int64
}

func (l *limited) Read(p []byte) (int, error) {
	n, err := l.r.Read(p)
	l.left -= int64(n)
	if l.left < 0 {
		return n, fail(400, "EntityTooLarge", "Your proposed upload exceeds the maximum allowed object size of %d bytes.", l.limit)
	}
	return n, err
}

// checkDigest compares a body with its Content-MD5 header, if there is one.
func checkDigest(header string, data []byte) error {
	if header == "" {
		return nil
	}
	sum := md5.Sum(data)
	return checkSum(header, sum)
}

func checkSum(header string, sum [md5.Size]byte) error {
	if header == "" {
		return nil
	}
	want, err := base64.StdEncoding.DecodeString(header)
	if err != nil || len(want) != md5.Size {
		return fail(400, "InvalidDigest", "The Content-MD5 you specified is not valid: %q.", header)
	}
	if [md5.Size]byte(want) != sum {
		return fail(400, "InvalidDigest", "The Content-MD5 you specified did not match what we received.").
			with("ClientDigest", header).with("ServerDigest", base64.StdEncoding.EncodeToString(sum[:]))
	}
	return nil
}
