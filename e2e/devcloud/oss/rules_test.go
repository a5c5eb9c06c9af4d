package oss_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	v1 "github.com/aliyun/aliyun-oss-go-sdk/oss"

	"outrider.dev/e2e/devcloud/devtest"
	"outrider.dev/e2e/devcloud/keys"
	"outrider.dev/e2e/devcloud/oss"
)

// synced lets writes take as long as durable ones do, which is when they meet.
func synced(c *oss.Config) { c.NoSync = false }

func TestForbidOverwriteHasOneWinner(t *testing.T) {
	cloud := devtest.Start(t, synced)
	b := newV1(t, cloud)
	for round := range 10 {
		key := fmt.Sprintf("epoch-%d", round)
		var wins, refused atomic.Int32
		var winner atomic.Value
		var group sync.WaitGroup
		for i := range 16 {
			group.Go(func() {
				text := fmt.Sprintf("writer %d", i)
				err := b.PutObject(key, body(text), v1.ForbidOverWrite(true))
				if err == nil {
					wins.Add(1)
					winner.Store(text)
				} else if c, _ := code(err); c == "FileAlreadyExists" {
					refused.Add(1)
				}
			})
		}
		group.Wait()
		if wins.Load() != 1 || refused.Load() != 15 {
			t.Fatalf("%d writers won, %d were refused", wins.Load(), refused.Load())
		}
		data, _, err := cloud.OSS.ReadObject(cloud.Bucket, key)
		must(t, err)
		equal(t, "content", string(data), winner.Load().(string))
	}
}

func TestAppendHasOneWinnerPerPosition(t *testing.T) {
	cloud := devtest.Start(t, synced)
	b := newV1(t, cloud)
	for position := range int64(5) {
		var wins atomic.Int32
		var group sync.WaitGroup
		for range 8 {
			group.Go(func() {
				if _, err := b.AppendObject("tail", body("x"), position); err == nil {
					wins.Add(1)
				}
			})
		}
		group.Wait()
		equal(t, "winners", wins.Load(), 1)
	}
}

// TestVersionedBucketTrap: OSS ignores x-oss-forbid-overwrite where versioning is or was on.
func TestVersionedBucketTrap(t *testing.T) {
	cloud := devtest.Start(t)
	b := newV1(t, cloud)
	for _, state := range []string{"Enabled", "Suspended"} {
		must(t, cloud.OSS.SetVersioning(cloud.Bucket, state))
		var h http.Header
		for _, text := range []string{"first", "second"} {
			must(t, b.PutObject("k"+state, body(text), v1.ForbidOverWrite(true), v1.GetResponseHeader(&h)))
		}
		if id := h.Get("x-oss-version-id"); id == "" || (id == "null") != (state == "Suspended") {
			t.Errorf("%s: version id %q", state, id)
		}
		data, _, err := cloud.OSS.ReadObject(cloud.Bucket, "k"+state)
		must(t, err)
		equal(t, "content", string(data), "second")
		_, err = b.CopyObject("k"+state, "k"+state, v1.ForbidOverWrite(true))
		must(t, err)
	}
	must(t, cloud.OSS.SetVersioning(cloud.Bucket, ""))
	wantCode(t, b.PutObject("kEnabled", body("third"), v1.ForbidOverWrite(true)), "FileAlreadyExists")
	if err := cloud.OSS.SetVersioning(cloud.Bucket, "On"); err == nil {
		t.Error("an unknown state was accepted")
	}
	if err := cloud.OSS.SetVersioning("no-such-bucket", "Enabled"); err == nil {
		t.Error("a missing bucket was accepted")
	}
}

func TestWORM(t *testing.T) {
	cloud := devtest.Start(t)
	b := newV1(t, cloud)
	must(t, b.PutObject("k", body("x")))
	_, err := b.AppendObject("tail", body("x"), 0)
	must(t, err)
	must(t, cloud.OSS.SetWORM(cloud.Bucket, true))
	must(t, b.PutObject("new", body("x")))
	wantCode(t, b.PutObject("k", body("y")), "FileImmutable")
	wantCode(t, b.DeleteObject("k"), "FileImmutable")
	_, err = b.DeleteObjects([]string{"missing", "k"})
	wantCode(t, err, "FileImmutable")
	_, err = b.AppendObject("tail", body("y"), 1)
	wantCode(t, err, "FileImmutable")
	must(t, cloud.OSS.SetWORM(cloud.Bucket, false))
	must(t, b.DeleteObject("k"))
}

