package oss

import (
	"crypto/tls"
	"encoding/base64"
	"errors"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"outrider.dev/e2e/devcloud/devtest"
	"outrider.dev/e2e/devcloud/keys"
	devoss "outrider.dev/e2e/devcloud/oss"
	"outrider.dev/e2e/devcloud/sts"
	"outrider.dev/sidecar/internal/archive"
)

// everything calls every operation once on an object that exists.
func everything(t *testing.T, b *Bucket) map[string]error {
	t.Helper()
	all := map[string]error{}
	_, all["stat"] = b.Stat(t.Context(), "there")
	_, all["open"] = readAll(t, b, "there", archive.Range{})
	_, all["range"] = readAll(t, b, "there", archive.Range{From: 1})
	all["put"] = b.Put(t.Context(), "there", []byte("there"), archive.PutOptions{Replace: true})
	_, all["upload"] = b.Upload(t.Context(), "there", strings.NewReader("there"), archive.PutOptions{Replace: true})
	all["remove"] = b.Remove(t.Context(), "other")
	all["list"] = nil
	for _, err := range b.List(t.Context(), "", "") {
		all["list"] = err
	}
	return all
}

// wantAhead compares what a bucket knows of the clocks. Date has whole seconds, and this machine may be busy.
func wantAhead(t *testing.T, b *Bucket, want time.Duration) {
	t.Helper()
	ahead, told := b.ClockAhead()
	if !told || ahead < want-time.Second || ahead > want+20*time.Second {
		t.Errorf("the clock of this machine is %v ahead, %v; want about %v", ahead, told, want)
	}
}

func TestClockSkewIsCorrected(t *testing.T) {
	cloud := devtest.Start(t)
	if err := cloud.OSS.WriteObject(cloud.Bucket, "ns/db/there", []byte("there")); err != nil {
		t.Fatal(err)
	}
	for _, skew := range []time.Duration{time.Hour, -20 * time.Minute, 26 * time.Hour} {
		b := open(t, cloud)
		cloud.SetFaults(devoss.Fault{Kind: devoss.ClockSkew, Skew: skew})
		cloud.ResetRequests()
		for name, err := range everything(t, b) {
			if err != nil {
				t.Errorf("%s with a clock that is off by %v: %v", name, skew, err)
			}
		}
		if n := cloud.Requests().Total(); n != 8 {
			t.Errorf("%d requests, want 7 and one that was refused", n)
		}
		wantAhead(t, b, -skew)
		cloud.SetFaults() // NTP has set it
		for name, err := range everything(t, b) {
			if err != nil {
				t.Errorf("%s after the clock was set: %v", name, err)
			}
		}
		wantAhead(t, b, 0)
	}
}

