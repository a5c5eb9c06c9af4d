package oss

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"outrider.dev/e2e/devcloud/devtest"
	"outrider.dev/e2e/devcloud/keys"
	"outrider.dev/e2e/devcloud/metadata"
	"outrider.dev/sidecar/internal/archive"
)

var (
	putNothing  archive.PutOptions
	wholeObject archive.Range
)

// source hands out numbered keys that are valid for an hour.
type source struct {
	mu    sync.Mutex
	n     int // that were handed out or refused
	begun int
	err   error
	delay time.Duration
}

func (s *source) fetch(ctx context.Context) (Keys, error) {
	s.mu.Lock()
	s.begun++
	delay := s.delay
	s.mu.Unlock()
	select {
	case <-time.After(delay):
	case <-ctx.Done():
		return Keys{}, ctx.Err()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.n++
	if s.err != nil {
		return Keys{}, s.err
	}
	return Keys{ID: fmt.Sprint("key-", s.n), Secret: "s", Token: "t", Expires: time.Now().Add(time.Hour)}, nil
}

func (s *source) set(err error, delay time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err, s.delay = err, delay
}

func wantKey(t *testing.T, c Credentials, want string) {
	t.Helper()
	if k, err := c.Keys(t.Context()); err != nil || k.ID != want {
		t.Errorf("at %s: %q, %v; want %q", time.Now().Format(time.TimeOnly), k.ID, err, want)
	}
}

func TestTemporaryKeysAreRenewedInTheBackground(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &source{}
		c := newTemporary("the test", s.fetch)
		wantKey(t, c, "key-1")
		time.Sleep(29 * time.Minute)
		wantKey(t, c, "key-1")
		if s.n != 1 {
			t.Errorf("%d fetches in the first half", s.n)
		}
		s.set(nil, 10*time.Second)
		time.Sleep(2 * time.Minute)
		begin := time.Now()
		wantKey(t, c, "key-1") // at once, while the next is fetched
		if time.Since(begin) != 0 {
			t.Errorf("waited %v with keys at hand", time.Since(begin))
		}
		time.Sleep(11 * time.Second)
		wantKey(t, c, "key-2")
		if s.n != 2 {
			t.Errorf("%d fetches", s.n)
		}
	})
}

func TestTemporaryKeysOutliveAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &source{}
		c := newTemporary("the test", s.fetch)
		wantKey(t, c, "key-1")
		down := errors.New("STS is down")
		s.set(down, time.Second)
		for range 29 {
			time.Sleep(2 * time.Minute)
			wantKey(t, c, "key-1")
		}
		time.Sleep(3 * time.Minute) // they have expired
		if _, err := c.Keys(t.Context()); !errors.Is(err, down) || !strings.Contains(err.Error(), "the test") {
			t.Errorf("expired and no others: %v, want %v", err, down)
		}
		s.set(nil, 0)
		if k, err := c.Keys(t.Context()); err != nil || k.expired(time.Now()) {
			t.Errorf("after the outage: %v", err)
		}
		if s.n > 40 {
			t.Errorf("%d fetches", s.n)
		}
	})
}

func TestTemporaryKeysAreFetchedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &source{delay: time.Second}
		c := newTemporary("the test", s.fetch)
		impatient, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		if _, err := c.Keys(impatient); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v, want %v", err, context.DeadlineExceeded)
		}
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() { wantKey(t, c, "key-1") }) // the fetch goes on although the first caller has gone
		}
		wg.Wait()
		if s.begun != 1 {
			t.Errorf("%d fetches", s.begun)
		}
		first, _ := c.Keys(t.Context())
		if !c.Reject(first) {
			t.Error("there is no second chance")
		}
		for range 20 {
			wg.Go(func() { wantKey(t, c, "key-2") })
		}
		wg.Wait()
		if !c.Reject(first) {
			t.Error("there is no second chance for one who was late")
		}
		wantKey(t, c, "key-2") // what was rejected is gone already
	})
}

