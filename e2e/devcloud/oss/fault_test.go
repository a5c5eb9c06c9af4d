package oss_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	v2 "github.com/aliyun/alibabacloud-oss-go-sdk-v2/oss"
	v1 "github.com/aliyun/aliyun-oss-go-sdk/oss"

	"outrider.dev/e2e/devcloud/devtest"
	"outrider.dev/e2e/devcloud/oss"
)

func exists(t *testing.T, cloud *devtest.Cloud, key string) bool {
	t.Helper()
	objects, err := cloud.OSS.Objects(cloud.Bucket, key)
	must(t, err)
	return len(objects) > 0 && objects[0].Key == key
}

func TestFaultStatus(t *testing.T) {
	cloud := devtest.Start(t)
	b := newV1(t, cloud)
	cloud.SetFaults(oss.Fault{Op: "put", Kind: oss.Status, Count: 1, Header: map[string]string{"x-oss-qos-delay-time": "100"}},
		oss.Fault{Op: "head", Kind: oss.Status, Status: 500, NoBody: true},
		oss.Fault{Op: "list", Kind: oss.Status, Status: 403, Code: "SecurityTokenExpired", Message: "too old"})
	var h http.Header
	err := b.PutObject("k", body("x"), v1.GetResponseHeader(&h))
	wantCode(t, err, "ServiceUnavailable")
	header(t, h, "x-oss-qos-delay-time", "100")
	if exists(t, cloud, "k") {
		t.Error("a put that was answered with 503 was applied")
	}
	must(t, b.PutObject("k", body("x")))
	_, err = b.GetObjectDetailedMeta("k")
	if got, status := code(err); got != "" || status != 500 {
		t.Errorf("answer without a document: %q %d %v", got, status, err)
	}
	_, err = b.ListObjects()
	wantCode(t, err, "SecurityTokenExpired")
	_, err = b.ListObjectsV2()
	wantCode(t, err, "SecurityTokenExpired")
	state := cloud.OSS.Faults()
	if state[0].Matched != 2 || state[0].Fired != 1 || state[2].Fired != 2 {
		t.Errorf("faults %+v", state)
	}
	cloud.SetFaults()
	_, err = b.ListObjects()
	must(t, err)
}

func TestFaultReset(t *testing.T) {
	cloud := devtest.Start(t)
	b := newV1(t, cloud)
	for kind, applied := range map[oss.Kind]bool{oss.ResetBefore: false, oss.ResetAfter: true} {
		key := string(kind)
		must(t, cloud.OSS.WriteObject(cloud.Bucket, "victim-"+key, []byte("x")))
		cloud.SetFaults(oss.Fault{Kind: kind})
		err := b.PutObject(key, strings.NewReader(strings.Repeat("x", 1<<20)))
		if c, _ := code(err); err == nil || c != "" {
			t.Errorf("%s: put gave %v, want an error of the connection", kind, err)
		}
		if err := b.DeleteObject("victim-" + key); err == nil {
			t.Errorf("%s: delete succeeded", kind)
		}
		_, err = b.AppendObject("tail-"+key, body("abc"), 0)
		if err == nil {
			t.Errorf("%s: append succeeded", kind)
		}
		equal(t, key+" put applied", exists(t, cloud, key), applied)
		equal(t, key+" delete applied", exists(t, cloud, "victim-"+key), !applied)
		equal(t, key+" append applied", exists(t, cloud, "tail-"+key), applied)
	}
}

func TestFaultHang(t *testing.T) {
	cloud := devtest.Start(t)
	b := newV1(t, cloud)
	cloud.SetFaults(oss.Fault{Op: "GetObject", Kind: oss.Hang}, oss.Fault{Op: "put", Kind: oss.Hang})
	must(t, b.DeleteObject("others are served"))
	for _, do := range []func(v1.Option) error{
		func(o v1.Option) error { return b.PutObject("k", strings.NewReader(strings.Repeat("x", 4<<20)), o) },
		func(o v1.Option) error { _, err := b.GetObject("k", o); return err },
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		err := do(v1.WithContext(ctx))
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want the deadline", err)
		}
	}
	if exists(t, cloud, "k") {
		t.Error("a put that hung was applied")
	}
	// A request that hangs does not keep the server from closing: the end of the test would not come otherwise.
	done := make(chan error, 1)
	go func() { _, err := b.GetObject("k"); done <- err }()
	waitFor(t, func() bool { return cloud.OSS.Faults()[0].Fired == 2 })
	cloud.Down()
	if err := <-done; err == nil {
		t.Error("got an object from a server that hangs")
	}
}

