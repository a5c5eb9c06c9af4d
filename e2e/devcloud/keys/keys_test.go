package keys

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestKeysSurviveReopening(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.json")
	s, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Put(Key{ID: "a", Secret: "s", Rules: []Rule{{Actions: []string{"oss:GetObject"}}}}); err != nil {
		t.Fatal(err)
	}
	if err := s.SetRole("r", Rule{Actions: []string{"oss:*"}, Prefixes: []string{"p/"}}); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	temporary, err := s.Issue("r", now, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if s, err = Open(path); err != nil {
		t.Fatal(err)
	}
	if k, ok := s.Lookup("a"); !ok || k.Allows(Request{Action: "oss:PutObject"}) || !k.Allows(Request{Action: "oss:GetObject"}) {
		t.Errorf("key %+v", k)
	}
	k, ok := s.Lookup(temporary.ID)
	if !ok || k.Token != temporary.Token || !k.Expires.Equal(temporary.Expires) || len(k.Rules) != 1 {
		t.Errorf("temporary key %+v, want %+v", k, temporary)
	}
	if _, err := s.Issue("r", now.Add(3*time.Hour), time.Hour); err != nil {
		t.Fatal(err)
	}
	if _, ok := s.Lookup(temporary.ID); ok || len(s.All()) != 2 {
		t.Errorf("a long expired key is still there: %v", s.All())
	}
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path); err == nil {
		t.Error("a damaged file was accepted")
	}
}

func TestAllows(t *testing.T) {
	writer := Key{Rules: []Rule{
		{Actions: []string{"oss:PutObject", "oss:List*"}, Prefixes: []string{"a/"}},
		{Actions: []string{"oss:GetBucketInfo"}, Buckets: []string{"b"}},
	}}
	for _, v := range []struct {
		q    Request
		want bool
	}{
		{Request{Action: "oss:PutObject", Key: "a/k"}, true},
		{Request{Action: "oss:PutObject", Key: "a"}, false},
		{Request{Action: "oss:PutObjectTagging", Key: "a/k"}, false},
		{Request{Action: "oss:ListParts", Key: "a/k"}, true},
		{Request{Action: "oss:DeleteObject", Key: "a/k"}, false},
		{Request{Action: "oss:ListMultipartUploads", OnBucket: true}, true},
		{Request{Action: "oss:GetBucketInfo", Bucket: "b", OnBucket: true}, true},
		{Request{Action: "oss:GetBucketInfo", Bucket: "c", OnBucket: true}, false},
	} {
		if got := writer.Allows(v.q); got != v.want {
			t.Errorf("%+v: %v", v.q, got)
		}
		if !(Key{}).Allows(v.q) {
			t.Errorf("%+v: refused without rules", v.q)
		}
	}
}

func TestPatternsStandForWholeKeys(t *testing.T) {
	for _, v := range []struct {
		pattern, key string
		want         bool
	}{
		{"a/*", "a/b/c", true},
		{"a/*", "a/", true},
		{"a/*", "a", false},
		{"a/*", "b/a/c", false},
		{"a/b", "a/b", true},
		{"a/b", "a/bc", false},
		{"a/*/tail/*", "a/shop/orders/tail/1", true},
		{"a/*/tail/*", "a/tail/1", false},
		{"a/*/tail/*", "a/shop/wal/1", false},
		{"a/*b", "a/b", true},
		{"ab*ba", "aba", false},
		{"*", "", true},
	} {
		k := Key{Rules: []Rule{{Patterns: []string{v.pattern}}}}
		if got := k.Allows(Request{Action: "oss:GetObject", Key: v.key}); got != v.want {
			t.Errorf("%s for %s: %v", v.pattern, v.key, got)
		}
	}
}