func TestLimits(t *testing.T) {
	cloud := devtest.Start(t, func(c *oss.Config) { c.MaxPutBytes, c.MaxAppendBytes = 100, 10 })
	b := newV1(t, cloud)
	long := strings.Repeat("x", 101)
	wantCode(t, b.PutObject("k", body(long)), "EntityTooLarge")
	wantCode(t, b.PutObject("k", struct{ *strings.Reader }{strings.NewReader(long)}), "EntityTooLarge")
	must(t, b.PutObject("k", body(long[:100])))
	_, err := b.AppendObject("tail", body("12345678"), 0)
	must(t, err)
	_, err = b.AppendObject("tail", body("123"), 8)
	wantCode(t, err, "InvalidArgument")
	_, err = b.AppendObject("tail", body("12"), 8)
	must(t, err)
}

func TestAuthentication(t *testing.T) {
	var skew atomic.Int64
	cloud := devtest.Start(t, func(c *oss.Config) {
		c.Now = func() time.Time { return time.Now().Add(time.Duration(skew.Load())) }
	})
	for name, auth := range map[string]v1.AuthVersionType{"V1": v1.AuthV1, "V4": v1.AuthV4} {
		t.Run(name, func(t *testing.T) {
			skew.Store(0)
			put := func(id, secret string, options ...v1.ClientOption) error {
				client, err := v1.New(cloud.Endpoint, id, secret, append([]v1.ClientOption{v1.AuthVersion(auth), v1.Region(cloud.Region)}, options...)...)
				must(t, err)
				b, err := client.Bucket(cloud.Bucket)
				must(t, err)
				return b.PutObject("k", body("x"))
			}
			id, secret := cloud.AccessKeyID, cloud.AccessKeySecret
			must(t, put(id, secret))
			err := put(id, "wrong")
			wantCode(t, err, "SignatureDoesNotMatch")
			for _, part := range []string{"<StringToSign>", "<StringToSignBytes>", "<SignatureProvided>", "<OSSAccessKeyId>" + id} {
				var e v1.ServiceError
				if !asError(err, &e) || !strings.Contains(e.RawMessage, part) {
					t.Errorf("no %s in %q", part, e.RawMessage)
				}
			}
			wantCode(t, put("unknown", secret), "InvalidAccessKeyId")
			wantCode(t, put(id, secret, v1.SecurityToken("x")), "AccessKeyIdAndSecurityTokenNotMatch")
			sts, err := cloud.Keys.Issue("role", time.Now(), time.Hour)
			must(t, err)
			must(t, put(sts.ID, sts.Secret, v1.SecurityToken(sts.Token)))
			wantCode(t, put(sts.ID, sts.Secret), "InvalidAccessKeyId")
			wantCode(t, put(sts.ID, sts.Secret, v1.SecurityToken("x")), "InvalidSecurityToken")
			old, err := cloud.Keys.Issue("role", time.Now().Add(-time.Hour), time.Minute)
			must(t, err)
			wantCode(t, put(old.ID, old.Secret, v1.SecurityToken(old.Token)), "SecurityTokenExpired")
			for _, d := range []time.Duration{16 * time.Minute, -16 * time.Minute} {
				skew.Store(int64(d))
				wantCode(t, put(id, secret), "RequestTimeTooSkewed")
			}
			skew.Store(int64(14 * time.Minute))
			must(t, put(id, secret))
		})
	}
}

func TestStrangersAndExpiry(t *testing.T) {
	var skew atomic.Int64
	cloud := devtest.Start(t, func(c *oss.Config) {
		c.Now = func() time.Time { return time.Now().Add(time.Duration(skew.Load())) }
	})
	must(t, cloud.OSS.WriteObject(cloud.Bucket, "k", []byte("x")))
	if status, text := fetch(t, cloud.Endpoint+"/"+cloud.Bucket+"/k"); status != 403 || !strings.Contains(text, "<Code>AccessDenied</Code>") {
		t.Errorf("anonymous: %d %s", status, text)
	}
	wantCode(t, newV1(t, cloud, v1.AuthVersion(v1.AuthV4), v1.Region("cn-beijing")).PutObject("k", body("x")), "InvalidArgument")
	b := newV1(t, cloud)
	for _, auth := range []v1.AuthVersionType{v1.AuthV1, v1.AuthV4} {
		b.Client.Config.AuthVersion = auth
		url, err := b.SignURL("k", v1.HTTPGet, 60)
		must(t, err)
		status, _ := fetch(t, url)
		equal(t, "presigned", status, 200)
		skew.Store(int64(2 * time.Minute))
		status, text := fetch(t, url)
		if status != 403 || !strings.Contains(text, "Request has expired") {
			t.Errorf("expired URL: %d %s", status, text)
		}
		skew.Store(0)
	}
}

