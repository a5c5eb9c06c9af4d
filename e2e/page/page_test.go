// Package page looks at the status page of a real sidecar with a real browser.
package page

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/net/html"

	"outrider.dev/e2e/world"
)

var programs *world.Programs

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(world.Run(m, func(p *world.Programs) { programs = p }))
}

// A browser shows that a database under load is protected, draws how fresh its archive is, goes on asking, and has
// nothing to complain about. When the sidecar does not answer any more, the page says so instead of what it knew.
func TestStatusPageInABrowser(t *testing.T) {
	browser := requireBrowser(t)
	w := world.New(t, programs, 1)
	p := w.Database("primary")
	o := w.Protect(p)
	stop := w.Load(p)
	w.Until("a plot", func(ctx context.Context) bool { return points(t, get(ctx, t, o.URL)) >= 4 })

	dom, said := browse(t, browser, o.URL+"/status", "--dump-dom")
	if said != "" {
		t.Errorf("the console has: %s", said)
	}
	if h := heading(t, dom); h != "Protected" {
		t.Errorf("the page says %q", h)
	}
	if points(t, dom) < 4 || !regexp.MustCompile(`<path class="line" d="M[0-9]`).MatchString(dom) {
		t.Errorf("nothing is drawn: %s", dom)
	}
	if !strings.Contains(dom, "base_") || !strings.Contains(dom, `<circle class="full"`) {
		t.Error("the snapshot is not there")
	}
	if n, _ := strconv.Atoi(attribute(dom, "data-updates")); n < 1 {
		t.Error("the page did not ask again")
	}
	pictures(t, browser, o.URL+"/status")

	front := onceOnly(t, o.URL)
	dom, _ = browse(t, browser, front+"/status", "--dump-dom") // that the answer is missed stands in the console
	if attribute(dom, "data-stale") != "yes" || !strings.Contains(dom, "No answer since ") {
		t.Errorf("the page does not tell that it is stale: %.300s", dom)
	}
	stop()
	w.Finish(o)
}

// requireBrowser is the path of Chromium. Without it the test is skipped, or fails when the environment variable CI is set.
func requireBrowser(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil && os.Getenv("CI") != "" {
		t.Fatalf("%v: .ci/setup test installs it", err)
	}
	if err != nil {
		t.Skipf("%v: .ci/setup test installs it", err)
	}
	return path
}

// browse opens a page, lets its script run for seconds that are not waited for, and returns what Chromium prints and
// what is in its console.
func browse(t *testing.T, browser, address string, args ...string) (out, console string) {
	t.Helper()
	profile := t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), world.Long)
	defer cancel()
	c := exec.CommandContext(ctx, browser, append([]string{
		"--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
		"--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--hide-scrollbars", "--no-proxy-server",
		"--user-data-dir=" + profile, "--virtual-time-budget=7000", "--enable-logging=stderr",
	}, append(args, address)...)...)
	c.Env = append(os.Environ(), "HOME="+profile)
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	c.Cancel = func() error { return syscall.Kill(-c.Process.Pid, syscall.SIGKILL) }
	var stdout, stderr bytes.Buffer
	c.Stdout, c.Stderr = &stdout, &stderr
	err := c.Run()
	if c.Process != nil {
		_ = syscall.Kill(-c.Process.Pid, syscall.SIGKILL) // what it may have left; mostly there is nothing
	}
	if err != nil {
		t.Fatalf("chromium: %v: %s", err, stderr.String())
	}
	for line := range strings.Lines(stderr.String()) {
		if strings.Contains(line, ":CONSOLE") {
			console += line
		}
	}
	return stdout.String(), console
}

// pictures takes some for people, in a directory that OUTRIDER_PICTURES names.
func pictures(t *testing.T, browser, address string) {
	t.Helper()
	dir := os.Getenv("OUTRIDER_PICTURES")
	if dir == "" {
		return
	}
	for name, size := range map[string]string{"wide": "1100,1900", "narrow": "500,2400"} {
		browse(t, browser, address, "--window-size="+size, "--screenshot="+filepath.Join(dir, name+".png"))
	}
	browse(t, browser, address, "--window-size=1100,1900", "--blink-settings=preferredColorScheme=0", "--screenshot="+filepath.Join(dir, "dark.png"))
}

// onceOnly passes on one question to a sidecar, and has no answer to any other.
func onceOnly(t *testing.T, sidecar string) string {
	t.Helper()
	to, err := url.Parse(sidecar)
	world.Must(t, err)
	var asked atomic.Int64
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(to) }}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if asked.Add(1) > 1 {
			http.Error(w, "gone", http.StatusBadGateway)
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	return s.URL
}

func get(ctx context.Context, t *testing.T, sidecar string) string {
	t.Helper()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, sidecar+"/status", nil)
	world.Must(t, err)
	r.Header.Set("Accept", "text/html")
	a, err := http.DefaultClient.Do(r)
	world.Must(t, err)
	defer a.Body.Close()
	b, err := io.ReadAll(a.Body)
	world.Must(t, err)
	return string(b)
}

// points is how many are in the plot.
func points(t *testing.T, dom string) int {
	t.Helper()
	n, err := strconv.Atoi(attribute(dom, "data-points"))
	world.Must(t, err)
	return n
}

func attribute(dom, name string) string {
	m := regexp.MustCompile(name + `="([^"]*)"`).FindStringSubmatch(dom)
	if m == nil {
		return ""
	}
	return m[1]
}

// heading is the text of the only h1.
func heading(t *testing.T, dom string) string {
	t.Helper()
	n, err := html.Parse(strings.NewReader(dom))
	world.Must(t, err)
	var found []string
	for n := range n.Descendants() {
		if n.Type == html.ElementNode && n.Data == "h1" {
			var text strings.Builder
			for n := range n.Descendants() {
				if n.Type == html.TextNode {
					fmt.Fprint(&text, n.Data)
				}
			}
			found = append(found, strings.TrimSpace(text.String()))
		}
	}
	if len(found) != 1 {
		t.Fatalf("%d headings: %q", len(found), found)
	}
	return found[0]
}
