package oss

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

// MetadataURL is where an ECS instance asks about itself.
const MetadataURL = "http://100.100.100.200"

const (
	metadataTokenTTL     = 6 * time.Hour // the most that the service allows
	metadataTokenTimeout = time.Second
	metadataTimeout      = 5 * time.Second
)

// RAMRoleCredentials returns the credentials of the role that the ECS instance has, cached and renewed. metadata is
// the base URL of the metadata service; empty means MetadataURL. It asks nobody yet.
func RAMRoleCredentials(role, metadata string) (Credentials, error) {
	if role == "" || strings.ContainsAny(role, "/?# ") {
		return nil, fmt.Errorf("%q is not the name of a RAM role", role)
	}
	if metadata == "" {
		metadata = MetadataURL
	}
	if u, err := url.Parse(metadata); err != nil || u.Host == "" {
		return nil, fmt.Errorf("%q is not the URL of a metadata service", metadata)
	}
	m := &metadataService{base: strings.TrimSuffix(metadata, "/"), client: &http.Client{
		// No proxy, and no redirects: this address is this machine's own or nothing.
		Transport:     &http.Transport{DisableKeepAlives: true},
		Timeout:       metadataTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	return newTemporary("the metadata service for RAM role "+role, func(ctx context.Context) (Keys, error) {
		return m.roleKeys(ctx, role)
	}), nil
}

type metadataService struct {
	base   string
	client *http.Client

	mu         sync.Mutex
	token      string
	tokenUntil time.Time
}

func (m *metadataService) roleKeys(ctx context.Context, role string) (Keys, error) {
	path := "/latest/meta-data/ram/security-credentials/" + url.PathEscape(role)
	status, body, err := m.get(ctx, path)
	if err == nil && (status == http.StatusUnauthorized || status == http.StatusForbidden) {
		m.forget() // a token that is not accepted any more
		status, body, err = m.get(ctx, path)
	}
	switch {
	case err != nil:
		return Keys{}, err
	case status == http.StatusNotFound:
		return Keys{}, fmt.Errorf("the instance has no RAM role %q: attach it to the node pool, or name the right one", role)
	case status != http.StatusOK:
		return Keys{}, fmt.Errorf("the metadata service answered %d to %s", status, path)
	}
	var a struct {
		Code, AccessKeyID, AccessKeySecret, SecurityToken string
		Expiration                                        time.Time
	}
	if err := json.Unmarshal(body, &a); err != nil {
		return Keys{}, fmt.Errorf("reading the credentials of RAM role %q: %w", role, err)
	}
	if a.Code != "Success" || a.Expiration.IsZero() || a.SecurityToken == "" {
		return Keys{}, fmt.Errorf("the metadata service has no credentials for RAM role %q: it says %q", role, a.Code)
	}
	return Keys{ID: a.AccessKeyID, Secret: a.AccessKeySecret, Token: a.SecurityToken, Expires: a.Expiration}, nil
}

// get asks with a session token if one can be had (hardened mode, which some nodes demand), else without.
func (m *metadataService) get(ctx context.Context, path string) (int, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, m.base+path, nil)
	if err != nil {
		return 0, nil, err
	}
	if token := m.session(ctx); token != "" {
		req.Header.Set("X-aliyun-ecs-metadata-token", token)
	}
	return m.do(req)
}

func (m *metadataService) session(ctx context.Context) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.token != "" && time.Now().Before(m.tokenUntil) {
		return m.token
	}
	m.token = ""
	ctx, cancel := context.WithTimeout(ctx, metadataTokenTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, m.base+"/latest/api/token", http.NoBody)
	if err != nil {
		return ""
	}
	req.Header.Set("X-aliyun-ecs-metadata-token-ttl-seconds", fmt.Sprint(int(metadataTokenTTL.Seconds())))
	status, body, err := m.do(req)
	if err != nil || status != http.StatusOK {
		return ""
	}
	m.token, m.tokenUntil = strings.TrimSpace(string(body)), time.Now().Add(metadataTokenTTL/2)
	return m.token
}

func (m *metadataService) forget() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.token = ""
}

func (m *metadataService) do(req *http.Request) (int, []byte, error) {
	resp, err := m.client.Do(req)
	if err != nil {
		return 0, nil, fmt.Errorf("asking the metadata service: %w", err)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	return resp.StatusCode, body, errors.Join(err, resp.Body.Close())
}
