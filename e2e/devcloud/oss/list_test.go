package oss_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/aliyun/aliyun-oss-go-sdk/oss"
	"github.com/google/go-cmp/cmp"

	"outrider.dev/e2e/devcloud/devtest"
)

// listing is what all pages of one listing hold together.
type listing struct{ Keys, Prefixes []string }

// ask is what a listing asks for.
type ask struct {
	prefix, delimiter, after string
	size                     int
}

// model computes a listing the simple way: a key with the delimiter behind the prefix stands for its group, and what
// is not above after, or whose group is after, is left out.
func model(keys []string, q ask) listing {
	prefix, delimiter, after := q.prefix, q.delimiter, q.after
	var l listing
	for _, k := range slices.Sorted(slices.Values(keys)) {
		if !strings.HasPrefix(k, prefix) || k <= after {
			continue
		}
		head, _, grouped := strings.Cut(k[len(prefix):], delimiter)
		group := prefix + head + delimiter
		switch {
		case delimiter == "" || !grouped:
			l.Keys = append(l.Keys, k)
		case group != after && !slices.Contains(l.Prefixes, group):
			l.Prefixes = append(l.Prefixes, group)
		}
	}
	return l
}

// randomKey makes keys that share prefixes, hold delimiters in odd places and bytes at the ends of the range.
func randomKey(random *rand.Rand) string {
	parts := []string{"a", "b", "/", "/", "ab", "0", "+", " ", "é", "%2F", "\x7f", "zz", "&", "\U0010ffff"}
	var b strings.Builder
	b.WriteString(parts[random.IntN(2)])
	for range 1 + random.IntN(7) {
		b.WriteString(parts[random.IntN(len(parts))])
	}
	return b.String()
}

func TestListAgainstModel(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	cloud := devtest.Start(t)
	b := newV1(t, cloud)
	set := map[string]bool{}
	for len(set) < 3000 {
		k := randomKey(random)
		if !set[k] {
			set[k] = true
			must(t, cloud.OSS.WriteObject(cloud.Bucket, k, nil))
		}
	}
	var keys []string
	for k := range set {
		if random.IntN(10) == 0 {
			must(t, cloud.OSS.RemoveObjects(cloud.Bucket, k))
		} else {
			keys = append(keys, k)
		}
	}
	for range 20 {
		q := ask{size: []int{1, 7, 100, 1000}[random.IntN(4)]}
		if random.IntN(3) > 0 {
			k := keys[random.IntN(len(keys))]
			q.prefix = validPrefix(k, random.IntN(len(k)+1))
		}
		if random.IntN(3) > 0 {
			q.delimiter = []string{"/", "/", "b", "ab", "é"}[random.IntN(5)]
		}
		if random.IntN(2) > 0 {
			q.after = keys[random.IntN(len(keys))]
		}
		want := model(keys, q)
		q.size = max(q.size, (len(want.Keys)+len(want.Prefixes))/40) // more requests prove no more
		if diff := cmp.Diff(want, pagesV1(t, b, q)); diff != "" {
			t.Errorf("ListObjects, %+v: %s", q, diff)
		}
		if diff := cmp.Diff(want, pagesV2(t, b, q)); diff != "" {
			t.Errorf("ListObjectsV2, %+v: %s", q, diff)
		}
	}
}

// validPrefix cuts s at n or a little before, not within a character.
func validPrefix(s string, n int) string { return strings.ToValidUTF8(s[:n], "") }

func pagesV1(t *testing.T, b *v1.Bucket, q ask) listing {
	t.Helper()
	marker := q.after
	var l listing
	for {
		r, err := b.ListObjects(v1.Prefix(q.prefix), v1.Delimiter(q.delimiter), v1.Marker(marker), v1.MaxKeys(q.size))
		must(t, err)
		for _, o := range r.Objects {
			l.Keys = append(l.Keys, o.Key)
		}
		l.Prefixes = append(l.Prefixes, r.CommonPrefixes...)
		if n := len(r.Objects) + len(r.CommonPrefixes); n > q.size || r.IsTruncated && n != q.size {
			t.Fatalf("a page of %d with %d entries", q.size, n)
		}
		if !r.IsTruncated {
			return l
		}
		marker = r.NextMarker
	}
}

func pagesV2(t *testing.T, b *v1.Bucket, q ask) listing {
	t.Helper()
	var l listing
	options := []v1.Option{v1.Prefix(q.prefix), v1.Delimiter(q.delimiter), v1.StartAfter(q.after), v1.MaxKeys(q.size)}
	token := ""
	for {
		page := options
		if token != "" {
			page = append(slices.Clone(options), v1.ContinuationToken(token))
		}
		r, err := b.ListObjectsV2(page...)
		must(t, err)
		for _, o := range r.Objects {
			l.Keys = append(l.Keys, o.Key)
		}
		l.Prefixes = append(l.Prefixes, r.CommonPrefixes...)
		if !r.IsTruncated {
			return l
		}
		token = r.NextContinuationToken
	}
}

func TestListArguments(t *testing.T) {
	cloud := devtest.Start(t)
	b := newV1(t, cloud)
	for _, n := range []int{0, 1001, -1} {
		_, err := b.ListObjects(v1.MaxKeys(n))
		wantCode(t, err, "InvalidArgument")
	}
	_, err := b.ListObjectsV2(v1.ContinuationToken("not one of ours"))
	wantCode(t, err, "InvalidArgument")
	for i := range 150 {
		must(t, cloud.OSS.WriteObject(cloud.Bucket, fmt.Sprintf("k%03d", i), nil))
	}
	r, err := b.ListObjects()
	must(t, err)
	equal(t, "keys of a page by default", len(r.Objects), 100)
	equal(t, "type", r.Objects[0].Type, "Normal")
	equal(t, "owner", r.Objects[0].Owner.ID != "", true)
}

func TestListUploadsPaging(t *testing.T) {
	cloud := devtest.Start(t)
	b := newV1(t, cloud)
	var want []string
	for i := range 25 {
		key := fmt.Sprintf("a/%d/x", i/4)
		m, err := b.InitiateMultipartUpload(key)
		must(t, err)
		want = append(want, key+" "+m.UploadID)
	}
	slices.Sort(want)
	var got []string
	keyMarker, idMarker := "", ""
	for {
		r, err := b.ListMultipartUploads(v1.MaxUploads(3), v1.KeyMarker(keyMarker), v1.UploadIDMarker(idMarker))
		must(t, err)
		for _, u := range r.Uploads {
			got = append(got, u.Key+" "+u.UploadID)
		}
		if !r.IsTruncated {
			break
		}
		keyMarker, idMarker = r.NextKeyMarker, r.NextUploadIDMarker
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	r, err := b.ListMultipartUploads(v1.KeyMarker("a/4/x"))
	must(t, err)
	equal(t, "uploads behind a key", len(r.Uploads), 5)
	r, err = b.ListMultipartUploads(v1.Prefix("a/"), v1.Delimiter("/"))
	must(t, err)
	if len(r.CommonPrefixes) != 7 || len(r.Uploads) != 0 {
		t.Errorf("grouped: %+v", r)
	}
}
