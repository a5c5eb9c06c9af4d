package evacuation_test

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"outrider.dev/sidecar/internal/evacuation"
)

var release = time.Date(2026, 4, 7, 17, 3, 0, 0, time.UTC)

// call is what the server was asked.
type call struct {
	token, body string
}

// world is a server over TLS, an Asker at work, and all that is said.
type world struct {
	t      *testing.T
	server *httptest.Server
	token  string
	reg    *prometheus.Registry
	asker  *evacuation.Asker

	mu     sync.Mutex
	answer http.HandlerFunc
	calls  []call
	notes  []string
	log    bytes.Buffer
}

func (w *world) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.log.Write(p)
}

func (w *world) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	b, _ := io.ReadAll(r.Body)
	w.mu.Lock()
	w.calls = append(w.calls, call{r.Header.Get("Authorization"), string(b)})
	answer := w.answer
	w.mu.Unlock()
	answer(rw, r)
}

func (w *world) answers(f http.HandlerFunc) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.answer = f
}

func says(status int, outcome string) http.HandlerFunc {
	return func(rw http.ResponseWriter, _ *http.Request) {
		rw.WriteHeader(status)
		fmt.Fprintf(rw, `{"outcome":%q,"message":"because"}`, outcome)
	}
}

func certificate(s *httptest.Server) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))
}

// start runs an Asker until the test ends; change makes its configuration another.
func start(t *testing.T, change func(*world, *evacuation.Config)) *world {
	t.Helper()
	w := &world{t: t, reg: prometheus.NewRegistry(), token: filepath.Join(t.TempDir(), "token"), answer: says(http.StatusOK, "evicted")}
	w.server = httptest.NewTLSServer(w)
	t.Cleanup(w.server.Close)
	w.server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	w.write("first")
	cfg := evacuation.Config{
		URL: w.server.URL + "/v1/evacuations", CA: certificate(w.server), TokenFile: w.token, Interval: 5 * time.Millisecond,
		Log: slog.New(slog.NewTextHandler(w, nil)), Registerer: w.reg,
		Note: func(event string, attrs ...any) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.notes = append(w.notes, strings.TrimSpace(fmt.Sprintln(append([]any{event}, attrs...)...)))
		},
	}
	if change != nil {
		change(w, &cfg)
	}
	var err error
	if w.asker, err = evacuation.New(cfg); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.asker.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v", err)
		}
	})
	return w
}

func (w *world) write(token string) {
	w.t.Helper()
	if err := os.WriteFile(w.token, []byte(token+"\n"), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.calls)
}

func (w *world) asked(token string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.ContainsFunc(w.calls, func(c call) bool { return c.token == token })
}

func (w *world) noted(text string) (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.notes {
		if strings.Contains(s, text) {
			n++
		}
	}
	return n
}

func (w *world) said(text string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.Count(w.log.String(), text)
}

func (w *world) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return fmt.Sprintf("notes: %q\n%s", w.notes, w.log.String())
}

func (w *world) wait(what string, ok func() bool) {
	w.t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); {
		if time.Now().After(end) {
			w.t.Fatalf("%s: not within 20 s: %s", what, w)
		}
		time.Sleep(time.Millisecond)
	}
}

func (w *world) calledAgain(n int) {
	w.t.Helper()
	want := w.count() + n
	w.wait("further calls", func() bool { return w.count() >= want })
}

func TestItAsksUntilTheNoticeIsWithdrawn(t *testing.T) {
	w := start(t, nil)
	w.asker.Announce(time.Time{}, "i-1")
	if n := w.count(); n != 0 {
		t.Fatalf("%d calls without a notice", n)
	}
	w.asker.Announce(release, "i-1")
	w.calledAgain(3)
	w.mu.Lock()
	first := w.calls[0]
	w.mu.Unlock()
	var body map[string]any
	if err := json.Unmarshal([]byte(first.body), &body); err != nil || first.token != "Bearer first" || body["release_at"] != "2026-04-07T17:03:00Z" || body["instance"] != "i-1" {
		t.Errorf("it asks %q as %q", first.body, first.token)
	}
	w.asker.Announce(time.Time{}, "i-1")
	w.wait("silence", func() bool {
		before := w.count()
		time.Sleep(50 * time.Millisecond)
		return w.count() == before
	})
	if w.noted("evacuation_asked") != 1 || w.noted("evacuation_answered") != 1 {
		t.Errorf("notes: %q", w.notes)
	}
	w.asker.Announce(release, "i-1")
	w.calledAgain(1)
	if w.noted("evacuation_asked") != 2 {
		t.Errorf("a notice that came back: %q", w.notes)
	}
}

