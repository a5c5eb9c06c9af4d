package archive

import (
	"crypto/sha256"
	"encoding/hex"
	"hash"

	"outrider.dev/sidecar/internal/wal"
)

// Draft is a segment while it goes up in chunks. It keeps what was compressed for them and goes on hashing, so that the
// segment can be sealed without being read and compressed once more: several zstd frames, one after the other, are as
// good as one to every reader. It is for one goroutine at a time.
type Draft struct {
	segment wal.Segment
	size    wal.SegmentSize
	at      wal.LSN // the end of what it has; 0 if it was given up
	hash    hash.Hash
	frames  []byte
	count   int
}

const (
	// maxFrames is how many chunks may make up a segment: smaller ones compress badly, and where they are small there is
	// time to compress the segment as a whole.
	maxFrames = 64
	// maxDraft bounds the memory of a draft whose content does not compress.
	maxDraft = 4 << 20
)

// NewDraft begins a segment.
func NewDraft(s wal.Segment, z wal.SegmentSize) *Draft {
	return &Draft{segment: s, size: z, at: s.Start(z), hash: sha256.New()}
}

// Complete tells whether the segment can be sealed from the draft.
func (d *Draft) Complete() bool { return d != nil && d.at != 0 && d.at == d.segment.End(d.size) }

// add takes a chunk that was stored. One that does not continue the draft, or makes it too large, ends it.
func (d *Draft) add(c Chunk, raw, frame []byte) {
	switch {
	case d == nil || d.at == 0:
	case c.Segment != d.segment || c.From != d.at || d.count == maxFrames || len(d.frames)+len(frame) > maxDraft:
		*d = Draft{}
	default:
		d.hash.Write(raw)
		d.frames = append(d.frames, frame...)
		d.at, d.count = c.To, d.count+1
	}
}

func (d *Draft) sum() string { return hex.EncodeToString(d.hash.Sum(nil)) }

// holds tells whether the draft is what is to be sealed.
func (d *Draft) holds(r SealRequest, z wal.SegmentSize) bool {
	return d.Complete() && d.segment == r.Segment && d.size == z && r.Valid == int64(z)
}
