package archive

import (
	"encoding/json"
	"io"
	"iter"
)

// lines is a document as a reader that makes it piece by piece: as a whole it may be larger than the rest of us.
type lines struct {
	produce iter.Seq[[]byte]
	next    func() ([]byte, bool)
	stop    func()
	ready   []byte
	err     error
}

// Read implements io.Reader.
func (l *lines) Read(p []byte) (int, error) {
	if l.next == nil {
		l.next, l.stop = iter.Pull(l.produce)
	}
	for len(l.ready) == 0 {
		var ok bool
		if l.ready, ok = l.next(); !ok {
			if l.err != nil {
				return 0, l.err
			}
			return 0, io.EOF
		}
	}
	n := copy(p, l.ready)
	l.ready = l.ready[n:]
	return n, nil
}

// encode yields v and a newline.
func (l *lines) encode(v any, yield func([]byte) bool) bool {
	b, err := json.Marshal(v)
	if err != nil {
		l.err = err
		return false
	}
	return yield(append(b, '\n'))
}

func (l *lines) close() {
	if l.stop != nil {
		l.stop()
	}
}
