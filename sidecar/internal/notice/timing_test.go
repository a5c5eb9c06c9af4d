package notice_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"outrider.dev/sidecar/internal/notice"
)

// host is a metadata service without a network, for fake time.
type host struct {
	mu       sync.Mutex
	broken   bool
	foreign  bool        // another web server has taken the address
	redirect bool        // the question is sent elsewhere, where there is an answer
	endless  bool        // of the tokens
	tokens   []time.Time // when one was asked for
	gets     []time.Time
	accepted map[string]bool // tokens seen with questions
}

func (h *host) RoundTrip(r *http.Request) (*http.Response, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.broken {
		return nil, errors.New("no route to host")
	}
	status, body := 404, "not found"
	switch {
	case r.Method == http.MethodPut:
		if ttl := r.Header.Get("X-aliyun-ecs-metadata-token-ttl-seconds"); ttl != "21600" {
			return nil, errors.New("ttl " + ttl)
		}
		h.tokens = append(h.tokens, time.Now())
		status, body = 200, "token-"+string(rune('a'+len(h.tokens)))
		if h.endless {
			body = strings.Repeat("x", 10_000)
		}
	case h.foreign:
	case r.URL.Host == "elsewhere":
		status, body = 200, "2026-04-07T17:03:00Z"
	case h.redirect:
		status = 302
	case strings.HasSuffix(r.URL.Path, "/instance-id"):
		status, body = 200, "i-fake"
	default:
		h.gets = append(h.gets, time.Now())
		h.accepted[r.Header.Get("X-aliyun-ecs-metadata-token")] = true
	}
	header := http.Header{"Location": {"http://elsewhere/"}}
	return &http.Response{StatusCode: status, Header: header, Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
}

func (h *host) set(broken bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.broken = broken
}

// inBubble runs a Watcher with its defaults in fake time.
func inBubble(t *testing.T, test func(h *host, w *watch)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		h := &host{accepted: map[string]bool{}}
		test(h, start(t, notice.Config{HTTPClient: &http.Client{Transport: h}}))
	})
}

func TestAskedEveryFewSeconds(t *testing.T) {
	inBubble(t, func(h *host, _ *watch) {
		time.Sleep(time.Hour)
		h.mu.Lock()
		defer h.mu.Unlock()
		even := true
		for i := range h.gets[1:] {
			gap := h.gets[i+1].Sub(h.gets[i])
			if gap < 4500*time.Millisecond || gap > 5500*time.Millisecond {
				t.Errorf("two questions are %v apart", gap)
			}
			even = even && gap == 5*time.Second
		}
		if n := len(h.gets); n < 690 || n > 750 || even {
			t.Errorf("%d questions in an hour, all at the same distance: %v", n, even)
		}
	})
}

func TestTokensAreRenewedBeforeTheyEnd(t *testing.T) {
	inBubble(t, func(h *host, w *watch) {
		time.Sleep(24 * time.Hour)
		h.mu.Lock()
		defer h.mu.Unlock()
		if n := len(h.tokens); n < 5 || n > 6 {
			t.Errorf("%d tokens in a day", n)
		}
		for i := range h.tokens[1:] {
			if gap := h.tokens[i+1].Sub(h.tokens[i]); gap >= 6*time.Hour {
				t.Errorf("a token was used for %v", gap)
			}
		}
		if h.accepted[""] || len(h.accepted) != len(h.tokens) {
			t.Errorf("tokens sent: %v", h.accepted)
		}
		if n, _ := w.gauge("outrider_metadata_errors_total"); n > 0 {
			t.Errorf("%v errors", n)
		}
	})
}

func TestNotFoundIsNotBelievedForLong(t *testing.T) {
	inBubble(t, func(h *host, w *watch) {
		time.Sleep(time.Hour)
		h.mu.Lock()
		h.foreign = true
		h.mu.Unlock()
		time.Sleep(70 * time.Second)
		if !w.down() {
			t.Error("a server that says not found to everything counts as no notice")
		}
	})
}

func TestAnyoneMayAnswerAfterAnOutage(t *testing.T) {
	inBubble(t, func(h *host, w *watch) {
		time.Sleep(90 * time.Second)
		h.set(true)
		time.Sleep(10 * time.Second)
		h.mu.Lock()
		h.broken, h.foreign = false, true
		h.mu.Unlock()
		time.Sleep(10 * time.Second)
		if !w.down() {
			t.Error("whoever answered first after an outage was believed")
		}
	})
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	inBubble(t, func(h *host, w *watch) {
		time.Sleep(time.Minute)
		h.mu.Lock()
		h.redirect = true
		h.mu.Unlock()
		time.Sleep(time.Minute)
		w.want()
		if !w.down() {
			t.Error("a redirect counts as an answer")
		}
	})
}

func TestGarbageIsNoToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &host{accepted: map[string]bool{}, endless: true}
		w := start(t, notice.Config{HTTPClient: &http.Client{Transport: h}})
		time.Sleep(time.Minute)
		h.mu.Lock()
		defer h.mu.Unlock()
		if !w.up() || len(h.accepted) != 1 || !h.accepted[""] {
			t.Errorf("up %v, %d tokens sent", w.up(), len(h.accepted))
		}
	})
}

func TestNothingIsKnownBeforeAnythingWasAsked(t *testing.T) {
	w := &watch{t: t, reg: prometheus.NewRegistry()}
	notice.New(notice.Config{Registerer: w.reg})
	if v, known := w.gauge("outrider_metadata_errors_total"); !known || v != 0 {
		t.Errorf("%v errors, known %v", v, known)
	}
	if v, known := w.gauge("outrider_metadata_up"); known {
		t.Errorf("outrider_metadata_up is %v", v)
	}
}

func TestErrorsAreLoggedOnceAMinuteAndRecoveryOnce(t *testing.T) {
	inBubble(t, func(h *host, w *watch) {
		time.Sleep(time.Minute)
		h.set(true)
		time.Sleep(10 * time.Minute)
		if !w.down() {
			t.Error("outrider_metadata_up is not 0")
		}
		h.set(false)
		time.Sleep(10 * time.Minute)
		w.mu.Lock()
		text := w.log.String()
		w.mu.Unlock()
		if n := strings.Count(text, "it is unknown"); n < 9 || n > 11 {
			t.Errorf("%d lines about 10 minutes of errors", n)
		}
		if !strings.Contains(text, "count=12") && !strings.Contains(text, "count=13") {
			t.Errorf("no line counts a minute of errors:\n%s", text)
		}
		if n := strings.Count(text, "recovered"); n != 1 {
			t.Errorf("%d lines about the recovery", n)
		}
	})
}

func TestFlappingDoesNotFillTheLog(t *testing.T) {
	inBubble(t, func(h *host, w *watch) {
		for i := range 200 {
			h.set(i%2 == 0)
			time.Sleep(6 * time.Second)
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		if n := strings.Count(w.log.String(), "\n"); n > 2*21 {
			t.Errorf("%d lines in 20 minutes", n)
		}
	})
}

func TestRunEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 12*time.Second)
		defer cancel()
		h := &host{accepted: map[string]bool{}}
		if err := notice.New(notice.Config{HTTPClient: &http.Client{Transport: h}}).Run(ctx, nil); err != nil {
			t.Errorf("Run = %v", err)
		}
		if took := len(h.gets); took != 3 {
			t.Errorf("%d questions in 12 s", took)
		}
	})
}