func TestRefusalsNameTheRemedy(t *testing.T) {
	cloud := devtest.Start(t)
	if err := cloud.OSS.WriteObject(cloud.Bucket, "ns/db/there", []byte("there")); err != nil {
		t.Fatal(err)
	}
	if err := cloud.Keys.Put(keys.Key{ID: "OTHER", Secret: "s", Rules: []keys.Rule{{Buckets: []string{"another-bucket"}}}}); err != nil {
		t.Fatal(err)
	}
	denied := devoss.Fault{Kind: devoss.Status, Status: 403}
	for _, c := range []struct {
		name   string
		change func(*Config)
		fault  devoss.Fault
		want   error
		remedy string
	}{
		{name: "wrong bucket", change: func(c *Config) { c.Location = "oss://no-such-bucket/x" }, want: ErrConfiguration, remedy: `no bucket "no-such-bucket"`},
		{name: "wrong key id", change: func(c *Config) { c.Credentials = staticFor(t, "NOBODY", "x") }, want: fs.ErrPermission, remedy: "does not know this access key id"},
		{name: "wrong secret", change: func(c *Config) { c.Credentials = staticFor(t, cloud.AccessKeyID, "x") }, want: fs.ErrPermission, remedy: "secret does not belong"},
		{name: "wrong region", change: func(c *Config) { c.Region = "cn-beijing" }, want: ErrConfiguration, remedy: `"cn-beijing" is not the region`},
		{name: "no right", change: func(c *Config) { c.Credentials = staticFor(t, "OTHER", "s") }, want: fs.ErrPermission, remedy: "grant the credentials the action oss:"},
		{name: "unwanted token", change: func(c *Config) {
			var err error
			if c.Credentials, err = StaticCredentials(cloud.AccessKeyID, cloud.AccessKeySecret, "token"); err != nil {
				t.Fatal(err)
			}
		}, want: fs.ErrPermission, remedy: "belongs to another access key id"},
		{name: "expired token", fault: withCode(denied, "SecurityTokenExpired"), want: fs.ErrPermission, remedy: "token is expired"},
		{name: "in arrears", fault: withCode(denied, "UserDisable"), want: fs.ErrPermission, remedy: "in arrears"},
		{name: "no KMS", fault: withCode(denied, "KmsServiceNotEnabled"), want: fs.ErrPermission, remedy: "kms:GenerateDataKey"},
		{name: "IP endpoint", fault: withCode(denied, "SecondLevelDomainForbidden"), want: ErrConfiguration, remedy: "host name"},
		{name: "hopeless clock", fault: withCode(denied, "RequestTimeTooSkewed"), want: fs.ErrPermission, remedy: "the clock of this machine"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var change []func(*Config)
			if c.change != nil {
				change = append(change, c.change)
			}
			b := open(t, cloud, change...)
			if c.fault.Kind != "" {
				cloud.SetFaults(c.fault)
				defer cloud.SetFaults()
			}
			for name, err := range everything(t, b) {
				if !errors.Is(err, c.want) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrExist) {
					t.Errorf("%s: %v, want only %v", name, err, c.want)
				}
				if err != nil && !strings.Contains(err.Error(), c.remedy) {
					t.Errorf("%s: %v: does not say %q", name, err, c.remedy)
				}
				if err != nil && strings.Contains(err.Error(), cloud.AccessKeySecret) {
					t.Errorf("%s: tells a secret: %v", name, err)
				}
			}
		})
	}
	// None of them is worth more than one attempt, and one more after fetching other credentials.
	if cloud.Requests().Operations["PutObject"]["InvalidAccessKeyId"] > 4 {
		t.Errorf("final refusals were tried again: %v", cloud.Requests().Operations)
	}
}

func withCode(f devoss.Fault, code string) devoss.Fault {
	f.Code = code
	return f
}

func TestRightsNameTheAction(t *testing.T) {
	cloud := devtest.Start(t)
	for _, c := range []struct{ operation, action string }{
		{"stat", "oss:GetObject"},
		{"open", "oss:GetObject"},
		{"put", "oss:PutObject"},
		{"upload", "oss:PutObject"},
		{"remove", "oss:DeleteObject"},
		{"list", "oss:ListObjects"},
	} {
		rule := keys.Rule{Actions: []string{"oss:Nothing"}}
		if err := cloud.Keys.Put(keys.Key{ID: "WEAK", Secret: "s", Rules: []keys.Rule{rule}}); err != nil {
			t.Fatal(err)
		}
		b := open(t, cloud, func(cfg *Config) { cfg.Credentials = staticFor(t, "WEAK", "s") })
		err := everything(t, b)[c.operation]
		if !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), c.action+" on acs:oss:*:*:"+cloud.Bucket) {
			t.Errorf("%s: %v: does not name %s", c.operation, err, c.action)
		}
	}
}

