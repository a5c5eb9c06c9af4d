package disk

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"sync"
)

// record is one line of the journal. Exactly one of the groups is set; Remove names what goes away.
type record struct {
	Bucket       *Bucket `json:"bucket,omitempty"`
	RemoveBucket string  `json:"remove_bucket,omitempty"`

	In     string  `json:"in,omitempty"` // the bucket of what follows
	Put    *Object `json:"put,omitempty"`
	Delete []byte  `json:"delete,omitempty"` // key
	Upload *Upload `json:"upload,omitempty"`
	Part   *Part   `json:"part,omitempty"` // of the upload named by ID
	ID     string  `json:"id,omitempty"`   // with Put: the upload that became the object; alone: an aborted upload
}

// journal is an append-only file of records. A record is the unit of atomicity of the store: a line counts only if
// its checksum is right, so a torn write at the end is no record at all.
type journal struct {
	mu      sync.Mutex // guards file writes and the fields below
	file    *os.File
	written uint64
	broken  error // after a failed write or sync nothing is known about the file any more

	sync groupSync
}

// groupSync lets callers that wait at the same time share one fsync.
type groupSync struct {
	mu   sync.Mutex
	done uint64
}

// upTo returns once everything numbered seq is synced. latest tells the newest number that a sync started now covers.
func (g *groupSync) upTo(seq uint64, latest func() uint64, sync func() error) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.done >= seq {
		return nil
	}
	target := latest()
	if err := sync(); err != nil {
		return err
	}
	g.done = target
	return nil
}

func encode(r *record) ([]byte, error) {
	body, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("encode journal record: %w", err)
	}
	line := fmt.Appendf(make([]byte, 0, len(body)+10), "%08x ", crc32.ChecksumIEEE(body))
	return append(append(line, body...), '\n'), nil
}

func decode(line []byte) (*record, error) {
	if len(line) < 10 || line[8] != ' ' || line[len(line)-1] != '\n' {
		return nil, errors.New("malformed or cut line")
	}
	sum, err := strconv.ParseUint(string(line[:8]), 16, 32)
	if err != nil {
		return nil, err
	}
	body := line[9 : len(line)-1]
	if uint64(crc32.ChecksumIEEE(body)) != sum {
		return nil, errors.New("checksum does not match")
	}
	r := new(record)
	return r, json.Unmarshal(body, r)
}

// append writes the records and returns when they are durable, in the order of the calls.
func (j *journal) append(noSync bool, records ...*record) error {
	var buf bytes.Buffer
	for _, r := range records {
		line, err := encode(r)
		if err != nil {
			return err
		}
		buf.Write(line)
	}
	seq, err := j.write(buf.Bytes())
	if err != nil || noSync {
		return err
	}
	return j.sync.upTo(seq, func() uint64 {
		j.mu.Lock()
		defer j.mu.Unlock()
		return j.written
	}, func() error {
		if err := j.file.Sync(); err != nil {
			return j.fail(fmt.Errorf("sync journal: %w", err))
		}
		return nil
	})
}

func (j *journal) write(b []byte) (uint64, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.broken != nil {
		return 0, j.broken
	}
	if _, err := j.file.Write(b); err != nil {
		j.broken = fmt.Errorf("write journal: %w (restart to go on)", err)
		return 0, j.broken
	}
	j.written++
	return j.written, nil
}

func (j *journal) fail(err error) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.broken = err
	return err
}

// replay calls apply for each record of the file and returns the length of its valid part. Garbage is accepted only
// as the very last line, where a crash leaves it.
func replay(path string, apply func(*record) error) (valid int64, count int, err error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return 0, 0, nil
	}
	if err != nil {
		return 0, 0, fmt.Errorf("open journal: %w", err)
	}
	defer f.Close()
	in := bufio.NewReaderSize(f, 1<<20)
	for {
		line, readErr := in.ReadBytes('\n')
		if len(line) == 0 && readErr == io.EOF {
			return valid, count, nil
		}
		if readErr != nil && readErr != io.EOF {
			return 0, 0, fmt.Errorf("read journal: %w", readErr)
		}
		r, err := decode(line)
		if err != nil {
			if _, peekErr := in.Peek(1); peekErr == io.EOF {
				return valid, count, nil
			}
			return 0, 0, fmt.Errorf("journal %s is damaged at offset %d: %w", path, valid, err)
		}
		if err := apply(r); err != nil {
			return 0, 0, fmt.Errorf("journal %s, record at offset %d: %w", path, valid, err)
		}
		valid += int64(len(line))
		count++
	}
}

// rewrite replaces the journal by one that holds just the records.
func rewrite(path string, records []*record) error {
	tmp := path + ".new"
	f, err := os.Create(tmp)
	if err != nil {
		return fmt.Errorf("compact journal: %w", err)
	}
	defer f.Close()
	out := bufio.NewWriterSize(f, 1<<20)
	for _, r := range records {
		line, err := encode(r)
		if err != nil {
			return err
		}
		if _, err := out.Write(line); err != nil {
			return fmt.Errorf("compact journal: %w", err)
		}
	}
	if err := errors.Join(out.Flush(), f.Sync()); err != nil {
		return fmt.Errorf("compact journal: %w", err)
	}
	if err := os.Rename(tmp, path); err != nil {
		return fmt.Errorf("compact journal: %w", err)
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("sync directory %s: %w", dir, err)
	}
	return nil
}