func TestTheTokenIsReadEachTime(t *testing.T) {
	w := start(t, nil)
	w.asker.Announce(release, "")
	w.calledAgain(1)
	w.write("second")
	w.wait("the new token", func() bool { return w.asked("Bearer second") })
	if err := os.Remove(w.token); err != nil {
		t.Fatal(err)
	}
	w.wait("a failure that names the file", func() bool { return w.noted("evacuation_failed") == 1 && w.said(w.token) > 0 })
	w.write("third")
	w.wait("recovery", func() bool { return w.said("is answered again") == 1 })
	if w.said("first") != 0 || w.noted("second") != 0 {
		t.Error("a token was written down")
	}
}

func TestAnswersAreJournalledWhenTheyChange(t *testing.T) {
	w := start(t, nil)
	w.answers(says(http.StatusAccepted, "waiting"))
	w.asker.Announce(release, "")
	w.calledAgain(3)
	w.answers(says(http.StatusOK, "evicted"))
	w.wait("evicted", func() bool { return w.noted("evicted") == 1 })
	w.answers(says(http.StatusForbidden, "not_spot"))
	w.wait("not_spot", func() bool { return w.noted("not_spot") == 1 && w.said("not moved away") == 1 })
	w.calledAgain(2)
	if w.noted("evacuation_answered") != 3 || w.noted("evacuation_failed") != 0 {
		t.Errorf("notes: %q", w.notes)
	}
}

// The taint and the eviction are two things, and either may come later than the other.
func TestTheTaintIsJournalled(t *testing.T) {
	w := start(t, nil)
	answer := func(tainted bool) http.HandlerFunc {
		return func(rw http.ResponseWriter, _ *http.Request) {
			fmt.Fprintf(rw, `{"outcome":"evicted","message":"because","node":"n1","tainted":%t,"grace_seconds":30}`, tainted)
		}
	}
	w.answers(answer(false))
	w.asker.Announce(release, "")
	w.wait("a node without the taint", func() bool { return w.noted("node n1 tainted false grace_seconds 30") == 1 })
	w.answers(answer(true))
	w.wait("the taint", func() bool { return w.noted("node n1 tainted true") == 1 })
	w.calledAgain(2)
	if w.noted("evacuation_answered") != 2 {
		t.Errorf("notes: %q", w.notes)
	}
}

// Nothing that a server does may do more than a line in the log, at a limited rate.
func TestBadAnswersDisturbNothing(t *testing.T) {
	elsewhere := 0
	other := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere++ }))
	defer other.Close()
	for name, answer := range map[string]http.HandlerFunc{
		"garbage":      func(rw http.ResponseWriter, _ *http.Request) { fmt.Fprint(rw, "<html>") },
		"nothing":      func(http.ResponseWriter, *http.Request) {},
		"another JSON": func(rw http.ResponseWriter, _ *http.Request) { fmt.Fprint(rw, `{"outcome":7}`) },
		"503":          says(http.StatusServiceUnavailable, "unknown"),
		"429":          says(http.StatusTooManyRequests, "too_many"),
		"redirection": func(rw http.ResponseWriter, r *http.Request) {
			http.Redirect(rw, r, other.URL, http.StatusTemporaryRedirect)
		},
		"without end": func(rw http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				if _, err := rw.Write(bytes.Repeat([]byte(" "), 1<<16)); err != nil {
					return
				}
			}
		},
		"hangs": func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"breaks off": func(http.ResponseWriter, *http.Request) {
			panic(http.ErrAbortHandler)
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := start(t, func(_ *world, c *evacuation.Config) { c.Timeout = 100 * time.Millisecond })
			w.answers(answer)
			w.asker.Announce(release, "")
			w.wait("more than one try", func() bool { return w.failures() >= 3 })
			if n := w.said("cannot be asked for"); n != 1 || w.noted("evacuation_failed") != 1 || w.noted("evacuation_answered") != 0 {
				t.Errorf("%d lines, notes %q", n, w.notes)
			}
			w.answers(says(http.StatusOK, "evicted"))
			w.wait("recovery", func() bool { return w.noted("evicted") == 1 })
		})
	}
	if elsewhere != 0 {
		t.Errorf("a redirection was followed %d times", elsewhere)
	}
}

