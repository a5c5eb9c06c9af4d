package journal

import (
	"encoding/json"
	"errors"
	"log/slog"
	"math"
	"net"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"outrider.dev/sidecar/internal/wal"
)

type broken struct{ name string }

func (b *broken) String() string { return b.name }

type opaque struct{ F func() }

func TestAttributesBecomeADocument(t *testing.T) {
	list := []string{"a", "b"}
	var none *broken
	attrs := []any{
		"text", "x", "count", 3, "big", uint64(1) << 63, "low", -int64(1) << 62, "share", 0.5, "nan", math.NaN(), "yes", true, "nothing", nil,
		"lsn", wal.LSN(0x1_0000_0028), "at",
		wal.Position{Timeline: 2, LSN: 0x28},
		"state", wal.StateShutDown,
		"error", errors.New("no route"), "took", 1500 * time.Millisecond,
		"time", time.Date(2026, 4, 7, 19, 3, 0, 0, time.FixedZone("", 7200)),
		"list", list, "address", net.IPv4(127, 0, 0, 1), "nil_stringer", none, "func",
		opaque{},
		slog.Group("inner", "a", 1, "b", time.Second), "odd",
	}
	m := attributes(attrs)
	list[0] = "changed afterwards"
	b, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	for _, k := range []string{"nil_stringer", "func"} {
		if s, _ := got[k].(string); s == "" {
			t.Errorf("%s became %v", k, got[k])
		}
		delete(got, k)
	}
	want := map[string]any{
		"text": "x", "count": 3.0, "big": "9223372036854775808", "low": "-4611686018427387904", "share": 0.5, "nan": "NaN", "yes": true, "nothing": nil,
		"lsn": "1/28", "at": "2@0/28", "state": "shut down", "error": "no route", "took": "1.5s", "time": "2026-04-07T17:03:00Z",
		"list": []any{"a", "b"}, "address": "127.0.0.1", "inner": map[string]any{"a": 1.0, "b": "1s"}, "!BADKEY": "odd",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	again, err := json.Marshal(m)
	if err != nil || string(again) != string(b) {
		t.Error("the same attributes are encoded differently the second time")
	}
	if m := attributes(nil); m != nil {
		t.Errorf("no attributes became %v", m)
	}
}

func TestEventsAreSafeInKeys(t *testing.T) {
	for in, want := range map[string]string{
		"notice": "notice", "Snapshot taken": "snapshot_taken", "../../x": "______x", "": "unnamed",
		"0000000100000000000000AB": "0000000100000000000000ab", "é": "_",
	} {
		if got := clean(in); got != want {
			t.Errorf("event %q became %q, want %q", in, got, want)
		}
	}
	if n := len(clean(string(make([]byte, 1000)))); n != maxEvent {
		t.Errorf("a long event has %d bytes", n)
	}
}