func TestFaultBody(t *testing.T) {
	cloud := devtest.Start(t)
	b := newV1(t, cloud)
	content := strings.Repeat("0123456789", 100000)
	must(t, cloud.OSS.WriteObject(cloud.Bucket, "k", []byte(content)))
	get := func(options ...v1.Option) (string, http.Header, error) {
		t.Helper()
		var h http.Header
		r, err := b.GetObject("k", append(options, v1.GetResponseHeader(&h))...)
		must(t, err)
		defer r.Close()
		data, err := io.ReadAll(r)
		return string(data), h, err
	}
	cloud.SetFaults(oss.Fault{Op: "get", Kind: oss.Truncate, At: 12345})
	got, h, err := get()
	if !errors.Is(err, io.ErrUnexpectedEOF) || got != content[:12345] {
		t.Errorf("truncated: %d bytes, %v", len(got), err)
	}
	header(t, h, "Content-Length", "1000000")
	cloud.SetFaults(oss.Fault{Op: "get", Kind: oss.Truncate})
	if got, _, err = get(v1.Range(0, 99)); err == nil || len(got) != 50 {
		t.Errorf("truncated in the middle: %d bytes, %v", len(got), err)
	}
	for at, want := range map[int64]int{3: 3, 0: 500000, -1: 999999} {
		cloud.SetFaults(oss.Fault{Op: "get", Kind: oss.Corrupt, At: at})
		got, h, err = get()
		must(t, err)
		equal(t, "length", len(got), len(content))
		for i := range got {
			if (got[i] != content[i]) != (i == want) {
				t.Fatalf("corrupt at %d: byte %d is %q, stored is %q", at, i, got[i], content[i])
			}
		}
		header(t, h, "x-oss-hash-crc64ecma", crcOf(content))
	}
	cloud.SetFaults(oss.Fault{Kind: oss.WrongCRC})
	got, h, err = get()
	must(t, err)
	if got != content || h.Get("x-oss-hash-crc64ecma") == crcOf(content) {
		t.Error("wrong_crc: the content changed or the checksum did not")
	}
	if err := b.PutObject("wrong", body("x")); err == nil || !strings.Contains(err.Error(), "crc") {
		t.Errorf("put with a wrong checksum in the answer: %v", err)
	}
	if data, _, err := cloud.OSS.ReadObject(cloud.Bucket, "wrong"); string(data) != "x" || err != nil {
		t.Errorf("stored %q, %v", data, err)
	}
}

func TestFaultPace(t *testing.T) {
	cloud := devtest.Start(t)
	b := newV1(t, cloud)
	content := strings.Repeat("x", 10000)
	cloud.SetFaults(oss.Fault{Op: "put", Kind: oss.Delay, Delay: 60 * time.Millisecond}, oss.Fault{Kind: oss.Throttle, Rate: 100000})
	start := time.Now()
	must(t, b.PutObject("k", body(content)))
	if d := time.Since(start); d < 160*time.Millisecond {
		t.Errorf("60 ms of delay and 10 kB at 100 kB/s took %v only", d)
	}
	start = time.Now()
	r, err := b.GetObject("k")
	equal(t, "content", read(t, r, err), content)
	if d := time.Since(start); d < 100*time.Millisecond {
		t.Errorf("10 kB at 100 kB/s took %v only", d)
	}
}

func TestFaultClockSkew(t *testing.T) {
	cloud := devtest.Start(t)
	cloud.SetFaults(oss.Fault{Kind: oss.ClockSkew, Skew: 20 * time.Minute})
	err := newV1(t, cloud).PutObject("k", body("x"))
	wantCode(t, err, "RequestTimeTooSkewed")
	// SDK v2 corrects its clock by the Date of the answer.
	c := newV2(cloud, func(c *v2.Config) { c.WithRetryMaxAttempts(2) })
	_, err = c.PutObject(deadline(t), &v2.PutObjectRequest{Bucket: &cloud.Bucket, Key: v2.Ptr("k"), Body: body("x")})
	must(t, err)
	cloud.SetFaults(oss.Fault{Kind: oss.ClockSkew, Skew: -14 * time.Minute})
	must(t, newV1(t, cloud).PutObject("k", body("x")))
}

func TestFaultSelection(t *testing.T) {
	cloud := devtest.Start(t)
	b := newV1(t, cloud)
	outcome := func(f oss.Fault, keys ...string) (s string) {
		t.Helper()
		f.Kind = oss.Status
		cloud.SetFaults(f)
		for _, k := range keys {
			if b.PutObject(k, body("x")) == nil {
				s += "."
			} else {
				s += "F"
			}
		}
		return s
	}
	equal(t, "prefix", outcome(oss.Fault{Prefix: "a/"}, "a/1", "b/a/", "a"), "F..")
	equal(t, "regexp", outcome(oss.Fault{Regexp: `\.zst$`}, "a.zst", "a.zst.x"), "F.")
	equal(t, "skip and count", outcome(oss.Fault{Skip: 1, Count: 2}, "1", "2", "3", "4"), ".FF.")
	equal(t, "other operation", outcome(oss.Fault{Op: "get"}, "1"), ".")
	equal(t, "by name", outcome(oss.Fault{Op: "PutObject"}, "1"), "F")
	equal(t, "other bucket", outcome(oss.Fault{Bucket: "other"}, "1"), ".")
	equal(t, "other client", outcome(oss.Fault{AccessKeyID: "other"}, "1"), ".")
	equal(t, "this client", outcome(oss.Fault{AccessKeyID: cloud.AccessKeyID}, "1"), "F")
	half := oss.Fault{Probability: 0.5, Seed: 7}
	keys := strings.Split(strings.Repeat("k ", 60), " ")[:60]
	first := outcome(half, keys...)
	equal(t, "the same seed", outcome(half, keys...), first)
	if n := strings.Count(first, "F"); n < 10 || n > 50 {
		t.Errorf("half of 60 is not %d", n)
	}
	for _, bad := range []oss.Fault{
		{},
		{Kind: "explode"},
		{Kind: oss.Hang, Op: "putt"},
		{Kind: oss.Hang, Regexp: "("},
		{Kind: oss.Delay},
		{Kind: oss.Throttle},
		{Kind: oss.ClockSkew},
		{Kind: oss.Status, Status: 200},
		{Kind: oss.Hang, Probability: 2},
	} {
		if err := cloud.OSS.SetFaults(bad); err == nil {
			t.Errorf("%+v was accepted", bad)
		}
	}
	if got := cloud.OSS.Faults(); len(got) != 1 || got[0].Fault.Seed != 7 {
		t.Errorf("refused faults changed what is armed: %+v", got)
	}
}

func waitFor(t *testing.T, ready func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ready(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("waited 10 s in vain")
		}
	}
}
