package oss

import (
	"bytes"
	"hash/crc64"
	"math/rand/v2"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestParseRange(t *testing.T) {
	whole := span{0, 10, false}
	for _, v := range []struct {
		header           string
		size             int64
		normal, standard span
		refused          bool // in standard mode
	}{
		{"", 10, whole, whole, false},
		{"bytes=0-0", 10, span{0, 1, true}, span{0, 1, true}, false},
		{"bytes=0-9", 10, span{0, 10, true}, span{0, 10, true}, false},
		{"bytes=3-5", 10, span{3, 3, true}, span{3, 3, true}, false},
		{"bytes=3-", 10, span{3, 7, true}, span{3, 7, true}, false},
		{"bytes=-4", 10, span{6, 4, true}, span{6, 4, true}, false},
		{"bytes=-10", 10, span{0, 10, true}, span{0, 10, true}, false},
		{"bytes=5-10", 10, whole, span{5, 5, true}, false},
		{"bytes=5-4000", 10, whole, span{5, 5, true}, false},
		{"bytes=-11", 10, whole, span{0, 10, true}, false},
		{"bytes=10-", 10, whole, whole, true},
		{"bytes=10-12", 10, whole, whole, true},
		{"bytes=-0", 10, whole, whole, true},
		{"bytes=5-3", 10, whole, whole, false},
		{"bytes=-", 10, whole, whole, false},
		{"bytes=a-b", 10, whole, whole, false},
		{"bytes=+1-2", 10, whole, whole, false},
		{"bytes=1-2,4-5", 10, whole, whole, false},
		{"lines=1-2", 10, whole, whole, false},
		{"bytes=99999999999999999999-", 10, whole, whole, false},
		{"bytes=0-", 0, span{0, 0, false}, span{0, 0, false}, true},
		{"bytes=-5", 0, span{0, 0, false}, span{0, 0, false}, true},
	} {
		if got, ok := parseRange(v.header, v.size, false); got != v.normal || !ok {
			t.Errorf("%q of %d by default: %+v %v, want %+v", v.header, v.size, got, ok, v.normal)
		}
		if got, ok := parseRange(v.header, v.size, true); got != v.standard || ok == v.refused {
			t.Errorf("%q of %d, standard: %+v %v, want %+v, refused %v", v.header, v.size, got, ok, v.standard, v.refused)
		}
	}
}

func FuzzParseRange(f *testing.F) {
	for _, s := range []string{"", "bytes=0-0", "bytes=-3", "bytes=7-", "bytes=-0", "bytes=9-1", "bytes=1-2,3-4", "x"} {
		f.Add(s, int64(8), true)
		f.Add(s, int64(0), false)
	}
	f.Fuzz(func(t *testing.T, header string, size int64, standard bool) {
		if size < 0 {
			return
		}
		s, ok := parseRange(header, size, standard)
		if !ok && !standard {
			t.Fatal("refused although nothing is refused by default")
		}
		if s.from < 0 || s.length < 0 || s.from+s.length > size {
			t.Fatalf("%+v is outside of %d bytes", s, size)
		}
		if !s.partial && s != (span{0, size, false}) {
			t.Fatalf("%+v is neither partial nor whole", s)
		}
		if s.partial && (!ok || s.length == 0) {
			t.Fatalf("%+v, %v", s, ok)
		}
	})
}

func FuzzQueryRoundTrip(f *testing.F) {
	f.Add("prefix", "wal/a b+c")
	f.Add("", "")
	f.Add("x\xff", "&=%")
	f.Fuzz(func(t *testing.T, name, value string) {
		q, err := parseQuery(percentEncode(name, "") + "=" + percentEncode(value, ""))
		if err != nil {
			t.Fatal(err)
		}
		if len(q) != 1 || q[0] != (parameter{name, value}) {
			t.Fatalf("%q %q came back as %q", name, value, q)
		}
		path := percentEncode(value, "/")
		if back, err := url.PathUnescape(path); err != nil || back != value || strings.ContainsAny(path, " +?#'()") {
			t.Fatalf("%q became %q, then %q, %v", value, path, back, err)
		}
	})
}

func TestQueryForms(t *testing.T) {
	for _, raw := range []string{"prefix", "prefix=", "&prefix&"} {
		q := mustQuery(t, raw)
		if v, ok := q.lookup("prefix"); !ok || v != "" || len(q) != 1 {
			t.Errorf("%q: %q", raw, q)
		}
	}
	if _, err := parseQuery("a=%zz"); err == nil {
		t.Error("a bad escape was accepted")
	}
}

func TestCombineCRC64(t *testing.T) {
	table := crc64.MakeTable(crc64.ECMA)
	if got := crc64.Checksum([]byte("123456789"), table); got != 11051210869376104954 {
		t.Fatalf("not the polynomial of OSS: %d", got)
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	for range 200 {
		data := make([]byte, random.IntN(100000))
		for i := range data {
			data[i] = byte(random.Uint32())
		}
		cut := random.IntN(len(data) + 1)
		a, b := crc64.Checksum(data[:cut], table), crc64.Checksum(data[cut:], table)
		if got, want := combineCRC64(a, b, int64(len(data)-cut)), crc64.Checksum(data, table); got != want {
			t.Fatalf("%d bytes cut at %d: %x, want %x", len(data), cut, got, want)
		}
	}
}

func TestBucketNames(t *testing.T) {
	for name, want := range map[string]bool{
		"abc": true, "a-c": true, "0a9": true, strings.Repeat("a", 63): true,
		"ab": false, "": false, "-ab": false, "ab-": false, "aBc": false, "a_c": false, "a.c": false, strings.Repeat("a", 64): false,
	} {
		if got := validBucketName(name); got != want {
			t.Errorf("%q: %v, want %v", name, got, want)
		}
	}
}

func TestParseTags(t *testing.T) {
	for _, text := range []string{"k=v+w", "k=v%20w"} {
		tags, err := parseTags(text)
		if err != nil || len(tags) != 1 || tags[0] != (parameter{"k", "v w"}) {
			t.Errorf("%q: %q, %v", text, tags, err)
		}
	}
	var eleven []string
	for i := range 11 {
		eleven = append(eleven, "k"+strconv.Itoa(i)+"=v")
	}
	for _, bad := range []string{"=v", "k=1&k=2", "k=%z", strings.Join(eleven, "&"), strings.Repeat("k", 129) + "=v", "k=" + strings.Repeat("v", 257)} {
		if _, err := parseTags(bad); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

func TestFaultJSON(t *testing.T) {
	f := Fault{Op: "put", Prefix: "wal/", Count: 2, Kind: Delay, Delay: 150 * time.Millisecond, Skew: -time.Hour}
	data, err := f.MarshalJSON()
	if err != nil || !bytes.Contains(data, []byte(`"delay":"150ms"`)) {
		t.Fatalf("%s %v", data, err)
	}
	var back Fault
	if err := back.UnmarshalJSON(data); err != nil || back.Delay != f.Delay || back.Skew != f.Skew || back.Prefix != f.Prefix {
		t.Fatalf("%+v %v", back, err)
	}
	if err := back.UnmarshalJSON([]byte(`{"kind":"hang","likelihood":1}`)); err == nil {
		t.Error("an unknown field was accepted")
	}
}
