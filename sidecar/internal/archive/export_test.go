package archive

import "outrider.dev/sidecar/internal/wal"

// The readers of keys, for tests from outside.
var (
	ChunkKey         = chunkKey
	ParseChunkKey    = parseChunkKey
	SplitSegmentKey  = splitSegmentKey
	SplitHistoryKey  = splitHistoryKey
	NumberedKey      = numberedKey
	ParseNumberedKey = parseNumberedKey
)

// SegmentKey is the key under which w seals s.
func (w *WAL) SegmentKey(s wal.Segment) string { return w.segmentKey(s) }
