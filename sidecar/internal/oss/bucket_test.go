package oss

import (
	"encoding/pem"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"outrider.dev/e2e/devcloud/devtest"
	"outrider.dev/e2e/devcloud/keys"
	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/archive/archivetest"
)

func TestMain(m *testing.M) {
	cleanup, err := trustTestServers()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) { cleanup(); os.Exit(code) }))
}

// trustTestServers makes the certificate of httptest's servers one that this process trusts: the client of STS takes
// no certificates, only those of the system.
func trustTestServers() (cleanup func(), err error) {
	server := httptest.NewTLSServer(nil)
	defer server.Close()
	dir, err := os.MkdirTemp("", "oss-test-")
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, "ca.pem")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := os.WriteFile(path, text, 0o600); err != nil {
		return nil, err
	}
	return func() { _ = os.RemoveAll(dir) }, os.Setenv("SSL_CERT_FILE", path)
}

// quick are limits with which a test of retries ends soon.
func quick() Timeouts {
	return Timeouts{
		Connect: time.Second, Attempt: 2 * time.Second, Idle: 500 * time.Millisecond, Total: 10 * time.Second,
		Attempts: 4, Backoff: time.Millisecond, SlowestRate: 1 << 20,
	}
}

// open connects to cloud as its owner; the functions change the configuration before.
func open(t *testing.T, cloud *devtest.Cloud, change ...func(*Config)) *Bucket {
	t.Helper()
	c := Config{
		Location: "oss://" + cloud.Bucket + "/ns/db", Endpoint: cloud.Endpoint, Region: cloud.Region,
		Credentials: staticFor(t, cloud.AccessKeyID, cloud.AccessKeySecret), Timeouts: quick(),
		Log: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	for _, f := range change {
		f(&c)
	}
	b, err := Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

func staticFor(t *testing.T, id, secret string) Credentials {
	t.Helper()
	c, err := StaticCredentials(id, secret, "")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// breakable lets the acceptance test take rights and service away.
type breakable struct {
	*Bucket
	cloud *devtest.Cloud
}

func (b breakable) Deny(t *testing.T) {
	t.Helper()
	nothing := keys.Rule{Actions: []string{"oss:Nothing"}}
	err := b.cloud.Keys.Put(keys.Key{ID: b.cloud.AccessKeyID, Secret: b.cloud.AccessKeySecret, Rules: []keys.Rule{nothing}})
	if err != nil {
		t.Fatal(err)
	}
}

func (b breakable) Down(*testing.T) { b.cloud.Down() }

func TestContract(t *testing.T) {
	archivetest.Run(t, func(t *testing.T) archive.Bucket {
		cloud := devtest.Start(t)
		// What lies beside the prefix must never be seen.
		for _, key := range []string{"ns/db", "ns/db2/wal_005/x", "ns/d", "other", "wal/1"} {
			if err := cloud.OSS.WriteObject(cloud.Bucket, key, []byte("foreign")); err != nil {
				t.Fatal(err)
			}
		}
		return breakable{open(t, cloud), cloud}
	})
}
