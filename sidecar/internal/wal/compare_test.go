package wal_test

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"outrider.dev/e2e/pgtest"
	"outrider.dev/sidecar/internal/wal"
)

// line is what is compared of a record.
type line struct {
	Start, End, Prev string
	Manager          string
	XID, Length      uint32
}

func walkAll(t *testing.T, c cluster, from, limit wal.LSN) []line {
	t.Helper()
	opt := c.options()
	opt.Limit = limit
	w := wal.NewWalker(c.source(1, nil), from, opt)
	var all []line
	for {
		r, err := w.Next()
		if end := (*wal.EndError)(nil); errors.As(err, &end) {
			if !errors.Is(err, io.EOF) || limit-end.At > wal.PageSize {
				t.Errorf("the walk to %s ended early: %v", limit, err)
			}
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, line{
			r.Start.String(), r.End.String(), r.Prev.String(), managerNames[r.Manager], r.XID, r.Length,
		})
	}
}

var managerNames = strings.Fields(`XLOG Transaction Storage CLOG Database Tablespace MultiXact RelMap Standby Heap2 Heap
	Btree Hash Gin Gist Sequence SPGist BRIN CommitTs ReplicationOrigin Generic LogicalMessage`)

// testRecords compares the walk with the server's own reading of the same WAL, and with pg_waldump's.
func testRecords(t *testing.T, c cluster, from wal.LSN) {
	limit := c.lsn("pg_current_wal_flush_lsn()")
	got := walkAll(t, c, from, limit)
	if len(got) < 2000 {
		t.Fatalf("only %d records", len(got))
	}
	compared := false
	if c.Major >= 15 && pgtest.Query[bool](c.Server,
		"SELECT EXISTS (SELECT FROM pg_available_extensions WHERE name = 'pg_walinspect')") {
		compared = true
		want := inspect(t, c, from, limit)
		compareLines(t, "pg_walinspect", want[:min(len(want), len(got))], got)
		if len(want) > len(got)+1 {
			t.Errorf("pg_walinspect finds %d records, the walk %d", len(want), len(got))
		}
	}
	if pgtest.HasTool(t, c.Major, "pg_waldump") {
		compared = true
		want := waldump(t, c, from, limit)
		compareLines(t, "pg_waldump", want[:min(len(want), len(got))], withoutEnd(got))
	}
	if c.Major > 14 && !compared {
		t.Error("there was nothing to compare with")
	}
}

// compareLines shows the first difference: a diff of thousands of records takes too long.
func compareLines(t *testing.T, name string, want, got []line) {
	t.Helper()
	if len(want) != len(got) {
		t.Errorf("%s finds %d records, the walk %d", name, len(want), len(got))
	}
	for i := range min(len(want), len(got)) {
		if want[i] != got[i] {
			t.Fatalf("record %d: %s (-) and the walk (+) differ:\n%s", i, name, cmp.Diff(want[i], got[i]))
		}
	}
}

func inspect(t *testing.T, c cluster, from, limit wal.LSN) []line {
	t.Helper()
	c.Exec("CREATE EXTENSION IF NOT EXISTS pg_walinspect")
	rows := pgtest.QueryAll[string](c.Server, `SELECT concat_ws(' ', start_lsn, end_lsn, prev_lsn, resource_manager, xid,
		record_length) FROM pg_get_wal_records_info($1::text::pg_lsn, $2::text::pg_lsn)`, from.String(), limit.String())
	all := make([]line, len(rows))
	for i, row := range rows {
		l := &all[i]
		if _, err := fmt.Sscan(row, &l.Start, &l.End, &l.Prev, &l.Manager, &l.XID, &l.Length); err != nil {
			t.Fatalf("%q: %v", row, err)
		}
	}
	return all
}

func withoutEnd(all []line) []line {
	all = slices.Clone(all)
	for i := range all {
		all[i].End = ""
	}
	return all
}

func waldump(t *testing.T, c cluster, from, limit wal.LSN) []line {
	t.Helper()
	out, err := c.Command("pg_waldump", "-p", filepath.Join(c.DataDir, "pg_wal"), "-s", from.String(), "-e",
		limit.String()).Output()
	if err != nil && len(out) == 0 {
		t.Fatal(err)
	}
	var all []line
	for text := range strings.Lines(string(out)) {
		var l line
		var rec uint32
		text, _, _ = strings.Cut(text, " desc:")
		text = strings.NewReplacer("/ ", "/", ",", " ").Replace(text)
		if _, err := fmt.Sscanf(strings.Join(strings.Fields(text), " "), "rmgr: %s len (rec/tot): %d/%d tx: %d lsn: %s prev %s",
			&l.Manager, &rec, &l.Length, &l.XID, &l.Start, &l.Prev); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		l.Start, l.Prev = parseLSN(t, l.Start).String(), parseLSN(t, l.Prev).String()
		all = append(all, l)
	}
	return all
}