func TestNoRightToDelete(t *testing.T) {
	cloud := devtest.Start(t)
	writer := keys.Rule{Actions: []string{"oss:PutObject", "oss:GetObject", "oss:ListObjects"}}
	tail := keys.Rule{Actions: []string{"oss:DeleteObject"}, Prefixes: []string{"ns/db/outrider/tail/"}}
	if err := cloud.Keys.Put(keys.Key{ID: "WRITER", Secret: "s", Rules: []keys.Rule{writer, tail}}); err != nil {
		t.Fatal(err)
	}
	b := open(t, cloud, func(c *Config) { c.Credentials = staticFor(t, "WRITER", "s") })
	for _, key := range []string{"wal_005/x", "outrider/tail/a", "outrider/tail/b"} {
		if err := b.Put(t.Context(), key, []byte("x"), archive.PutOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Remove(t.Context(), "outrider/tail/a"); err != nil {
		t.Errorf("what it may delete: %v", err)
	}
	if err := b.Remove(t.Context(), "outrider/tail/b", "wal_005/x"); err == nil {
		t.Error("deleting what it may not delete succeeded")
	}
	wantObject(t, b, "wal_005/x", []byte("x"))
}

// proxied answers in place of OSS.
func proxied(t *testing.T, h http.HandlerFunc) *Bucket {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	b, err := Open(t.Context(), Config{
		Location: "oss://bucket/p", Endpoint: server.URL, Region: "cn-hangzhou", Credentials: staticFor(t, "a", "b"), Timeouts: quick(),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b
}

func TestAnswersOfOthersProveNothing(t *testing.T) {
	for name, h := range map[string]http.HandlerFunc{
		"empty 404": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(404) },
		"HTML 404":  func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "<html>gone</html>", 404) },
		"empty 403": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(403) },
		"empty 409": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(409) },
		"HTML 200":  func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>log in</html>")) },
		"empty 200": func(http.ResponseWriter, *http.Request) {},
		"redirect":  func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/login", http.StatusFound) },
		"302 elsewhere": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "http://127.0.0.1:1/")
			w.WriteHeader(302)
		},
		"busy": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) },
	} {
		t.Run(name, func(t *testing.T) {
			b := proxied(t, h)
			for op, err := range everything(t, b) {
				if err == nil || errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrExist) || errors.Is(err, fs.ErrPermission) {
					t.Errorf("%s: %v, want an error that claims nothing", op, err)
				}
			}
			if err := b.Probe(t.Context()); err == nil || errors.Is(err, ErrConfiguration) {
				t.Errorf("probe: %v, want an error that claims nothing", err)
			}
		})
	}
}

// TestHalfAnswers: answers that look like OSS's and leave out what matters.
func TestHalfAnswers(t *testing.T) {
	xml := func(id, text string) *Bucket {
		return proxied(t, func(w http.ResponseWriter, _ *http.Request) {
			if id != "" {
				w.Header().Set("x-oss-request-id", id)
			}
			_, _ = w.Write([]byte(`<?xml version="1.0"?>` + text))
		})
	}
	const id = "5C3D9175B6FC201293AD4890"
	list := func(b *Bucket) (n int, err error) {
		for _, err := range b.List(t.Context(), "", "") {
			if n++; err != nil {
				return n, err
			}
		}
		return n, nil
	}
	if n, err := list(xml(id, "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>")); n != 0 || err != nil {
		t.Errorf("an empty listing: %d keys, %v", n, err)
	}
	for name, b := range map[string]*Bucket{
		"not from OSS":     xml("", "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>"),
		"cut":              xml(id, "<ListBucketResult><IsTruncated>false</IsTruncated>"),
		"another document": xml(id, "<Error/>"),
		"empty but more":   xml(id, "<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>"),
		"another prefix":   xml(id, "<ListBucketResult><Contents><Key>other/x</Key></Contents></ListBucketResult>"),
		"out of order":     xml(id, "<ListBucketResult><Contents><Key>p/b</Key></Contents><Contents><Key>p/a</Key></Contents></ListBucketResult>"),
	} {
		if n, err := list(b); err == nil {
			t.Errorf("a listing that is %s: %d keys", name, n)
		}
	}
	for name, text := range map[string]string{
		"nothing": "<DeleteResult/>", "another": "<DeleteResult><Deleted><Key>p/other</Key></Deleted></DeleteResult>",
		"one of two": "<DeleteResult><Deleted><Key>p/a</Key></Deleted></DeleteResult>",
	} {
		if err := xml(id, text).Remove(t.Context(), "a", "b"); err == nil {
			t.Errorf("%s was confirmed to be deleted, and that was taken for success", name)
		}
	}
	if err := xml(id, "<DeleteResult><Deleted><Key>p/b</Key></Deleted><Deleted><Key>p/a</Key></Deleted></DeleteResult>").Remove(t.Context(), "a", "b"); err != nil {
		t.Error(err)
	}
	// Other things than the object can be missing.
	b := proxied(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("x-oss-request-id", id)
		w.Header().Set("x-oss-err", base64.StdEncoding.EncodeToString([]byte("<Error><Code>SymlinkTargetNotExist</Code></Error>")))
		w.WriteHeader(404)
	})
	if _, err := b.Stat(t.Context(), "k"); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a symbolic link to nowhere: %v, want an error that does not say there is no object", err)
	}
}