func writeFiles(t *testing.T, dir, id, secret string) {
	t.Helper()
	// As Kubernetes does it: a new directory and one link that is exchanged.
	data := filepath.Join(dir, "..data")
	next := filepath.Join(dir, fmt.Sprintf("..%d", time.Now().UnixNano()))
	if err := os.Mkdir(next, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{"id": id, "secret": secret + "\n"} {
		if err := os.WriteFile(filepath.Join(next, name), []byte(value), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(filepath.Base(next), data+"_tmp"); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(data+"_tmp", data); err != nil {
		t.Fatal(err)
	}
}

func TestRotatedSecret(t *testing.T) {
	cloud := devtest.Start(t)
	dir := t.TempDir()
	writeFiles(t, dir, cloud.AccessKeyID, cloud.AccessKeySecret)
	c, err := FileCredentials(filepath.Join(dir, "..data", "id"), filepath.Join(dir, "..data", "secret"), "")
	if err != nil {
		t.Fatal(err)
	}
	b := open(t, cloud, func(cfg *Config) { cfg.Credentials = c })
	if err := b.Put(t.Context(), "1", nil, putNothing); err != nil {
		t.Fatal(err)
	}
	if err := cloud.Keys.Put(keys.Key{ID: "SECOND", Secret: "second"}); err != nil {
		t.Fatal(err)
	}
	if err := cloud.Keys.Revoke(cloud.AccessKeyID); err != nil {
		t.Fatal(err)
	}
	if err := b.Put(t.Context(), "2", nil, putNothing); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("revoked, not rotated yet: %v, want %v", err, fs.ErrPermission)
	}
	writeFiles(t, dir, "SECOND", "second")
	if err := b.Put(t.Context(), "2", nil, putNothing); err != nil {
		t.Errorf("after the rotation: %v", err)
	}
	// Files that are gone, or half written, leave the keys that work in use.
	if err := os.Remove(filepath.Join(dir, "..data")); err != nil {
		t.Fatal(err)
	}
	if err := b.Put(t.Context(), "3", nil, putNothing); err != nil {
		t.Errorf("without files: %v", err)
	}
	writeFiles(t, dir, "", "x")
	if err := b.Put(t.Context(), "4", nil, putNothing); err != nil {
		t.Errorf("with an empty file: %v", err)
	}
}

func TestFilesMustHoldKeys(t *testing.T) {
	dir := t.TempDir()
	writeFiles(t, dir, "id", " ")
	id, secret := filepath.Join(dir, "..data", "id"), filepath.Join(dir, "..data", "secret")
	for _, paths := range [][3]string{{"", secret, ""}, {id, "", ""}, {id, secret, ""}, {id, id, filepath.Join(dir, "no token")}} {
		if _, err := FileCredentials(paths[0], paths[1], paths[2]); err == nil {
			t.Errorf("%q was taken", paths)
		}
	}
	if _, err := FileCredentials(id, id, id); err != nil {
		t.Error(err)
	}
}

func TestRAMRole(t *testing.T) {
	cloud := devtest.Start(t)
	if err := cloud.Keys.SetRole("outrider"); err != nil {
		t.Fatal(err)
	}
	for _, mode := range []string{metadata.TokensOff, metadata.TokensOptional, metadata.TokensRequired} {
		t.Run(mode, func(t *testing.T) {
			settings := metadata.Settings{Region: cloud.Region, Role: "outrider", HTTPTokens: mode}
			if err := cloud.Metadata.Set(settings); err != nil {
				t.Fatal(err)
			}
			c, err := RAMRoleCredentials("outrider", cloud.MetadataURL)
			if err != nil {
				t.Fatal(err)
			}
			b := open(t, cloud, func(cfg *Config) { cfg.Credentials = c })
			if err := b.Put(t.Context(), mode, nil, putNothing); err != nil {
				t.Fatal(err)
			}
			asked := cloud.Metadata.Requests()
			if _, err := b.Stat(t.Context(), mode); err != nil {
				t.Fatal(err)
			}
			if now := cloud.Metadata.Requests(); fmt.Sprint(now) != fmt.Sprint(asked) {
				t.Errorf("the metadata service is asked for every request: %v, before %v", now, asked)
			}
			// The key stops working before its time: others are fetched and the request is made again.
			k, err := c.Keys(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if err := cloud.Keys.Put(keys.Key{ID: k.ID, Secret: k.Secret, Token: k.Token, Expires: time.Now().Add(-time.Minute), Role: "outrider"}); err != nil {
				t.Fatal(err)
			}
			if err := cloud.Metadata.Set(settings); err != nil { // the service has new ones
				t.Fatal(err)
			}
			if _, err := b.Stat(t.Context(), mode); err != nil {
				t.Errorf("after the token expired: %v", err)
			}
		})
	}
	c, err := RAMRoleCredentials("another", cloud.MetadataURL)
	if err != nil {
		t.Fatal(err)
	}
	b := open(t, cloud, func(cfg *Config) { cfg.Credentials = c; cfg.Timeouts.Attempts = 2 })
	if err := b.Put(t.Context(), "k", nil, putNothing); err == nil || errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), `no RAM role "another"`) {
		t.Errorf("%v: does not name the role", err)
	}
	if _, err := RAMRoleCredentials("", ""); err == nil {
		t.Error("a role without a name was taken")
	}
}

func TestOIDC(t *testing.T) {
	cloud := devtest.Start(t)
	endpoint, _ := cloud.StartSTS() // whose certificate TestMain makes this process trust
	if err := cloud.Keys.SetRole("outrider"); err != nil {
		t.Fatal(err)
	}
	token := filepath.Join(t.TempDir(), "token")
	o := OIDC{
		RoleARN: "acs:ram::1:role/outrider", ProviderARN: "acs:ram::1:oidc-provider/ack", TokenFile: token,
		Session: "db-0/outrider", STSEndpoint: endpoint,
	}
	c, err := OIDCCredentials(o)
	if err != nil {
		t.Fatal(err)
	}
	b := open(t, cloud, func(cfg *Config) { cfg.Credentials = c; cfg.Timeouts.Attempts = 2 })
	if err := b.Put(t.Context(), "k", nil, putNothing); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a token file: %v, want an error that claims nothing", err)
	}
	if err := os.WriteFile(token, []byte("a service account's token"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := b.Put(t.Context(), "k", nil, putNothing); err != nil {
		t.Fatal(err)
	}
	before := cloud.STS.Calls()
	k, err := c.Keys(t.Context())
	if err != nil || cloud.STS.Calls() != before {
		t.Fatalf("%v, %d calls instead of %d", err, cloud.STS.Calls(), before)
	}
	if err := cloud.Keys.Revoke(k.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Stat(t.Context(), "k"); err != nil || cloud.STS.Calls() != before+1 {
		t.Errorf("after the key was revoked: %v, %d calls instead of %d", err, cloud.STS.Calls(), before+1)
	}
	for _, change := range []func(*OIDC){
		func(o *OIDC) { o.RoleARN = "" }, func(o *OIDC) { o.ProviderARN = "" }, func(o *OIDC) { o.TokenFile = "" },
	} {
		incomplete := o
		change(&incomplete)
		if _, err := OIDCCredentials(incomplete); err == nil {
			t.Errorf("%+v was taken", incomplete)
		}
	}
}

func TestSessionName(t *testing.T) {
	for in, want := range map[string]string{"db-0": "db-0", "": "outrider", "a": "outrider", "a/b c": "a-b-c", strings.Repeat("x", 100): strings.Repeat("x", 64)} {
		if got := sessionName(in); got != want {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
	}
}
