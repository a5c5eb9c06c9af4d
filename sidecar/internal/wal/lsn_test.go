package wal_test

import (
	"encoding/json"
	"testing"

	"outrider.dev/sidecar/internal/wal"
)

func TestLSNText(t *testing.T) {
	for text, want := range map[string]wal.LSN{
		"0/0": 0, "16/B374D848": 0x16B374D848, "FFFFFFFF/FFFFFFFF": 1<<64 - 1, "0/1000000": 1 << 24, "1/0": 1 << 32,
	} {
		if got, err := wal.ParseLSN(text); err != nil || got != want || got.String() != text {
			t.Errorf("%q is %s (%v), want %d", text, got, err, want)
		}
	}
	if got, err := wal.ParseLSN("0016/b374d848"); err != nil || got != 0x16B374D848 {
		t.Errorf("leading zeros and lower case: %s, %v", got, err)
	}
	for _, text := range []string{
		"", "/", "0", "0/", "/0", "0/0/0", "1/123456789", "123456789/0", "-1/0", "+1/0", "0x1/0", "1/G", " 1/0", "1/0 ", "1_0/0",
	} {
		if got, err := wal.ParseLSN(text); err == nil {
			t.Errorf("%q is taken for %s", text, got)
		}
	}
}

func TestLSNInJSON(t *testing.T) {
	want := wal.Position{Timeline: 3, LSN: 0x16B374D848}
	b, err := json.Marshal(want)
	if err != nil || string(b) != `{"timeline":3,"lsn":"16/B374D848"}` {
		t.Fatalf("%s, %v", b, err)
	}
	var got wal.Position
	if err := json.Unmarshal(b, &got); err != nil || got != want || got.String() != "3@16/B374D848" {
		t.Errorf("%v, %v", got, err)
	}
	if err := json.Unmarshal([]byte(`{"lsn":"16"}`), &got); err == nil {
		t.Error("half an LSN is accepted")
	}
}

func FuzzParseLSN(f *testing.F) {
	f.Fuzz(func(t *testing.T, text string) {
		l, err := wal.ParseLSN(text)
		if err != nil {
			return
		}
		if again, err := wal.ParseLSN(l.String()); err != nil || again != l {
			t.Errorf("%q is %s, and that is %s (%v)", text, l, again, err)
		}
	})
}
