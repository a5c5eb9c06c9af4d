package oss

import (
	"strings"
	"testing"
)

func TestParseLocation(t *testing.T) {
	for in, want := range map[string]place{
		"oss://bucket/prefix":          {"bucket", "prefix/"},
		"oss://bucket/prefix/":         {"bucket", "prefix/"},
		"oss://my-bucket-1/a/b.c/d@2":  {"my-bucket-1", "a/b.c/d@2/"},
		"oss://abc/" + "x":             {"abc", "x/"},
		"oss://bucket/namespace/db-0/": {"bucket", "namespace/db-0/"},
	} {
		got, err := parseLocation(in)
		if err != nil || got != want {
			t.Errorf("%q: %+v, %v; want %+v", in, got, err, want)
		}
		if back, err := parseLocation(got.String()); err != nil || back != got {
			t.Errorf("%q does not come back from %q", in, got)
		}
	}
	for _, in := range []string{
		"", "bucket/prefix", "s3://bucket/prefix", "oss://", "oss://bucket", "oss://bucket/", "oss:///prefix", "oss://B/prefix", "oss://ab/x",
		"oss://bucket_1/x", "oss://-bucket/x", "oss://bucket-/x", "oss://bucket//x", "oss://bucket/x//y", "oss://bucket/x//", "oss://bucket/./x",
		"oss://bucket/x/../y", "oss://bucket/x\\y", "oss://bucket/x\ny", "oss://bucket/" + strings.Repeat("x", 1000), "oss://" + strings.Repeat("b", 64) + "/x",
		"oss://user:password@bucket/x", "oss://bucket:80/x",
	} {
		if got, err := parseLocation(in); err == nil {
			t.Errorf("%q was taken as %+v", in, got)
		}
	}
}

func TestLocate(t *testing.T) {
	for _, c := range []struct{ endpoint, region, wantEndpoint, wantRegion string }{
		{"", "cn-hangzhou", "https://oss-cn-hangzhou.aliyuncs.com", "cn-hangzhou"},
		{"", "oss-cn-hangzhou", "https://oss-cn-hangzhou.aliyuncs.com", "cn-hangzhou"},
		{"oss-cn-hangzhou.aliyuncs.com", "", "https://oss-cn-hangzhou.aliyuncs.com", "cn-hangzhou"},
		{"oss-cn-hangzhou-internal.aliyuncs.com", "", "https://oss-cn-hangzhou-internal.aliyuncs.com", "cn-hangzhou"},
		{"https://oss-ap-southeast-1-internal.aliyuncs.com/", "", "https://oss-ap-southeast-1-internal.aliyuncs.com", "ap-southeast-1"},
		{"http://127.0.0.1:9000", "cn-hangzhou", "http://127.0.0.1:9000", "cn-hangzhou"},
		{"oss.example.com:8443", "cn-beijing", "https://oss.example.com:8443", "cn-beijing"},
		{"oss-accelerate.aliyuncs.com", "cn-hangzhou", "https://oss-accelerate.aliyuncs.com", "cn-hangzhou"},
	} {
		endpoint, region, err := locate(c.endpoint, c.region)
		if err != nil || endpoint != c.wantEndpoint || region != c.wantRegion {
			t.Errorf("%q, %q: %q, %q, %v; want %q, %q", c.endpoint, c.region, endpoint, region, err, c.wantEndpoint, c.wantRegion)
		}
	}
	for _, c := range [][2]string{
		{"", ""},
		{"oss.example.com", ""},
		{"oss-accelerate.aliyuncs.com", ""},
		{"oss-accelerate-overseas.aliyuncs.com", ""},
		{"ftp://x", "cn-hangzhou"},
		{"https://", "cn-hangzhou"},
		{"https://host/path", "cn-hangzhou"},
		{"https://u:p@host", "cn-hangzhou"},
		{"https://host?x=y", "cn-hangzhou"},
		{"host", "CN Hangzhou"},
		{"host", "hangzhou"},
		{"https://a b", "cn-hangzhou"},
	} {
		if endpoint, region, err := locate(c[0], c[1]); err == nil {
			t.Errorf("%q, %q was taken as %q, %q", c[0], c[1], endpoint, region)
		}
	}
}

func TestOpenRefusesBadConfiguration(t *testing.T) {
	good := Config{Location: "oss://bucket/p", Region: "cn-hangzhou", Credentials: staticFor(t, "a", "b")}
	if _, err := Open(t.Context(), good); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Config){
		"location":       func(c *Config) { c.Location = "x" },
		"region":         func(c *Config) { c.Region = "" },
		"credentials":    func(c *Config) { c.Credentials = nil },
		"archive class":  func(c *Config) { c.StorageClass = "ColdArchive" },
		"unknown class":  func(c *Config) { c.StorageClass = "standard" },
		"encryption":     func(c *Config) { c.Encryption = "aes" },
		"KMS without id": func(c *Config) { c.Encryption = "KMS:" },
		"tiny parts":     func(c *Config) { c.PartSize = 1000 },
	} {
		c := good
		change(&c)
		if _, err := Open(t.Context(), c); err == nil {
			t.Errorf("%s: was taken", name)
		}
	}
	for _, pair := range [][2]string{{"", ""}, {"id", ""}, {"", "secret"}} {
		if _, err := StaticCredentials(pair[0], pair[1], ""); err == nil {
			t.Errorf("credentials %q were taken", pair)
		}
	}
}

func TestBadKeysAreRefused(t *testing.T) {
	b, err := Open(t.Context(), Config{Location: "oss://bucket/p", Region: "cn-hangzhou", Credentials: staticFor(t, "a", "b")})
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"", "/x", strings.Repeat("x", 1023)} {
		for name, err := range map[string]error{
			"put":    b.Put(t.Context(), key, nil, putNothing),
			"remove": b.Remove(t.Context(), key),
			"stat":   second(b.Stat(t.Context(), key)),
			"open":   third(b.Open(t.Context(), key, wholeObject)),
			"upload": second(b.Upload(t.Context(), key, strings.NewReader(""), putNothing)),
		} {
			if err == nil || !strings.Contains(err.Error(), "cannot be a key") {
				t.Errorf("%s %.10q: %v", name, key, err)
			}
		}
	}
}

func second[A any](_ A, err error) error        { return err }
func third[A, B any](_ A, _ B, err error) error { return err }
