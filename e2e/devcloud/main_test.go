package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	v1 "github.com/aliyun/aliyun-oss-go-sdk/oss"
)

// TestMain lets this binary play the program: a test that kills it needs a process of its own.
func TestMain(m *testing.M) {
	if os.Getenv("DEVCLOUD_TEST_RUN_MAIN") == "1" {
		main()
		return
	}
	os.Exit(m.Run())
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

type process struct {
	cmd    *exec.Cmd
	output *bytes.Buffer
	addresses
}

// launch starts the program on a directory and waits until it listens.
func launch(t *testing.T, data string, args ...string) *process {
	t.Helper()
	ready := filepath.Join(t.TempDir(), "ready.json")
	args = append([]string{
		"--oss-listen", "127.0.0.1:0", "--metadata-listen", "127.0.0.1:0", "--data", data, "--bucket", "backups",
		"--access-key-id", "ak", "--access-key-secret", "sk", "--ready-file", ready,
	}, args...)
	p := &process{cmd: exec.CommandContext(t.Context(), os.Args[0], args...), output: new(bytes.Buffer)}
	p.cmd.Env = append(os.Environ(), "DEVCLOUD_TEST_RUN_MAIN=1")
	p.cmd.Stdout, p.cmd.Stderr = p.output, os.Stderr
	must(t, p.cmd.Start())
	t.Cleanup(func() { _ = p.cmd.Process.Kill(); _ = p.cmd.Wait() })
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		text, err := os.ReadFile(ready)
		if err == nil {
			must(t, json.Unmarshal(text, &p.addresses))
			return p
		}
		if time.Now().After(end) {
			t.Fatalf("not ready: %v", err)
		}
	}
}

func (p *process) bucket(t *testing.T) *v1.Bucket {
	t.Helper()
	client, err := v1.New(p.OSS, "ak", "sk", v1.AuthVersion(v1.AuthV4), v1.Region("cn-hangzhou"))
	must(t, err)
	b, err := client.Bucket("backups")
	must(t, err)
	return b
}

// content makes the body for a key: anyone can tell a whole one from a part.
func content(key string) []byte {
	random := rand.New(rand.NewPCG(uint64(len(key)), uint64(key[len(key)-1])))
	return bytes.Repeat([]byte(key+"\n"), 1+random.IntN(20000))
}

// TestKillLosesNothingAcknowledged kills the program while clients write, again and again.
func TestKillLosesNothingAcknowledged(t *testing.T) {
	data := t.TempDir()
	var mu sync.Mutex
	acknowledged := map[string]bool{}
	for round := range 4 {
		p := launch(t, data)
		b := p.bucket(t)
		var writers sync.WaitGroup
		for w := range 4 {
			writers.Go(func() {
				for i := 0; ; i++ {
					key := fmt.Sprintf("%d/%d/%d", round, w, i)
					if write(b, key, i) != nil {
						return
					}
					mu.Lock()
					acknowledged[key] = true
					mu.Unlock()
				}
			})
		}
		enough := func() bool { mu.Lock(); defer mu.Unlock(); return len(acknowledged) > 40*(round+1) }
		for end := time.Now().Add(20 * time.Second); !enough(); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("only %d writes", len(acknowledged))
			}
		}
		must(t, p.cmd.Process.Kill())
		writers.Wait()
		_ = p.cmd.Wait() // "signal: killed"
	}
	verify(t, launch(t, data).bucket(t), acknowledged)
}

// write stores the key in one of three ways.
func write(b *v1.Bucket, key string, i int) error {
	data := content(key)
	switch i % 5 {
	case 3:
		half := len(data) / 2
		next, err := b.AppendObject(key, bytes.NewReader(data[:half]), 0)
		if err == nil {
			_, err = b.AppendObject(key, bytes.NewReader(data[half:]), next)
		}
		return err
	case 4:
		m, err := b.InitiateMultipartUpload(key)
		if err != nil {
			return err
		}
		part, err := b.UploadPart(m, bytes.NewReader(data), int64(len(data)), 1)
		if err == nil {
			_, err = b.CompleteMultipartUpload(m, []v1.UploadPart{part})
		}
		return err
	}
	return b.PutObject(key, bytes.NewReader(data), v1.ForbidOverWrite(true))
}

