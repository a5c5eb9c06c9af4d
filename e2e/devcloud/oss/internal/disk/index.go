package disk

import (
	"slices"
	"sort"
	"strings"
)

// index is a set of objects in byte-wise order of their keys: a sorted list of sorted chunks, so that an insertion
// moves at most one chunk. It is not safe for concurrent use.
type index struct {
	chunks [][]*Object
	count  int
	bytes  int64
}

// chunkLimit bounds the cost of an insertion; a full chunk is split in two.
const chunkLimit = 512

// locate gives the chunk and the place in it where key is or would be.
func (x *index) locate(key string) (chunk, at int, found bool) {
	chunk = sort.Search(len(x.chunks), func(i int) bool { return x.chunks[i][0].Key > key }) - 1
	if chunk < 0 {
		return 0, 0, false
	}
	c := x.chunks[chunk]
	at = sort.Search(len(c), func(i int) bool { return c[i].Key >= key })
	return chunk, at, at < len(c) && c[at].Key == key
}

func (x *index) get(key string) *Object {
	if c, i, ok := x.locate(key); ok {
		return x.chunks[c][i]
	}
	return nil
}

// put adds o and returns the object it replaces, or nil.
func (x *index) put(o *Object) *Object {
	c, i, ok := x.locate(o.Key)
	x.bytes += o.Size
	if ok {
		old := x.chunks[c][i]
		x.chunks[c][i] = o
		x.bytes -= old.Size
		return old
	}
	x.count++
	if len(x.chunks) == 0 {
		x.chunks = [][]*Object{{o}}
		return nil
	}
	chunk := slices.Insert(x.chunks[c], i, o)
	x.chunks[c] = chunk
	if len(chunk) > chunkLimit {
		x.split(c)
	}
	return nil
}

func (x *index) split(c int) {
	chunk := x.chunks[c]
	half := len(chunk) / 2
	upper := append(make([]*Object, 0, chunkLimit), chunk[half:]...)
	clear(chunk[half:])
	x.chunks = append(x.chunks, nil)
	copy(x.chunks[c+2:], x.chunks[c+1:])
	x.chunks[c], x.chunks[c+1] = chunk[:half], upper
}

// remove takes key out and returns what was there, or nil.
func (x *index) remove(key string) *Object {
	c, i, ok := x.locate(key)
	if !ok {
		return nil
	}
	old := x.chunks[c][i]
	x.chunks[c] = append(x.chunks[c][:i], x.chunks[c][i+1:]...)
	if len(x.chunks[c]) == 0 {
		x.chunks = append(x.chunks[:c], x.chunks[c+1:]...)
	}
	x.count--
	x.bytes -= old.Size
	return old
}

// ascend calls visit for each object with a key not below from, in order. visit returns where to go on: "" for the
// next object, otherwise the lowest key that is still of interest, and false to stop.
func (x *index) ascend(from string, visit func(*Object) (skipTo string, more bool)) {
	c, i, _ := x.locate(from)
	for c < len(x.chunks) {
		if i >= len(x.chunks[c]) {
			c, i = c+1, 0
			continue
		}
		skip, more := visit(x.chunks[c][i])
		switch {
		case !more:
			return
		case skip != "":
			c, i, _ = x.locate(skip)
		default:
			i++
		}
	}
}

// afterPrefix gives the lowest string that is above every string with the prefix; ok is false if there is none.
func afterPrefix(prefix string) (next string, ok bool) {
	trimmed := prefix
	for strings.HasSuffix(trimmed, "\xff") { // not TrimRight: keys are bytes, not text
		trimmed = trimmed[:len(trimmed)-1]
	}
	if trimmed == "" {
		return "", false
	}
	last := len(trimmed) - 1
	return trimmed[:last] + string([]byte{trimmed[last] + 1}), true
}
