package notice

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// The hardened mode of the metadata service: a token is had by PUT, given a lifetime, and sent with each question
// (ECS documentation, "instance metadata access in security hardening mode").
const (
	tokenHeader   = "X-aliyun-ecs-metadata-token"             //nolint:gosec // a name, no secret
	ttlHeader     = "X-aliyun-ecs-metadata-token-ttl-seconds" //nolint:gosec // a name, no secret
	tokenTTL      = 6 * time.Hour                             // the longest allowed
	tokenTimeout  = time.Second
	answerTimeout = 2 * time.Second
	maxAnswer     = 4096 // bytes; a role's keys are the longest answer and have about 1 KiB

	// plainFor is how long no token is tried for after the service gave none and answers without.
	plainFor = 5 * time.Minute
)

var (
	errAbsent  = errors.New("not found")
	errRefused = errors.New("refused")
)

// service is the metadata service. It is for one goroutine.
type service struct {
	base   string
	client *http.Client
	close  func()

	token     string
	tokenEnds time.Time
	nextTry   time.Time // of a (new) token
}

func newService(base string, client *http.Client) (*service, error) {
	u, err := url.Parse(base)
	if err == nil && (u.Scheme != "http" && u.Scheme != "https" || u.Host == "") {
		err = errors.New("expected an address such as " + DefaultBaseURL)
	}
	if err != nil {
		return nil, fmt.Errorf("using %q as the metadata service: %w", base, err)
	}
	// A proxy would answer for another machine.
	direct := &http.Transport{Proxy: nil, MaxIdleConns: 1, IdleConnTimeout: time.Minute}
	c := http.Client{Transport: direct}
	if client != nil {
		c = *client
	}
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &service{base: strings.TrimSuffix(strings.TrimRight(base, "/"), "/latest") + "/latest/", client: &c, close: direct.CloseIdleConnections}, nil
}

// get reads an item below meta-data/. errAbsent is an answer, all other errors are none.
func (s *service) get(ctx context.Context, path string) (string, error) {
	if !time.Now().Before(s.nextTry) {
		_ = s.renew(ctx) // without one, the question is asked plainly
	}
	body, err := s.ask(ctx, path)
	if !errors.Is(err, errRefused) {
		return body, err
	}
	// A token ends early when the instance was replaced below us, and becomes mandatory when somebody says so.
	s.token = ""
	if terr := s.renew(ctx); terr != nil {
		// Not wrapped: that there are no tokens here says nothing about what was asked for.
		return "", fmt.Errorf("%w, and no token could be had: %v", err, terr) //nolint:errorlint // see above
	}
	return s.ask(ctx, path)
}

func (s *service) ask(ctx context.Context, path string) (string, error) {
	var header http.Header
	if s.token != "" && time.Now().Before(s.tokenEnds) {
		header = http.Header{http.CanonicalHeaderKey(tokenHeader): {s.token}}
	}
	return s.do(ctx, answerTimeout, http.MethodGet, "meta-data/"+path, header)
}

// renew tries to get a token. If there is none to be had, the old one is kept as long as it lasts.
func (s *service) renew(ctx context.Context) error {
	header := http.Header{http.CanonicalHeaderKey(ttlHeader): {fmt.Sprint(int(tokenTTL.Seconds()))}}
	asked := time.Now()
	token, err := s.do(ctx, tokenTimeout, http.MethodPut, "api/token", header)
	if err == nil && !validToken(token) {
		err = fmt.Errorf("api/token gave %d bytes that are no token", len(token))
	}
	if err != nil {
		s.nextTry = asked.Add(plainFor)
		return err
	}
	s.token, s.tokenEnds, s.nextTry = token, asked.Add(tokenTTL), asked.Add(tokenTTL*3/4)
	return nil
}

func validToken(t string) bool {
	return t != "" && !strings.ContainsFunc(t, func(r rune) bool { return r <= ' ' || r > '~' || r == '<' })
}

func (s *service) do(ctx context.Context, timeout time.Duration, method, path string, header http.Header) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, s.base+path, nil)
	if err != nil {
		return "", fmt.Errorf("asking the metadata service for %s: %w", path, err)
	}
	if header != nil {
		req.Header = header
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return "", fmt.Errorf("asking the metadata service for %s: %w", path, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		return "", fmt.Errorf("reading the metadata service's %s: %w", path, err)
	case resp.StatusCode == http.StatusNotFound:
		return "", fmt.Errorf("the metadata service's %s: %w", path, errAbsent)
	case resp.StatusCode == http.StatusUnauthorized || resp.StatusCode == http.StatusForbidden:
		return "", fmt.Errorf("the metadata service's %s: %w with status %d", path, errRefused, resp.StatusCode)
	case resp.StatusCode != http.StatusOK:
		return "", fmt.Errorf("the metadata service's %s: status %d", path, resp.StatusCode)
	case len(body) > maxAnswer:
		return "", fmt.Errorf("the metadata service's %s: more than %d bytes", path, maxAnswer)
	}
	return strings.TrimSpace(string(body)), nil
}
