package notice_test

import (
	"bytes"
	"context"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/prometheus/client_golang/prometheus"

	"outrider.dev/e2e/devcloud/devtest"
	"outrider.dev/e2e/devcloud/metadata"
	"outrider.dev/sidecar/internal/notice"
)

const instance = "i-devcloud0000000001"

var release = time.Date(2026, 4, 7, 17, 3, 0, 0, time.UTC)

// watch is a Watcher at work and all that it says.
type watch struct {
	t   *testing.T
	reg *prometheus.Registry

	mu      sync.Mutex
	log     bytes.Buffer
	notices []notice.Notice
}

// Write takes the log.
func (w *watch) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.log.Write(p)
}

// start runs a Watcher until the test ends.
func start(t *testing.T, cfg notice.Config) *watch {
	t.Helper()
	w := &watch{t: t, reg: prometheus.NewRegistry()}
	cfg.Registerer, cfg.Log = w.reg, slog.New(slog.NewTextHandler(w, nil))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- notice.New(cfg).Run(ctx, func(n notice.Notice) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.notices = append(w.notices, n)
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v", err)
		}
	})
	return w
}

func startOn(t *testing.T, c *devtest.Cloud) *watch {
	t.Helper()
	return start(t, notice.Config{BaseURL: c.MetadataURL, Interval: 10 * time.Millisecond})
}

// gauge is the value of a metric; known is false when it is absent.
func (w *watch) gauge(name string) (value float64, known bool) {
	families, err := w.reg.Gather()
	if err != nil {
		w.t.Error(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			m := f.GetMetric()[0]
			return m.GetGauge().GetValue() + m.GetCounter().GetValue(), true
		}
	}
	return 0, false
}

func (w *watch) up() bool {
	v, known := w.gauge("outrider_metadata_up")
	return known && v == 1
}

func (w *watch) down() bool {
	v, known := w.gauge("outrider_metadata_up")
	return known && v == 0
}

func (w *watch) said(text string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.Contains(w.log.String(), text)
}

// want waits for exactly these release times to have been reported.
func (w *watch) want(times ...time.Time) {
	w.t.Helper()
	var want, got []notice.Notice
	for _, at := range times {
		want = append(want, notice.Notice{At: at, Instance: instance})
	}
	same := func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		got = append([]notice.Notice(nil), w.notices...)
		return len(got) >= len(want)
	}
	w.wait("the notices", same)
	ignore := cmpopts.IgnoreFields(notice.Notice{}, "SeenAt")
	if d := cmp.Diff(want, got, ignore, cmpopts.EquateEmpty()); d != "" {
		w.t.Errorf("notices (-want +got):\n%s", d)
	}
	for _, n := range got {
		if age := time.Since(n.SeenAt); age < 0 || age > time.Hour {
			w.t.Errorf("a notice was seen at %v", n.SeenAt)
		}
	}
}

func (w *watch) wait(what string, ok func() bool) {
	w.t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); {
		if time.Now().After(end) {
			w.mu.Lock()
			text := w.log.String()
			w.mu.Unlock()
			w.t.Fatalf("%s: not within 20 s\n%s", what, text)
		}
		time.Sleep(time.Millisecond)
	}
}

// asked waits until the service was asked for a notice n more times.
func (w *watch) asked(c *devtest.Cloud, n int) {
	w.t.Helper()
	c.Metadata.ResetRequests()
	w.wait("further questions", func() bool {
		got := 0
		for path, results := range c.Metadata.Requests() {
			for _, k := range results {
				if strings.HasPrefix(path, "/latest/meta-data/") {
					got += k
				}
			}
		}
		return got >= n
	})
}

func tokens(t *testing.T, c *devtest.Cloud, mode string) {
	t.Helper()
	if err := c.Metadata.Set(metadata.Settings{HTTPTokens: mode}); err != nil {
		t.Fatal(err)
	}
}

func faults(t *testing.T, c *devtest.Cloud, f ...metadata.Fault) {
	t.Helper()
	if err := c.Metadata.SetFaults(f...); err != nil {
		t.Fatal(err)
	}
}

func TestNoticeIsReportedOnceAndWhenItChanges(t *testing.T) {
	for _, mode := range []string{metadata.TokensOff, metadata.TokensOptional, metadata.TokensRequired} {
		t.Run("tokens "+mode, func(t *testing.T) {
			c := devtest.Start(t)
			tokens(t, c, mode)
			w := startOn(t, c)
			w.wait("up", w.up)
			w.asked(c, 5)
			w.want()

			c.Metadata.SetSpotTermination(release)
			w.want(release)
			w.asked(c, 5)
			w.want(release)
			if at, _ := w.gauge("outrider_spot_release_timestamp_seconds"); int64(at) != release.Unix() {
				t.Errorf("the metric says %v", at)
			}

			later := release.Add(time.Minute)
			c.Metadata.SetSpotTermination(later)
			w.want(release, later)

			c.Metadata.SetSpotTermination(time.Time{})
			w.want(release, later, time.Time{})
			w.wait("withdrawal", func() bool { return w.said("the termination notice was withdrawn") })
			if at, known := w.gauge("outrider_spot_release_timestamp_seconds"); known {
				t.Errorf("after the withdrawal the metric says %v", at)
			}
			c.Metadata.SetSpotTermination(later)
			w.want(release, later, time.Time{}, later)
		})
	}
}