// failures is the counter of failed calls.
func (w *world) failures() float64 {
	families, err := w.reg.Gather()
	if err != nil {
		w.t.Error(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if m.GetLabel()[0].GetValue() == "failed" {
				return m.GetCounter().GetValue()
			}
		}
	}
	return 0
}

func TestOnlyTheGivenAuthorityIsBelieved(t *testing.T) {
	w := start(t, func(_ *world, c *evacuation.Config) { c.CA = foreignCA })
	w.asker.Announce(release, "")
	w.wait("refusal of the certificate", func() bool { return w.said("certificate") > 0 })
	if n := w.count(); n != 0 {
		t.Errorf("the token was sent %d times to a server that nobody vouches for", n)
	}
}

func TestTheEnvironmentsProxyIsNotUsed(t *testing.T) {
	asked := make(chan struct{}, 100)
	proxy := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked <- struct{}{} }))
	defer proxy.Close()
	t.Setenv("HTTPS_PROXY", proxy.URL)
	t.Setenv("https_proxy", proxy.URL)
	// Loopback addresses never go through a proxy, so this one has a name.
	w := start(t, func(_ *world, c *evacuation.Config) { c.URL = "https://outrider-webhook.invalid/v1/evacuations" })
	w.asker.Announce(release, "")
	w.wait("failure", func() bool { return w.noted("evacuation_failed") == 1 })
	if len(asked) != 0 {
		t.Error("the proxy of the environment was asked")
	}
}

func TestConfigurationIsChecked(t *testing.T) {
	good := evacuation.Config{URL: "https://a/v1/evacuations", CA: foreignCA, TokenFile: "/token"}
	for text, change := range map[string]func(*evacuation.Config){
		"":                          func(*evacuation.Config) {},
		`"http://a": expected http`: func(c *evacuation.Config) { c.URL = "http://a" },
		"no certificate":            func(c *evacuation.Config) { c.CA = "" },
		"no certificate in PEM":     func(c *evacuation.Config) { c.CA = "-----BEGIN CERTIFICATE-----\n" },
		"no file":                   func(c *evacuation.Config) { c.TokenFile = "" },
	} {
		c := good
		change(&c)
		_, err := evacuation.New(c)
		if text == "" && err != nil || text != "" && (err == nil || !strings.Contains(err.Error(), text)) {
			t.Errorf("%v, want %q", err, text)
		}
	}
}

// foreignCA has signed nothing here.
const foreignCA = `-----BEGIN CERTIFICATE-----
MIIBfTCCASOgAwIBAgIULVe9JIp9VM4cglWG47TBSLEoWkYwCgYIKoZIzj0EAwIw
EzERMA8GA1UEAwwIc3RyYW5nZXIwIBcNMjYxMTIzMDkxNzQ3WhgPMjEyNjEwMzAw
OTE3NDdaMBMxETAPBgNVBAMMCHN0cmFuZ2VyMFkwEwYHKoZIzj0CAQYIKoZIzj0D
AQcDQgAEk6PbOiR15UICy5XS7uNlOJKRH3aQ2juKb1x5Lr8niHm4GTONgNg02qLO
wZaaZj7oDZc/9ir7JCpaiZ7ix5JKNKNTMFEwHQYDVR0OBBYEFJWrTGy7MsIiNZ54
2W0xNusgR8tjMB8GA1UdIwQYMBaAFJWrTGy7MsIiNZ542W0xNusgR8tjMA8GA1Ud
EwEB/wQFMAMBAf8wCgYIKoZIzj0EAwIDSAAwRQIgBPkIX8OIOl7fgtUXUN7B0XNq
BAUdwDW3WUEIQQgOJIECIQCoWNhG/4WKw/Ls9bcw/K97+jbsNg2yjJghiDOa0ll+
Zw==
-----END CERTIFICATE-----`
