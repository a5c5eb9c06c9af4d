package wal_test

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"outrider.dev/e2e/pgtest"
	"outrider.dev/sidecar/internal/wal"
)

// stopClean stops the server and checks that the end of the shutdown checkpoint is the end of all valid WAL.
func stopClean(t *testing.T, c cluster, from wal.LSN) (checkpoint, end wal.LSN) {
	t.Helper()
	c.Stop(pgtest.Fast)
	ctl := c.control()
	src := c.source(ctl.CheckPointTimeline, nil)
	end, err := wal.ShutdownCheckpoint(ctl, src)
	if err != nil {
		t.Fatal(err)
	}
	walked, last, err := wal.EndOfValid(src, from, c.options())
	if err != nil {
		t.Fatal(err)
	}
	if walked != end || last.Start != ctl.CheckPoint || !last.IsShutdownCheckpoint() {
		t.Errorf("the walk ends at %s after %+v, the shutdown checkpoint is at %s to %s", walked, last, ctl.CheckPoint, end)
	}
	return ctl.CheckPoint, end
}

// testCleanStops has the shutdown checkpoint inside of a page, across a page border and across a segment border.
func testCleanStops(t *testing.T, c cluster) {
	from := c.control().Redo
	if _, err := wal.ShutdownCheckpoint(c.control(), c.source(1, nil)); !errors.Is(err, wal.ErrNotClean) {
		t.Errorf("a running server counts as stopped: %v", err)
	}
	const length = 120 // 114 and padding
	for _, tt := range []struct {
		name   string
		border wal.LSN
		header wal.LSN
	}{{"page", wal.PageSize, 24}, {"segment", 1 << 20, 40}} {
		crossed := false
		for try := 0; !crossed && try < 10; try++ {
			fillTo(t, c, tt.border, 56)
			start, end := stopClean(t, c, from)
			crossed = start/tt.border != end/tt.border
			if want := start + length; !crossed && start/wal.PageSize == end/wal.PageSize && end != want {
				t.Errorf("the checkpoint at %s ends at %s, want %s", start, end, want)
			}
			if want := start + length + tt.header; crossed && end != want {
				t.Errorf("the checkpoint at %s across a %s border ends at %s, want %s", start, tt.name, end, want)
			}
			c.Start()
		}
		if !crossed {
			t.Errorf("no shutdown checkpoint crossed a %s border", tt.name)
		}
	}
}

// fillTo writes until a number of bytes before the next border.
func fillTo(t *testing.T, c cluster, border, before wal.LSN) {
	t.Helper()
	const overhead = 24 + 2 + 24 + 2 // of a short logical message with prefix "f"
	for range 100 {
		at := c.lsn("pg_current_wal_insert_lsn()")
		pageLeft := int64(wal.PageSize - at%wal.PageSize)
		left := int64(border-at%border) - int64(before)
		switch {
		case left == 0:
			return
		case left < 0 || left < overhead+8: // over the border
			left = pageLeft + 100
		case left > pageLeft: // to just over the next page's header
			left = min(left-2*wal.PageSize, 500000)
			if left < pageLeft {
				left = pageLeft + 16
			}
		case left > 250: // a short message has one byte of length
			left = min(200, left-100)
		}
		c.Exec("SELECT pg_logical_emit_message(false, 'f', repeat('x', " +
			pgtest.Query[string](c.Server, "SELECT ($1::int)::text", int(max(left-overhead, 0))) + "))")
	}
	t.Fatal("the insert position could not be moved")
}

func testKilled(t *testing.T, c cluster) {
	c.Exec("CREATE TABLE IF NOT EXISTS load (v text)", "CHECKPOINT")
	from := c.control().Redo
	flush := make(chan wal.LSN)
	go readFlush(t.Context(), c, flush)
	done := make(chan struct{})
	for range 2 {
		go func() {
			defer func() { done <- struct{}{} }()
			conn, err := c.Connect(t.Context())
			for err == nil {
				_, err = conn.Exec(t.Context(), "INSERT INTO load SELECT repeat(md5(random()::text), 1 + (random() * 99)::int)")
			}
		}()
	}
	var durable wal.LSN
	deadline := time.After(time.Minute)
	for durable < from+1<<20 {
		select {
		case durable = <-flush:
		case <-deadline:
			t.Fatalf("no load: flushed from %s to %s", from, durable)
		}
	}
	c.Kill()
	for l := range flush {
		durable = l
	}
	<-done
	<-done

	src := c.source(1, nil)
	end, last, err := wal.EndOfValid(src, from, c.options())
	if err != nil {
		t.Fatal(err)
	}
	// The flush position may be inside of a record, at a page border; then that record is the first not to be there.
	if end < durable {
		length := make([]byte, 4)
		if _, err := src.ReadWAL(length, end); err != nil {
			t.Fatal(err)
		}
		if next := end + wal.LSN(binary.LittleEndian.Uint32(length)); next <= durable || durable%wal.PageSize != 0 {
			t.Errorf("valid WAL ends at %s (after %+v), %s was flushed", end, last, durable)
		}
	}
	if _, err := wal.ShutdownCheckpoint(c.control(), src); !errors.Is(err, wal.ErrNotClean) {
		t.Errorf("a killed server counts as stopped: %v", err)
	}
	c.Start()
	// The server agrees about the end: it goes on from there.
	if r, err := wal.NewWalker(src, end, c.options()).Next(); err != nil || r.Prev != last.Start {
		t.Errorf("the server does not go on from %s: %+v, %v", end, r, err)
	}
}