func TestTokensThatEndAreRenewed(t *testing.T) {
	c := devtest.Start(t)
	tokens(t, c, metadata.TokensRequired)
	w := startOn(t, c)
	w.wait("up", w.up)
	c.Metadata.ForgetTokens()
	w.asked(c, 5)
	c.Metadata.SetSpotTermination(release)
	w.want(release)
	if n, _ := w.gauge("outrider_metadata_errors_total"); n > 0 {
		t.Errorf("%v errors while tokens could be renewed", n)
	}
}

func TestTokensThatBecomeMandatoryAreFetched(t *testing.T) {
	c := devtest.Start(t)
	tokens(t, c, metadata.TokensOff)
	w := startOn(t, c)
	w.wait("up", w.up)
	tokens(t, c, metadata.TokensRequired)
	w.asked(c, 5)
	c.Metadata.SetSpotTermination(release)
	w.want(release)
	if n, _ := w.gauge("outrider_metadata_errors_total"); n > 0 {
		t.Errorf("%v errors while tokens could be had", n)
	}
}

// Whatever goes wrong, a notice is neither invented nor forgotten, and the next one is heard.
func TestTroubleIsNoAnswer(t *testing.T) {
	const spot = "/latest/meta-data/instance/spot"
	page := metadata.Fault{Kind: metadata.Status, Status: 200, Body: "<html>Welcome to the sandbox</html>"}
	at := func(prefix string, f metadata.Fault) metadata.Fault { f.Prefix = prefix; return f }
	notThere := metadata.Fault{Kind: metadata.Status, Status: 404, Body: "no such page"}
	cases := map[string][]metadata.Fault{
		"another web server":        {page},
		"another one says no":       {notThere},
		"errors":                    {{Kind: metadata.Status, Status: 500}},
		"throttled":                 {{Kind: metadata.Status, Status: 429}},
		"connections are cut":       {{Kind: metadata.Reset}},
		"garbage for a time":        {at(spot, page)},
		"nothing for a time":        {{Prefix: spot, Kind: metadata.Status, Status: 200}},
		"redirect":                  {{Prefix: spot, Kind: metadata.Status, Status: 302}},
		"endless answer":            {{Prefix: spot, Kind: metadata.Status, Status: 200, Body: strings.Repeat("2026-04-07T17:03:00Z\n", 1000)}},
		"garbage for an instance":   {at("/latest/meta-data/instance-id", page), at(spot, metadata.Fault{Kind: metadata.Reset, Count: 1})},
		"refused, tokens not there": {at("/latest/api/token", notThere), {Prefix: spot, Kind: metadata.Status, Status: 403}},
		"refused in spite of token": {{Prefix: spot, Kind: metadata.Status, Status: 401}},
	}
	for name, f := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := devtest.Start(t)
			c.Metadata.SetSpotTermination(release)
			w := startOn(t, c)
			w.want(release)

			faults(t, c, f...)
			c.Metadata.SetSpotTermination(time.Time{})
			w.wait("down", w.down)
			w.asked(c, 5)
			if w.said("withdrawn") {
				t.Errorf("the notice was taken for withdrawn:\n%s", &w.log)
			}
			later := release.Add(time.Hour)
			c.Metadata.SetSpotTermination(later)
			faults(t, c)
			w.want(release, later)
			w.wait("recovery", func() bool { return w.up() && w.said("recovered") })
		})
	}
}

func TestAHostThatIsNoInstanceIsUnknown(t *testing.T) {
	for _, id := range []string{"eci-2ze0123", "localhost", "<html>", "i-", "i-with blanks"} {
		t.Run(id, func(t *testing.T) {
			c := devtest.Start(t)
			faults(t, c, metadata.Fault{Prefix: "/latest/meta-data/instance-id", Kind: metadata.Status, Status: 200, Body: id})
			c.Metadata.SetSpotTermination(release)
			w := startOn(t, c)
			w.wait("down", w.down)
			w.asked(c, 5)
			w.want()
		})
	}
}

func TestTokenServiceThatHangsIsDoneWithout(t *testing.T) {
	c := devtest.Start(t)
	faults(t, c, metadata.Fault{Prefix: "/latest/api/token", Kind: metadata.Hang})
	c.Metadata.SetSpotTermination(release)
	w := startOn(t, c)
	w.want(release)
	w.asked(c, 10)
	if n := c.Metadata.Requests()["/latest/api/token"]; len(n) > 0 {
		t.Errorf("a token was asked for again at once: %v", n)
	}
}

func TestServiceThatHangsIsGivenUp(t *testing.T) {
	c := devtest.Start(t)
	w := startOn(t, c)
	w.wait("up", w.up)
	faults(t, c, metadata.Fault{Prefix: "/latest/meta-data", Kind: metadata.Hang})
	w.wait("down", w.down)
}

func TestNobodyThere(t *testing.T) {
	w := start(t, notice.Config{BaseURL: "http://127.0.0.1:1/latest/", Interval: time.Millisecond})
	w.wait("down", w.down)
	w.want()
}

func TestBadAddressIsAnError(t *testing.T) {
	for _, u := range []string{"100.100.100.200", "ftp://100.100.100.200", "http://", "http://%zz"} {
		w := notice.New(notice.Config{BaseURL: u, HTTPClient: &http.Client{Transport: nobody{t}}})
		if err := w.Run(t.Context(), nil); err == nil {
			t.Errorf("Run with %q ended without an error", u)
		}
	}
}

// nobody must not be asked.
type nobody struct{ t *testing.T }

func (n nobody) RoundTrip(r *http.Request) (*http.Response, error) {
	n.t.Errorf("%s was asked for", r.URL)
	return nil, http.ErrServerClosed
}
