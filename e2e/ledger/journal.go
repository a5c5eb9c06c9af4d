package ledger

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
)

// errJournal is in every error of a journal that cannot be kept: a run ends with it, because it would be blind.
var errJournal = errors.New("the ledger cannot be kept")

// journal is the append-only file. Lines are collected in memory and written and synced together by whoever waits
// first, so that many connections share one fsync. After a failed write nothing is accepted any more: a journal that
// may have lost a line cannot judge.
type journal struct {
	f    *os.File
	path string

	mu      sync.Mutex
	done    *sync.Cond // signalled when a leader has finished
	buf     []byte     // lines not yet written
	added   int64      // lines ever added
	synced  int64      // lines known to be on disk
	writing bool       // a leader is at work
	err     error      // the first failure; final
}

// openJournal opens or creates the file at path, alone (flock), cuts a torn last line off, and returns what it says.
func openJournal(path string) (*journal, *history, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, nil, fmt.Errorf("opening the ledger's journal: %w", err)
	}
	j := &journal{f: f, path: path}
	j.done = sync.NewCond(&j.mu)
	h, err := j.prepare()
	if err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	return j, h, nil
}

// prepare locks the file, reads it, drops a torn tail and gives an empty file its first line.
func (j *journal) prepare() (*history, error) {
	if err := unix.Flock(int(j.f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, fmt.Errorf("locking %s (is another ledger writing to it?): %w", j.path, err)
	}
	h, err := readHistory(j.f, j.path)
	if err != nil {
		return nil, err
	}
	if h.torn > 0 {
		if err := j.f.Truncate(h.valid); err != nil {
			return nil, fmt.Errorf("cutting the torn tail off %s: %w", j.path, err)
		}
	}
	if _, err := j.f.Seek(h.valid, io.SeekStart); err != nil {
		return nil, fmt.Errorf("seeking to the end of %s: %w", j.path, err)
	}
	if h.ledger != "" {
		return h, nil
	}
	h.ledger, err = newLedgerID()
	if err != nil {
		return nil, err
	}
	if err := j.record(entry{Kind: entryLedger, Ledger: h.ledger, Format: journalFormat}); err != nil {
		return nil, err
	}
	return h, syncDir(filepath.Dir(j.path))
}

// add stamps e with both clocks and queues it; the ticket is for wait.
func (j *journal) add(e entry) (ticket int64, err error) {
	e, err = e.stamp()
	if err != nil {
		return 0, fmt.Errorf("%w: %w", errJournal, err)
	}
	return j.addStamped(e)
}

// addStamped queues e as it is.
func (j *journal) addStamped(e entry) (ticket int64, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.err != nil {
		return 0, j.err
	}
	if j.buf, err = appendLine(j.buf, e); err != nil {
		return 0, fmt.Errorf("%w: %w", errJournal, err)
	}
	j.added++
	return j.added, nil
}

// wait returns once the line of that ticket, and all before it, are on disk.
func (j *journal) wait(ticket int64) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	for j.err == nil && j.synced < ticket {
		if j.writing {
			j.done.Wait()
			continue
		}
		j.writing = true
		buf, upTo := j.buf, j.added
		j.buf = nil
		j.mu.Unlock()
		err := j.write(buf)
		j.mu.Lock()
		j.writing = false
		if err == nil {
			j.synced = upTo
		} else {
			j.err = fmt.Errorf("%w: %w", errJournal, err)
		}
		j.done.Broadcast()
	}
	return j.err
}

// record adds a line and waits for it.
func (j *journal) record(e entry) error {
	ticket, err := j.add(e)
	if err != nil {
		return err
	}
	return j.wait(ticket)
}

func (j *journal) write(buf []byte) error {
	if _, err := j.f.Write(buf); err != nil {
		return fmt.Errorf("writing to the ledger's journal: %w", err)
	}
	if err := j.f.Sync(); err != nil {
		return fmt.Errorf("syncing the ledger's journal %s: %w", j.path, err)
	}
	return nil
}

// close syncs what is left and gives the file and its lock back.
func (j *journal) close() error {
	j.mu.Lock()
	last := j.added
	j.mu.Unlock()
	return errors.Join(j.wait(last), j.f.Close())
}

// newLedgerID makes the 32 hexadecimal digits that tell this ledger's rows from another's.
func newLedgerID() (string, error) {
	var b [16]byte
	if _, err := rand.Read(b[:]); err != nil {
		return "", fmt.Errorf("drawing the ledger's identity: %w", err)
	}
	return hex.EncodeToString(b[:]), nil
}

// syncDir makes a new file's name durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("opening the journal's directory: %w", err)
	}
	return errors.Join(d.Sync(), d.Close())
}