// TestBodyIsTheCallersAgain: OSS refuses before it has read the body, which the transport may go on sending from after
// the answer has come. Under the race detector.
func TestBodyIsTheCallersAgain(t *testing.T) {
	b := proxied(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("x-oss-request-id", "5C3D9175B6FC201293AD4890")
		w.Header().Set("Content-Type", "application/xml")
		w.WriteHeader(403)
		_, _ = w.Write([]byte("<Error><Code>AccessDenied</Code></Error>"))
	})
	body := make([]byte, 4<<20)
	for i := range 20 {
		if err := b.Put(t.Context(), "k", body, archive.PutOptions{}); !errors.Is(err, fs.ErrPermission) && !strings.Contains(err.Error(), "connection") {
			t.Fatal(err)
		}
		for j := range body {
			body[j] = byte(i)
		}
	}
}

func TestHeadWithoutCode(t *testing.T) {
	answer := func(status int, id string) *Bucket {
		return proxied(t, func(w http.ResponseWriter, _ *http.Request) {
			if id != "" {
				w.Header().Set("x-oss-request-id", id)
			}
			w.WriteHeader(status)
		})
	}
	if _, err := answer(404, "5C3D9175B6FC201293AD4890").Stat(t.Context(), "k"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("404 of OSS's without a code: %v, want %v", err, fs.ErrNotExist)
	}
	if _, err := answer(403, "5C3D9175B6FC201293AD4890").Stat(t.Context(), "k"); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("403 of OSS's without a code: %v, want %v", err, fs.ErrPermission)
	}
	if _, err := answer(404, "").Stat(t.Context(), "k"); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("404 of somebody: %v, want an error that claims nothing", err)
	}
}

func TestOtherRegionNamesTheEndpoint(t *testing.T) {
	b := proxied(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("x-oss-request-id", "5C3D9175B6FC201293AD4890")
		w.WriteHeader(403)
		_, _ = w.Write([]byte(`<?xml version="1.0"?><Error><Code>AccessDenied</Code><Message>The bucket you are attempting to access must be addressed using the specified endpoint.</Message><Endpoint>oss-cn-beijing.aliyuncs.com</Endpoint></Error>`))
	})
	err := b.Put(t.Context(), "k", nil, archive.PutOptions{})
	if !errors.Is(err, ErrConfiguration) || !strings.Contains(err.Error(), "set the OSS endpoint to oss-cn-beijing.aliyuncs.com") {
		t.Errorf("%v: does not name the endpoint", err)
	}
}

func TestUntrustedCertificateIsNotRetried(t *testing.T) {
	cert, _, err := sts.SelfSigned(time.Now(), "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	asked := 0
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked++ }))
	server.TLS = &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	server.StartTLS()
	t.Cleanup(server.Close)
	b, err := Open(t.Context(), Config{
		Location: "oss://bucket/p", Endpoint: server.Listener.Addr().String(), Region: "cn-hangzhou", // no scheme: https
		Credentials: staticFor(t, "a", "b"), Timeouts: quick(),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	if err := b.Put(t.Context(), "k", nil, archive.PutOptions{}); !errors.Is(err, ErrConfiguration) {
		t.Errorf("%v, want %v", err, ErrConfiguration)
	}
	if asked != 0 {
		t.Errorf("%d requests went to a server that is not trusted", asked)
	}
}
