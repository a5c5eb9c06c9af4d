package evacuation

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
)

const (
	largestAnswer = 64 << 10
	largestToken  = 64 << 10
	// longestText is how much of what a server says is passed on.
	longestText = 500
)

// door is the way to the server.
type door struct {
	cfg    Config
	client *http.Client
}

func newDoor(cfg Config) (*door, error) {
	u, err := url.Parse(cfg.URL)
	if err != nil || u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("the address for evacuations is %q: expected https://HOST/v1/evacuations", cfg.URL)
	}
	if cfg.TokenFile == "" {
		return nil, errors.New("no file is named that holds the token for evacuations")
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(cfg.CA)) {
		return nil, errors.New("the authorities for evacuations hold no certificate in PEM")
	}
	return &door{cfg: cfg, client: &http.Client{
		Transport: &http.Transport{
			// No proxy, whatever the environment says: the server is in this cluster, and the token is for it alone.
			Proxy:                  nil,
			DialContext:            (&net.Dialer{Timeout: 3 * time.Second}).DialContext,
			TLSClientConfig:        &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
			TLSHandshakeTimeout:    3 * time.Second,
			MaxResponseHeaderBytes: 64 << 10,
			// A new connection each time finds another replica when the one that answered last is gone.
			DisableKeepAlives: true,
		},
		// The token goes where the configuration says, and nowhere else.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

func (d *door) close() { d.client.CloseIdleConnections() }

// answer is what the server says, as far as it is of use here.
type answer struct {
	Outcome string `json:"outcome"`
	Message string `json:"message"`
	Node    string `json:"node"`          // "" if it is not said
	Tainted *bool  `json:"tainted"`       // whether the node has the taint now; nil if it is not said
	Grace   int64  `json:"grace_seconds"` // what the pod is given to stop; 0 if it is not said
	status  int
}

// attrs are the answer as the journal has it.
func (a answer) attrs() []any {
	attrs := []any{"outcome", a.Outcome, "status", a.status, "message", a.Message}
	if a.Node != "" && a.Tainted != nil {
		attrs = append(attrs, "node", a.Node, "tainted", *a.Tainted)
	}
	if a.Grace > 0 {
		attrs = append(attrs, "grace_seconds", a.Grace)
	}
	return attrs
}

// gist is what makes an answer another one than the last.
func (a answer) gist() string { return fmt.Sprint(a.Outcome, a.Tainted != nil && *a.Tainted) }

// refused tells whether the server said no, as opposed to having done something.
func (a answer) refused() bool { return a.status >= 400 }

// ask asks once. Its errors are questions without an answer.
func (d *door) ask(ctx context.Context, release time.Time, instance string) (answer, error) {
	a, err := d.post(ctx, d.cfg.URL, struct {
		ReleaseAt time.Time `json:"release_at"`
		Instance  string    `json:"instance,omitempty"`
	}{release.UTC(), instance})
	if err != nil {
		return a, fmt.Errorf("asking for evacuation: %w", err)
	}
	return a, nil
}

// post sends a body as the pod that the token names.
func (d *door) post(ctx context.Context, to string, body any) (answer, error) {
	token, err := readToken(d.cfg.TokenFile)
	if err != nil {
		return answer{}, err
	}
	raw, err := json.Marshal(body)
	if err != nil {
		return answer{}, fmt.Errorf("putting the request into JSON: %w", err)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, to, bytes.NewReader(raw))
	if err != nil {
		return answer{}, fmt.Errorf("making the request: %w", err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	r.Header.Set("Content-Type", "application/json")
	res, err := d.client.Do(r)
	if err != nil {
		return answer{}, err //nolint:wrapcheck // it names method and address
	}
	defer res.Body.Close()
	return read(res, to)
}

func read(res *http.Response, from string) (answer, error) {
	raw, err := io.ReadAll(io.LimitReader(res.Body, largestAnswer))
	if err != nil {
		return answer{}, fmt.Errorf("reading the answer of %s: %w", from, err)
	}
	a := answer{status: res.StatusCode}
	if err := json.Unmarshal(raw, &a); err != nil || a.Outcome == "" {
		return answer{}, fmt.Errorf("%s answers %s: %.100q", from, res.Status, raw)
	}
	a.Outcome, a.Message, a.Node = shortened(a.Outcome), shortened(a.Message), shortened(a.Node)
	switch s := res.StatusCode; {
	case s >= 500, s == http.StatusTooManyRequests, s >= 300 && s < 400:
		return answer{}, fmt.Errorf("%s answers %s: %s", from, res.Status, a.Message)
	}
	return a, nil
}

func shortened(s string) string {
	if len(s) > longestText {
		return strings.ToValidUTF8(s[:longestText], "") + "…"
	}
	return s
}

func readToken(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("reading the token that says which pod this is: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, largestToken))
	if err != nil {
		return "", fmt.Errorf("reading the token that says which pod this is: %w", err)
	}
	token := strings.TrimSpace(string(b))
	if token == "" || strings.ContainsAny(token, " \r\n\t") {
		return "", fmt.Errorf("reading the token that says which pod this is: %s holds none", path)
	}
	return token, nil
}
