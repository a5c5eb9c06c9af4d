package metadata_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"outrider.dev/e2e/devcloud/keys"
	"outrider.dev/e2e/devcloud/metadata"
)

type service struct {
	*metadata.Server
	url   string
	keys  *keys.Store
	clock *atomic.Int64 // how far it is ahead
}

func start(t *testing.T, settings metadata.Settings) service {
	t.Helper()
	store, err := keys.Open("")
	must(t, err)
	s := service{keys: store, clock: new(atomic.Int64)}
	now := func() time.Time { return time.Now().Add(time.Duration(s.clock.Load())) }
	s.Server, err = metadata.New(metadata.Config{Settings: settings, Keys: store, Now: now})
	must(t, err)
	front := httptest.NewServer(s.Server)
	t.Cleanup(front.Close)
	s.url = front.URL
	return s
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (s service) do(t *testing.T, method, path string, header ...string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, s.url+path, nil)
	must(t, err)
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	must(t, err)
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	must(t, err)
	return resp.StatusCode, string(data)
}

func (s service) want(t *testing.T, path string, status int, text string) {
	t.Helper()
	gotStatus, got := s.do(t, "GET", path)
	if gotStatus != status || text != "" && got != text {
		t.Errorf("%s: %d %q, want %d %q", path, gotStatus, got, status, text)
	}
}

const base = "/latest/meta-data/"

func TestValues(t *testing.T) {
	s := start(t, metadata.Settings{Region: "cn-beijing"})
	s.want(t, base+"instance-id", 200, "i-devcloud0000000001")
	s.want(t, base+"region-id", 200, "cn-beijing")
	s.want(t, base+"zone-id", 200, "cn-beijing-h")
	s.want(t, base+"instance/instance-type", 200, "ecs.g7.large")
	s.want(t, base+"ram/security-credentials/", 404, "")
	s.want(t, base+"no-such-thing", 404, "")
	s.want(t, "/other", 404, "")
	s.want(t, base+"instance/spot/termination-time", 404, "")
	s.SetSpotTermination(time.Date(2026, 11, 23, 17, 3, 0, 0, time.FixedZone("", 8*3600)))
	s.want(t, base+"instance/spot/termination-time", 200, "2026-11-23T09:03:00Z")
	s.SetSpotTermination(time.Time{})
	s.want(t, base+"instance/spot/termination-time", 404, "")
	if n := s.Requests()[base+"instance/spot/termination-time"]; n["404"] != 2 || n["200"] != 1 {
		t.Errorf("counted %v", n)
	}
	if err := s.Set(metadata.Settings{HTTPTokens: "sometimes"}); err == nil || s.Settings().Region != "cn-beijing" {
		t.Errorf("bad settings: %v, now %+v", err, s.Settings())
	}
}

func TestTokens(t *testing.T) {
	const (
		token = "X-aliyun-ecs-metadata-token"
		ttl   = "X-aliyun-ecs-metadata-token-ttl-seconds"
		path  = "/latest/api/token"
	)
	s := start(t, metadata.Settings{HTTPTokens: metadata.TokensRequired})
	s.want(t, base+"instance-id", 403, "")
	for _, bad := range []string{"", "0", "21601", "x"} {
		if status, _ := s.do(t, "PUT", path, ttl, bad); status != 400 {
			t.Errorf("lifetime %q: %d", bad, status)
		}
	}
	if status, _ := s.do(t, "PUT", path, ttl, "60", "X-Forwarded-For", "10.0.0.1"); status != 403 {
		t.Errorf("through a proxy: %d", status)
	}
	get := func(value string) int {
		status, _ := s.do(t, "GET", base+"instance-id", token, value)
		return status
	}
	status, value := s.do(t, "PUT", path, ttl, "60")
	if status != 200 || get(value) != 200 || get("other") != 401 {
		t.Errorf("token: %d, then %d; another: %d", status, get(value), get("other"))
	}
	s.clock.Store(int64(61 * time.Second))
	if got := get(value); got != 401 {
		t.Errorf("expired token: %d", got)
	}
	_, value = s.do(t, "PUT", path, ttl, "60")
	s.ForgetTokens()
	if got := get(value); got != 401 {
		t.Errorf("forgotten token: %d", got)
	}
	must(t, s.Set(metadata.Settings{HTTPTokens: metadata.TokensOptional}))
	s.want(t, base+"instance-id", 200, "")
	must(t, s.Set(metadata.Settings{HTTPTokens: metadata.TokensOff}))
	if status, _ := s.do(t, "PUT", path, ttl, "60"); status != 404 {
		t.Errorf("a service without tokens: %d", status)
	}
	s.want(t, base+"instance-id", 200, "")
}

