package ledger

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"outrider.dev/e2e/pgtest"
)

func newJournal(t *testing.T) string {
	t.Helper()
	return filepath.Join(t.TempDir(), "journal")
}

func open(t *testing.T, path string) *Ledger {
	t.Helper()
	l, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// writeRows makes a journal with that many acknowledged rows and returns it closed.
func writeRows(t *testing.T, path string, rows int) {
	t.Helper()
	l := open(t, path)
	if err := l.begin(); err != nil {
		t.Fatal(err)
	}
	for range rows {
		id, ticket, err := l.intend(0, 10, rowSync)
		if err == nil {
			err = l.journal.wait(ticket)
		}
		if err == nil {
			err = l.acknowledge(id, entryAck)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) *history {
	t.Helper()
	h, err := readHistoryFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestTornTailIsRecognisedWhereverTheLineWasCut(t *testing.T) {
	path := newJournal(t)
	writeRows(t, path, 3)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lastLine := strings.LastIndexByte(strings.TrimSuffix(string(whole), "\n"), '\n') + 1
	for cut := lastLine + 1; cut < len(whole); cut++ {
		if err := os.WriteFile(path, whole[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		h := read(t, path)
		if h.torn != int64(cut-lastLine) || !h.rows[3].ack.IsZero() || h.rows[2].ack.IsZero() {
			t.Fatalf("cut at byte %d of the last line: %d torn bytes, third acknowledgement %v",
				cut-lastLine, h.torn, h.rows[3].ack)
		}
	}
	// Continuing drops the tail and numbers on.
	l := open(t, path)
	if id, _, err := l.intend(0, 10, rowSync); err != nil || id != 4 {
		t.Fatalf("the row after a torn tail has number %d, %v", id, err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if h := read(t, path); h.torn != 0 || h.last != 4 {
		t.Fatalf("after continuing: %d torn bytes, last row %d", h.torn, h.last)
	}
}

func TestDamageBeforeTheEndIsRefused(t *testing.T) {
	path := newJournal(t)
	writeRows(t, path, 3)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := readHistoryFile(path); !errors.Is(err, ErrCorrupt) {
		t.Errorf("reading a damaged journal: %v, want ErrCorrupt", err)
	}
	if _, err := Open(path); !errors.Is(err, ErrCorrupt) {
		t.Errorf("opening a damaged journal: %v, want ErrCorrupt", err)
	}
	if after, _ := os.ReadFile(path); string(after) != string(b) {
		t.Error("a refused journal was changed")
	}
}

func TestAnotherKindOfFileIsRefusedAndNotTouched(t *testing.T) {
	path := newJournal(t)
	const text = "root:x:0:0:root:/root:/bin/bash\nnobody"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path); err == nil {
		t.Error("a file that is no journal was opened as one")
	}
	if b, _ := os.ReadFile(path); string(b) != text {
		t.Errorf("a file that is no journal now holds %q", b)
	}
}

func TestJournalHasOneWriter(t *testing.T) {
	path := newJournal(t)
	l := open(t, path)
	if _, err := Open(path); err == nil {
		t.Fatal("a journal was opened twice")
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if again := open(t, path); again.ID() != l.ID() {
		t.Errorf("identity %s became %s", l.ID(), again.ID())
	}
}

func TestConcurrentEntriesAreAllWrittenInOrder(t *testing.T) {
	path := newJournal(t)
	l := open(t, path)
	if err := l.begin(); err != nil {
		t.Fatal(err)
	}
	const writers, each = 8, 40
	var wg sync.WaitGroup
	for n := range writers {
		wg.Go(func() {
			for range each {
				id, ticket, err := l.intend(n, 1, rowSync)
				if err == nil {
					err = l.journal.wait(ticket)
				}
				if err == nil && !onDisk(t, path, id) {
					err = errors.New("waited for a line that is not in the file")
				}
				if err == nil {
					err = l.acknowledge(id, entryAck)
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	h := read(t, path)
	for id := int64(1); id <= writers*each; id++ {
		if r := h.rows[id]; r == nil || r.ack.IsZero() || r.ack.Monotonic < r.intent.Monotonic {
			t.Fatalf("row %d is %+v", id, r)
		}
	}
}

func onDisk(t *testing.T, path string, id int64) bool {
	h, err := readHistoryFile(path)
	if err != nil {
		t.Error(err)
		return false
	}
	return h.rows[id] != nil
}

func TestAFailedWriteEndsTheJournal(t *testing.T) {
	l := open(t, newJournal(t))
	if err := l.begin(); err != nil {
		t.Fatal(err)
	}
	if err := l.journal.f.Close(); err != nil { // the next write fails, as on a full disk
		t.Fatal(err)
	}
	id, ticket, err := l.intend(0, 1, rowSync)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.journal.wait(ticket); !errors.Is(err, errJournal) {
		t.Fatalf("waiting for row %d that could not be written: %v", id, err)
	}
	if _, _, err := l.intend(0, 1, rowSync); !errors.Is(err, errJournal) {
		t.Errorf("a row after a failed write was accepted: %v", err)
	}
}

func TestTheAnswerToACommitIsRead(t *testing.T) {
	s := pgtest.Start(t, pgtest.Options{})
	conn := s.Conn()
	for _, statement := range []string{"BEGIN", "SELECT 1/0"} {
		_, _ = conn.Exec(t.Context(), statement)
	}
	// The server answers ROLLBACK to this COMMIT, without an error.
	if err := execTagged(t.Context(), conn, "COMMIT", "COMMIT"); err == nil {
		t.Error("the end of a failed transaction was taken for a commit")
	}
}