func TestPolicy(t *testing.T) {
	cloud := devtest.Start(t)
	must(t, cloud.Keys.Put(keys.Key{ID: "writer", Secret: "s", Rules: []keys.Rule{
		{Actions: []string{"oss:PutObject", "oss:Get*", "oss:ListObjects"}, Prefixes: []string{"a/"}},
		{Actions: []string{"oss:DeleteObject"}, Prefixes: []string{"a/tail/"}},
	}}))
	must(t, cloud.OSS.WriteObject(cloud.Bucket, "b/k", []byte("x")))
	client, err := v1.New(cloud.Endpoint, "writer", "s")
	must(t, err)
	b, err := client.Bucket(cloud.Bucket)
	must(t, err)
	must(t, b.PutObject("a/k", body("x")))
	must(t, b.PutObject("a/tail/k", body("x")))
	r, err := b.GetObject("a/k")
	equal(t, "content", read(t, r, err), "x")
	_, err = b.ListObjectsV2(v1.Prefix("a/tail"))
	must(t, err)
	_, err = client.GetBucketVersioning(cloud.Bucket)
	must(t, err)
	must(t, b.DeleteObject("a/tail/k"))
	_, err = b.DeleteObjects([]string{"a/tail/1", "a/tail/2"})
	must(t, err)
	for name, err := range map[string]error{
		"put elsewhere":      b.PutObject("b/k", body("x")),
		"delete":             b.DeleteObject("a/k"),
		"delete one of many": second(b.DeleteObjects([]string{"a/tail/1", "a/k"})),
		"read elsewhere":     second(b.GetObject("b/k")),
		"head elsewhere":     second(b.GetObjectDetailedMeta("b/missing")),
		"list elsewhere":     second(b.ListObjectsV2(v1.Prefix("b/"))),
		"list everything":    second(b.ListObjects()),
		"copy from there":    second(b.CopyObject("b/k", "a/copy")),
		"abort":              b.AbortMultipartUpload(v1.InitiateMultipartUploadResult{Key: "a/k", UploadID: "x"}),
		"make a bucket":      client.CreateBucket("another"),
	} {
		if c, status := code(err); c != "AccessDenied" || status != 403 {
			t.Errorf("%s: %v", name, err)
		}
	}
	must(t, cloud.Keys.Revoke("writer"))
	wantCode(t, b.PutObject("a/k", body("x")), "InvalidAccessKeyId")
}

func second[T any](_ T, err error) error { return err }

func TestRequestCounters(t *testing.T) {
	cloud := devtest.Start(t)
	b := newV1(t, cloud)
	must(t, b.PutObject("k", body("hello")))
	_ = b.PutObject("k", body("hello"), v1.ForbidOverWrite(true))
	_, _ = b.GetObjectDetailedMeta("missing")
	r, err := b.GetObject("k", v1.Range(0, 1))
	_ = read(t, r, err)
	got := cloud.Requests()
	equal(t, "puts", got.Operations["PutObject"][oss.OK], 1)
	equal(t, "refused puts", got.Operations["PutObject"]["FileAlreadyExists"], 1)
	equal(t, "heads", got.Operations["HeadObject"]["NoSuchKey"], 1)
	equal(t, "total", got.Total(), 4)
	equal(t, "total of puts", got.Total("PutObject"), 2)
	equal(t, "bytes in", got.BytesIn, 10)
	equal(t, "objects", got.Buckets[cloud.Bucket], oss.Usage{Objects: 1, Bytes: 5})
	recent := cloud.OSS.Recent(1)
	if len(recent) != 1 || recent[0].Operation != "GetObject" || recent[0].Key != "k" || recent[0].Status != 206 || recent[0].AccessKeyID != cloud.AccessKeyID {
		t.Errorf("recent %+v", recent)
	}
	cloud.ResetRequests()
	equal(t, "after the reset", cloud.Requests().Total(), 0)
	must(t, b.PutObject("folder/k", body("hello")))
	_, err = b.ListObjectsV2(v1.Prefix("folder/"))
	must(t, err)
	_, err = b.ListObjectsV2(v1.Prefix("folder"))
	must(t, err)
	equal(t, "about a folder", cloud.Requests().Folders["folder"], 2)
}

func TestAddressing(t *testing.T) {
	cloud := devtest.Start(t)
	b := newV1(t, cloud)
	must(t, b.PutObject("a/b", body("x")))
	url, err := b.SignURL("a/b", v1.HTTPGet, 60)
	must(t, err)
	path := strings.TrimPrefix(url, cloud.Endpoint)
	get := func(host, path string) int {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, cloud.Endpoint+path, nil)
		must(t, err)
		req.Host = host
		resp, err := http.DefaultClient.Do(req)
		must(t, err)
		defer resp.Body.Close()
		return resp.StatusCode
	}
	equal(t, "path style", get("", path), 200)
	equal(t, "slash in place of %2F", get("", strings.Replace(path, "a%2Fb", "a/b", 1)), 200)
	equal(t, "virtual host", get(cloud.Bucket+".oss.test:80", strings.TrimPrefix(path, "/"+cloud.Bucket)), 200)
	equal(t, "another name is path style", get("devcloud.example:80", path), 200)
}
