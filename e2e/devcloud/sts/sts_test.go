package sts_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aliyun/credentials-go/credentials/providers"

	"outrider.dev/e2e/devcloud/devtest"
	"outrider.dev/e2e/devcloud/keys"
	"outrider.dev/e2e/devcloud/sts"

	oss "github.com/aliyun/aliyun-oss-go-sdk/oss"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestOfficialClient gets a key through the official OIDC provider and uses it.
func TestOfficialClient(t *testing.T) {
	cloud := devtest.Start(t)
	endpoint, roots := cloud.StartSTS()
	transport := http.DefaultTransport.(*http.Transport) // the provider clones it, and takes no other
	before := transport.TLSClientConfig
	transport.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	t.Cleanup(func() { transport.TLSClientConfig = before })
	file := filepath.Join(t.TempDir(), "token")
	must(t, os.WriteFile(file, []byte("service account token"), 0o600))
	must(t, cloud.Keys.SetRole("outrider", keys.Rule{Actions: []string{"oss:PutObject"}}))

	p, err := providers.NewOIDCCredentialsProviderBuilder().WithOIDCTokenFilePath(file).WithRoleArn("acs:ram::1:role/outrider").
		WithOIDCProviderARN("acs:ram::1:oidc-provider/ack").WithRoleSessionName("pod-0").WithSTSEndpoint(endpoint).Build()
	must(t, err)
	c, err := p.GetCredentials()
	must(t, err)
	if n := cloud.STS.Calls(); n != 1 {
		t.Errorf("%d calls", n)
	}
	client, err := oss.New(cloud.Endpoint, c.AccessKeyId, c.AccessKeySecret, oss.SecurityToken(c.SecurityToken), oss.AuthVersion(oss.AuthV4), oss.Region(cloud.Region))
	must(t, err)
	b, err := client.Bucket(cloud.Bucket)
	must(t, err)
	must(t, b.PutObject("k", strings.NewReader("x")))
	if err := b.DeleteObject("k"); err == nil || !strings.Contains(err.Error(), "AccessDenied") {
		t.Errorf("beyond the rights of the role: %v", err)
	}
}

func TestAnswers(t *testing.T) {
	store, err := keys.Open("")
	must(t, err)
	now := time.Date(2026, 11, 23, 4, 0, 0, 0, time.UTC)
	s := &sts.Server{Keys: store, Now: func() time.Time { return now }}
	front := httptest.NewServer(s)
	t.Cleanup(front.Close)
	call := func(change ...string) (int, string) {
		t.Helper()
		form := url.Values{
			"Action": {"AssumeRoleWithOIDC"}, "RoleArn": {"acs:ram::1:role/r"}, "OIDCProviderArn": {"acs:ram::1:oidc-provider/p"},
			"OIDCToken": {"t"}, "RoleSessionName": {"s"}, "Format": {"JSON"},
		}
		for i := 0; i < len(change); i += 2 {
			form.Set(change[i], change[i+1])
		}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, front.URL+"/sts/", strings.NewReader(form.Encode()))
		must(t, err)
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		resp, err := http.DefaultClient.Do(req)
		must(t, err)
		defer resp.Body.Close()
		data, err := io.ReadAll(resp.Body)
		must(t, err)
		return resp.StatusCode, string(data)
	}
	jwt := func(exp int64) string {
		return "e30." + base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, `{"exp":%d}`, exp)) + ".x"
	}
	for _, v := range []struct {
		name, field, value string
		status             int
		text               string
	}{
		{"default lifetime", "", "", 200, `"Expiration":"2026-11-23T05:00:00Z"`},
		{"lifetime", "DurationSeconds", "900", 200, `"Expiration":"2026-11-23T04:15:00Z"`},
		{"valid token", "OIDCToken", jwt(now.Unix() + 1), 200, `"Arn":"acs:ram::1:assumed-role/r/s"`},
		{"expired token", "OIDCToken", jwt(now.Unix()), 400, `"Code":"AuthenticationFail.OIDCToken.Expired"`},
		{"no token", "OIDCToken", "", 400, `"Code":"MissingParameter.OIDCToken"`},
		{"lifetime too short", "DurationSeconds", "899", 400, "InvalidParameter.DurationSeconds"},
		{"not a role", "RoleArn", "r", 400, "InvalidParameter.RoleArn"},
		{"another action", "Action", "AssumeRole", 400, "InvalidAction.NotFound"},
		{"xml", "Format", "XML", 200, "<AssumeRoleWithOIDCResponse>"},
	} {
		if status, text := call(v.field, v.value); status != v.status || !strings.Contains(text, v.text) {
			t.Errorf("%s: %d %s", v.name, status, text)
		}
	}
	_, text := call("Format", "XML")
	var doc struct {
		ID     string `xml:"Credentials>AccessKeyId"`
		Secret string `xml:"Credentials>AccessKeySecret"`
	}
	must(t, xml.Unmarshal([]byte(text), &doc))
	if k, ok := store.Lookup(doc.ID); !ok || k.Secret != doc.Secret || k.Role != "r" {
		t.Errorf("gave out %+v, the cloud knows %+v", doc, k)
	}
	s.SetLifetime(5 * time.Second)
	if _, text := call(); !strings.Contains(text, "2026-11-23T04:00:05Z") {
		t.Errorf("fixed lifetime: %s", text)
	}
}

func TestSelfSigned(t *testing.T) {
	cert, pemText, err := sts.SelfSigned(time.Now(), "127.0.0.1", "sts.test")
	must(t, err)
	front := httptest.NewUnstartedServer(http.NotFoundHandler())
	front.TLS = &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
	front.StartTLS()
	t.Cleanup(front.Close)
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pemText) {
		t.Fatal("not a PEM certificate")
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, front.URL, nil)
	must(t, err)
	resp, err := (&http.Client{Transport: transport}).Do(req)
	must(t, err)
	must(t, resp.Body.Close())
}