func TestRoleCredentials(t *testing.T) {
	s := start(t, metadata.Settings{Role: "worker", RoleLifetime: 3600})
	s.want(t, base+"ram/security-credentials/", 200, "worker")
	s.want(t, base+"ram/security-credentials/other", 404, "")
	get := func() (c struct{ AccessKeyId, AccessKeySecret, SecurityToken, Code, Expiration string }) { //nolint:revive // names of the service
		t.Helper()
		status, text := s.do(t, "GET", base+"ram/security-credentials/worker")
		if status != 200 {
			t.Fatalf("%d %s", status, text)
		}
		must(t, json.Unmarshal([]byte(text), &c))
		return c
	}
	first := get()
	k, ok := s.keys.Lookup(first.AccessKeyId)
	if !ok || k.Secret != first.AccessKeySecret || k.Token != first.SecurityToken || k.Role != "worker" || first.Code != "Success" {
		t.Errorf("gave out %+v, the cloud knows %+v", first, k)
	}
	if at, err := time.Parse(time.RFC3339, first.Expiration); err != nil || !at.Equal(k.Expires) {
		t.Errorf("expires %s, %v", first.Expiration, err)
	}
	s.clock.Store(int64(39 * time.Minute))
	if get() != first {
		t.Error("a new key although 21 minutes are left")
	}
	s.clock.Store(int64(41 * time.Minute))
	if get() == first {
		t.Error("still the old key with 19 minutes left")
	}
}

func TestFaults(t *testing.T) {
	s := start(t, metadata.Settings{})
	spot := base + "instance/spot"
	must(t, s.SetFaults(
		metadata.Fault{Prefix: spot, Skip: 1, Count: 1, Kind: metadata.Status, Status: 200, Body: "<html>garbage"},
		metadata.Fault{Prefix: spot, Skip: 1, Count: 1, Kind: metadata.Status},
		metadata.Fault{Prefix: base + "zone-id", Kind: metadata.Hang},
		metadata.Fault{Prefix: base + "region-id", Kind: metadata.Reset},
		metadata.Fault{Prefix: base + "instance-id", Kind: metadata.Delay, Seconds: 0.05},
	))
	s.want(t, spot+"/termination-time", 404, "")
	s.want(t, spot+"/termination-time", 200, "<html>garbage")
	s.want(t, spot+"/termination-time", 500, "")
	s.want(t, spot+"/termination-time", 404, "")
	begin := time.Now()
	s.want(t, base+"instance-id", 200, "")
	if d := time.Since(begin); d < 50*time.Millisecond {
		t.Errorf("delayed by %v only", d)
	}
	fails := func(ctx context.Context, path string) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+base+path, nil)
		must(t, err)
		resp, err := http.DefaultClient.Do(req)
		if err == nil {
			must(t, resp.Body.Close())
		}
		return err
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := fails(ctx, "zone-id"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("hang: %v", err)
	}
	if err := fails(t.Context(), "region-id"); err == nil {
		t.Error("reset: there was an answer")
	}
	for _, bad := range []metadata.Fault{{}, {Kind: metadata.Delay}, {Kind: metadata.Status, Status: 42}} {
		if s.SetFaults(bad) == nil {
			t.Errorf("%+v was accepted", bad)
		}
	}
	if n := len(s.Faults()); n != 5 {
		t.Errorf("refused faults changed what is armed: %d", n)
	}
	must(t, s.SetFaults())
	s.want(t, base+"region-id", 200, "cn-hangzhou")
}
