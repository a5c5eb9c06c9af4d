package disk

import (
	"crypto/md5"
	"errors"
	"fmt"
	"hash/crc64"
	"io"
	"os"
	"path/filepath"
	"sync"
)

var ecma = crc64.MakeTable(crc64.ECMA) // a constant in all but syntax

var buffers = sync.Pool{New: func() any { b := make([]byte, 256<<10); return &b }}

// Blob is a file of bytes that no object refers to yet. Whoever has one commits it as part of an object or calls
// Discard in any case: after a commit that does nothing.
type Blob struct {
	store *Store
	ID    uint64
	Size  int64
	CRC64 uint64
	MD5   [md5.Size]byte
}

// Extents describes the blob as the only content of an object.
func (b *Blob) Extents() []Extent {
	if b.Size == 0 {
		return nil
	}
	return []Extent{{Blob: b.ID, Size: b.Size}}
}

// Discard gives up the blob; its file goes away unless an object or reader uses it.
func (b *Blob) Discard() {
	b.store.mu.Lock()
	defer b.store.mu.Unlock()
	if b.ID != 0 {
		b.store.release([]Extent{{Blob: b.ID}})
	}
}

func (s *Store) blobPath(id uint64) string {
	return filepath.Join(s.dir, "data", fmt.Sprintf("%016x", id))
}

// retain and release count the users of blobs; the caller holds mu for writing, or is Open.
func (s *Store) retain(extents []Extent) {
	for _, e := range extents {
		s.refs[e.Blob]++
	}
}

func (s *Store) release(extents []Extent) {
	for _, e := range extents {
		s.refs[e.Blob]--
		if s.refs[e.Blob] > 0 {
			continue
		}
		delete(s.refs, e.Blob)
		if s.journal.file == nil {
			continue // replaying: sweep does it
		}
		if err := os.Remove(s.blobPath(e.Blob)); err != nil {
			s.opt.Log.Warn("data file not removed", "err", err) // the next Open does it
		}
	}
}

// WriteBlob stores what r yields until EOF and syncs it. An error of r comes back wrapped, and nothing remains.
func (s *Store) WriteBlob(r io.Reader) (*Blob, error) {
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	b := &Blob{store: s}
	n, err := io.ReadAtLeast(r, *buf, 1)
	if err == io.EOF {
		b.MD5 = md5.Sum(nil)
		return b, nil // nothing needs no file
	}
	if err != nil {
		return nil, fmt.Errorf("store body: %w", err)
	}
	b.ID = s.lastID.Add(1)
	s.mu.Lock()
	s.refs[b.ID]++
	s.mu.Unlock()
	if err := s.fill(b, (*buf)[:n], r, *buf); err != nil {
		b.Discard()
		return nil, err
	}
	return b, nil
}

// fill writes first and then what r yields; buf is used for copying and may contain first.
func (s *Store) fill(b *Blob, first []byte, r io.Reader, buf []byte) error {
	f, err := os.OpenFile(s.blobPath(b.ID), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("create data file: %w", err)
	}
	defer f.Close()
	sum, crc := md5.New(), crc64.New(ecma)
	to := io.MultiWriter(f, sum, crc)
	if _, err := to.Write(first); err != nil {
		return fmt.Errorf("store body: %w", err)
	}
	n, err := io.CopyBuffer(to, struct{ io.Reader }{r}, buf)
	if err != nil {
		return fmt.Errorf("store body: %w", err)
	}
	b.Size = int64(len(first)) + n
	b.CRC64 = crc.Sum64()
	sum.Sum(b.MD5[:0])
	if s.opt.NoSync {
		return nil
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("sync data file: %w", err)
	}
	return s.dirSync.upTo(s.dirSeq.Add(1), s.dirSeq.Load, func() error { return syncDir(filepath.Join(s.dir, "data")) })
}

// extend writes what add holds behind the first size bytes of the blob and syncs it.
func (s *Store) extend(id uint64, size int64, add *Blob) error {
	src, err := os.Open(s.blobPath(add.ID))
	if err != nil {
		return fmt.Errorf("append: %w", err)
	}
	defer src.Close()
	dst, err := os.OpenFile(s.blobPath(id), os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("append: %w", err)
	}
	defer dst.Close()
	// Bytes of an append that was never committed may be there: nobody reads them, and they are written over here.
	if _, err := dst.Seek(size, io.SeekStart); err != nil {
		return fmt.Errorf("append: %w", err)
	}
	if n, err := io.Copy(dst, src); err != nil || n != add.Size {
		return fmt.Errorf("append %d of %d bytes: %w", n, add.Size, errors.Join(err, io.ErrShortWrite))
	}
	if s.opt.NoSync {
		return nil
	}
	if err := dst.Sync(); err != nil {
		return fmt.Errorf("sync data file: %w", err)
	}
	return nil
}

// Handle is an object pinned for reading: its bytes stay even if the key is overwritten or deleted meanwhile.
type Handle struct {
	*Object
	store *Store
}

// Close unpins the object.
func (h *Handle) Close() {
	h.store.mu.Lock()
	defer h.store.mu.Unlock()
	h.store.release(h.Extents)
}

// Copy writes n bytes of the object from offset off to w.
func (h *Handle) Copy(w io.Writer, off, n int64) error {
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	for _, e := range h.Extents {
		if off >= e.Size {
			off -= e.Size
			continue
		}
		if n <= 0 {
			break
		}
		m := min(n, e.Size-off)
		if err := h.copyExtent(w, e, off, m, *buf); err != nil {
			return err
		}
		off, n = 0, n-m
	}
	return nil
}

func (h *Handle) copyExtent(w io.Writer, e Extent, off, n int64, buf []byte) error {
	f, err := os.Open(h.store.blobPath(e.Blob))
	if err != nil {
		return fmt.Errorf("read object: %w", err)
	}
	defer f.Close()
	got, err := io.CopyBuffer(struct{ io.Writer }{w}, io.NewSectionReader(f, off, n), buf)
	if err == nil && got < n {
		err = fmt.Errorf("data file %x is %d bytes short: %w", e.Blob, n-got, io.ErrUnexpectedEOF)
	}
	return err
}