func verify(t *testing.T, b *v1.Bucket, acknowledged map[string]bool) {
	t.Helper()
	found := map[string]bool{}
	marker := ""
	for {
		page, err := b.ListObjects(v1.MaxKeys(1000), v1.Marker(marker))
		must(t, err)
		for _, o := range page.Objects {
			r, err := b.GetObject(o.Key)
			must(t, err)
			got, err := io.ReadAll(r)
			must(t, errors.Join(err, r.Close()))
			want := content(o.Key)
			half := o.Type == "Appendable" && !acknowledged[o.Key] && bytes.Equal(got, want[:len(want)/2])
			if !bytes.Equal(got, want) && !half {
				t.Errorf("%s (acknowledged: %v) has %d bytes which are not the %d that were sent", o.Key, acknowledged[o.Key], len(got), len(want))
			}
			found[o.Key] = true
		}
		if !page.IsTruncated {
			break
		}
		marker = page.NextMarker
	}
	for key := range acknowledged {
		if !found[key] {
			t.Errorf("%s was acknowledged and is gone", key)
		}
	}
	t.Logf("%d acknowledged, %d found", len(acknowledged), len(found))
}

func TestOrderlyStop(t *testing.T) {
	data := t.TempDir()
	p := launch(t, data, "--no-sync", "--sts-listen", "127.0.0.1:0", "--sts-ca-file", filepath.Join(t.TempDir(), "ca.pem"), "--role", "worker")
	b := p.bucket(t)
	must(t, b.PutObject("k", strings.NewReader("x")))
	resp, err := http.Get(p.Metadata + "/latest/meta-data/ram/security-credentials/") //nolint:noctx // one request to this machine
	must(t, err)
	role, err := io.ReadAll(resp.Body)
	must(t, errors.Join(err, resp.Body.Close()))
	if string(role) != "worker" || !strings.HasPrefix(p.STS, "127.0.0.1:") {
		t.Errorf("role %q, sts %q", role, p.STS)
	}
	// One request that hangs must not keep it from stopping.
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, p.Metadata+"/control/faults", strings.NewReader(`[{"op":"get","kind":"hang"}]`))
	must(t, err)
	resp, err = http.DefaultClient.Do(req)
	must(t, err)
	must(t, resp.Body.Close())
	hung := make(chan error, 1)
	go func() { _, err := b.GetObject("k"); hung <- err }()
	must(t, p.cmd.Process.Signal(syscall.SIGTERM))
	if err := p.cmd.Wait(); err != nil {
		t.Errorf("exit: %v", err)
	}
	if err := <-hung; err == nil {
		t.Error("the request that hung was answered")
	}
	var line struct{ Msg, OSS, Metadata string }
	first, _, _ := strings.Cut(p.output.String(), "\n")
	must(t, json.Unmarshal([]byte(first), &line))
	if line.Msg != "listening" || line.OSS != p.OSS || line.Metadata != p.Metadata {
		t.Errorf("first line %s", first)
	}
	r, err := launch(t, data).bucket(t).GetObject("k")
	must(t, err)
	must(t, r.Close())
}

func TestMistakenFlags(t *testing.T) {
	dir := t.TempDir()
	for want, args := range map[string][]string{
		"--data is required":  {},
		"unexpected argument": {"--data", dir, "serve"},
		"cannot be empty":     {"--data", dir, "--access-key-secret", ""},
		"not valid":           {"--data", dir, "--bucket", "No_Bucket"},
		"--oss-listen":        {"--data", dir, "--oss-listen", "127.0.0.1:99999"},
		"needs --sts-listen":  {"--data", dir, "--sts-ca-file", "x"},
	} {
		var out bytes.Buffer
		if err := run(t.Context(), args, &out, &out); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", args, err, want)
		}
	}
}
