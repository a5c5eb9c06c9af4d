package wal_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"outrider.dev/sidecar/internal/wal"
)

func TestParseHistory(t *testing.T) {
	const text = "1\t0/5000108\tno recovery target specified\n2\t0/7000000\tbefore 2024-02-29 12:00:00+00\n"
	want := wal.History{
		{Parent: 1, LSN: 0x5000108, Reason: "no recovery target specified"},
		{Parent: 2, LSN: 0x7000000, Reason: "before 2024-02-29 12:00:00+00"},
	}
	h, err := wal.ParseHistory(3, text)
	if diff := cmp.Diff(want, h); err != nil || diff != "" {
		t.Fatalf("%v\n%s", err, diff)
	}
	if h.Format() != text {
		t.Errorf("written as %q", h.Format())
	}
	for at, tli := range map[wal.LSN]wal.Timeline{0: 1, 0x5000107: 1, 0x5000108: 2, 0x6FFFFFF: 2, 0x7000000: 3, 1 << 40: 3} {
		if got := h.TimelineAt(3, at); got != tli {
			t.Errorf("%s was written by timeline %d, want %d", at, got, tli)
		}
	}
	if h.Begin() != 0x7000000 || wal.History(nil).Begin() != 0 {
		t.Errorf("begins at %s", h.Begin())
	}
	if h, err = wal.ParseHistory(3, "# made by hand\r\n\n  1\t0/10\n"); err != nil || len(h) != 1 || h[0].LSN != 16 {
		t.Errorf("comments and empty lines: %v, %v", h, err)
	}
}

func TestParseHistoryRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"nothing":                "",
		"only a comment":         "# nothing\n",
		"no position":            "1\n",
		"no timeline":            "\t0/10\tx\n",
		"timeline 0":             "0\t0/10\tx\n",
		"a negative timeline":    "-1\t0/10\tx\n",
		"a huge timeline":        "4294967296\t0/10\tx\n",
		"a bad position":         "1\t10\tx\n",
		"itself as parent":       "3\t0/10\tx\n",
		"a later parent":         "4\t0/10\tx\n",
		"a repeated parent":      "1\t0/10\tx\n1\t0/20\tx\n",
		"parents that decrease":  "2\t0/10\tx\n1\t0/20\tx\n",
		"positions that go back": "1\t0/20\tx\n2\t0/10\tx\n",
	} {
		h, err := wal.ParseHistory(3, text)
		if err == nil {
			t.Errorf("%s: accepted as %v", name, h)
		} else if !strings.Contains(err.Error(), "00000003.history") {
			t.Errorf("%s: the error does not name the file: %v", name, err)
		}
	}
}

func TestHistoryNames(t *testing.T) {
	if name := wal.HistoryName(26); name != "0000001A.history" {
		t.Errorf("timeline 26 has %s", name)
	}
	if tli, ok := wal.ParseHistoryName("0000001A.history"); !ok || tli != 26 {
		t.Errorf("timeline %d, %v", tli, ok)
	}
	for _, name := range []string{
		"", ".history", "0000001a.history", "00000000.history", "1A.history", "0000001A", "0000001A.history.zst", "00000001A.history",
	} {
		if tli, ok := wal.ParseHistoryName(name); ok {
			t.Errorf("%q is taken for timeline %d", name, tli)
		}
	}
}

func FuzzParseHistory(f *testing.F) {
	f.Fuzz(func(t *testing.T, tli uint32, text string) {
		h, err := wal.ParseHistory(wal.Timeline(tli), text)
		if err != nil {
			return
		}
		again, err := wal.ParseHistory(wal.Timeline(tli), h.Format())
		if diff := cmp.Diff(h, again); err != nil || diff != "" {
			t.Errorf("%q is not what was written (%v):\n%s", text, err, diff)
		}
		if again.Format() != h.Format() {
			t.Errorf("%q is written as %q and then as %q", text, h.Format(), again.Format())
		}
		if got := h.TimelineAt(wal.Timeline(tli), h.Begin()); got != wal.Timeline(tli) {
			t.Errorf("%q: timeline %d begins where %d is", text, tli, got)
		}
	})
}
