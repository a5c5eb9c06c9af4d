package basebackup

import (
	"fmt"
	"slices"
)

const (
	tarBlock    = 512
	tarTrailer  = 2 * tarBlock
	minPartSize = 32 << 20
	maxPartSize = 256 << 20
	// maxDeltaPart is larger, because of what is read for a delta little is stored.
	maxDeltaPart = 4 << 30
	// partsWanted is into how many parts a snapshot is split before they become larger: a restore reads several at once.
	partsWanted = 8
)

// part is one tar of a snapshot, before anything of it is read.
type part struct {
	name    string
	entries []entry
	size    int64 // of the tar, by the sizes of the files when they were listed
}

// plan splits a snapshot into parts. A file is never split, so one part may be larger than partSize.
func plan(inv *inventory, partSize int64, delta bool) []part {
	if partSize <= 0 {
		most := int64(maxPartSize)
		if delta {
			most = maxDeltaPart
		}
		partSize = min(max(inv.bytes/partsWanted, minPartSize), most)
	}
	var parts []part
	current := part{size: tarTrailer}
	first := 0
	cut := func(end int) {
		if end == first {
			return
		}
		current.name = fmt.Sprintf("part_%03d", len(parts)+1)
		current.entries = inv.entries[first:end]
		parts = append(parts, current)
		current, first = part{size: tarTrailer}, end
	}
	for i, e := range inv.entries {
		size := int64(tarBlock) + padded(e.size)
		if current.size+size > partSize {
			cut(i)
		}
		current.size += size
	}
	cut(len(inv.entries))
	return parts
}

// largestFirst is the order in which parts are read, so that the workers end at about the same time.
func largestFirst(parts []part) []part {
	parts = slices.Clone(parts)
	slices.SortStableFunc(parts, func(x, y part) int {
		switch {
		case x.size > y.size:
			return -1
		case x.size < y.size:
			return 1
		}
		return 0
	})
	return parts
}

// padded is what a file's content occupies in a tar.
func padded(size int64) int64 { return (size + tarBlock - 1) / tarBlock * tarBlock }