// testOverwritten takes the end of a record away, so that the server gives the record up and says so in the WAL.
func testOverwritten(t *testing.T, c cluster) {
	c.Exec("CHECKPOINT")
	from := c.control().Redo
	fillTo(t, c, 1<<20, 56)
	lost := c.lsn("pg_current_wal_insert_lsn()")
	c.Exec("SELECT pg_logical_emit_message(false, 'lost', repeat('x', 100000))", "CREATE TABLE flushed ()")
	c.Stop(pgtest.Immediate)
	next := mb.SegmentAt(1, lost).Next()
	if err := os.Remove(filepath.Join(c.DataDir, "pg_wal", next.Name(mb))); err != nil {
		t.Fatal(err)
	}
	src := c.source(1, nil)
	if end, _, err := wal.EndOfValid(src, from, c.options()); err != nil || end != lost {
		t.Fatalf("valid WAL ends at %s (%v), want %s", end, err, lost)
	}
	c.Start()
	c.Exec("CREATE TABLE after ()")
	flush := c.lsn("pg_current_wal_flush_lsn()")
	overwrites := 0
	for r, err := range wal.NewWalker(src, from, c.options()).Records(flush) {
		if err != nil {
			t.Fatal(err)
		}
		if r.Start == lost {
			t.Errorf("the lost record is there: %+v", r)
		}
		if r.Manager == wal.ManagerXLOG && r.Info == 0xD0 {
			overwrites++
			if mb.Floor(r.Start) != next.Start(mb) {
				t.Errorf("the overwrite is at %s", r.Start)
			}
		}
	}
	if overwrites != 1 {
		t.Errorf("%d records overwrite", overwrites)
	}
	stopClean(t, c, from)
	c.Start()
}

// testPromoted walks from one timeline into the next.
func testPromoted(t *testing.T, c cluster) {
	c.Exec("CHECKPOINT")
	from := c.control().Redo
	c.Exec("CREATE TABLE IF NOT EXISTS before ()", "CREATE TABLE IF NOT EXISTS before2 AS SELECT generate_series(1, 3000) g")
	c.Stop(pgtest.Fast)
	if err := os.WriteFile(filepath.Join(c.DataDir, "recovery.signal"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	c.Start()
	c.Exec("INSERT INTO before2 SELECT generate_series(1, 30000)", "CHECKPOINT")
	b, err := os.ReadFile(filepath.Join(c.DataDir, "pg_wal", wal.HistoryName(2)))
	if err != nil {
		t.Fatal(err)
	}
	history, err := wal.ParseHistory(2, string(b))
	if err != nil {
		t.Fatal(err)
	}
	if history.Format() != string(b) {
		t.Errorf("the history is written as %q, the server wrote %q", history.Format(), b)
	}
	c.Stop(pgtest.Fast)
	ctl := c.control()
	if ctl.CheckPointTimeline != 2 {
		t.Fatalf("timeline %d after a promotion", ctl.CheckPointTimeline)
	}
	src := c.source(2, history)
	end, err := wal.ShutdownCheckpoint(ctl, src)
	if err != nil {
		t.Fatal(err)
	}
	walked, last, err := wal.EndOfValid(src, from, c.options())
	if err != nil || walked != end || last.Timeline != 2 {
		t.Errorf("the walk ends at %s (%v) after %+v, want %s", walked, err, last, end)
	}
	if history.Begin() <= from || history.Begin() >= end {
		t.Errorf("nothing was walked of both timelines: %s to %s, switch at %s", from, end, history.Begin())
	}
	// The old branch ends at the switch.
	opt := c.options()
	opt.MaxTimeline = 1
	if old, _, err := wal.EndOfValid(c.source(1, nil), from, opt); err != nil || old != history.Begin() {
		t.Errorf("the old timeline ends at %s (%v), want %s", old, err, history.Begin())
	}
}
