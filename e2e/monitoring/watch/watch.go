// Package watch is a real Prometheus with the project's rules that looks on while something happens.
package watch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"outrider.dev/e2e/stage"
)

// Prometheus scrapes each second, and its rules are in haste: what waits for hours waits for seconds.
type Prometheus struct {
	t     testing.TB
	dir   string
	url   string
	cmd   *exec.Cmd
	begun time.Time
	pods  string // the file that tells of all pods, empty where targets are named one by one

	mu      sync.Mutex
	targets map[string]string // "namespace/pod" to address
	budget  string
}

// inHaste makes rules that wait for hours and minutes wait for seconds, and shrinks what has to go wrong.
func inHaste(rules string) string {
	for from, to := range map[string]string{
		`for: \d+[mh]`:                 "for: 2s",
		`\[1d\]`:                       "[1m]",
		`clamp_min\(20 \* (\w+), 60\)`: "clamp_min(3 * $1, 3)",
		`< 4 \* 3600`:                  "< 1e12",
		`\[6h\]\) > 1`:                 "[30s]) > 0",
		`\[6h\]`:                       "[30s]",
		// A minute after drills were first asked for, or one was passed, where the policy allows an hour.
		`outrider_drill_due_timestamp_seconds > 0`: "outrider_drill_due_timestamp_seconds > -3540",
	} {
		rules = regexp.MustCompile(from).ReplaceAllString(rules, to)
	}
	return rules
}

// Repository is the top of the source tree that the test runs in.
func Repository(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	must(t, err)
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		if dir == filepath.Dir(dir) {
			t.Fatal("there is no go.mod above the working directory")
		}
		dir = filepath.Dir(dir)
	}
}

// Tool finds a program of Prometheus.
func Tool(t testing.TB, name string) string {
	t.Helper()
	path := filepath.Join(Repository(t), ".cache", "prometheus", name)
	if _, err := os.Stat(path); err == nil {
		return path
	}
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("%v: run .ci/setup", err)
	}
	return path
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Start starts a Prometheus that is gone after the test. It scrapes what it is told to.
func Start(t testing.TB) *Prometheus {
	t.Helper()
	return start(t, "")
}

// StartAmong is Start, but that manifests/monitoring chooses what to scrape, among the pods that a file tells of: see Among.
func StartAmong(t testing.TB, pods string) *Prometheus {
	t.Helper()
	return start(t, pods)
}

func start(t testing.TB, pods string) *Prometheus {
	t.Helper()
	p := &Prometheus{t: t, dir: t.TempDir(), begun: time.Now(), pods: pods, targets: map[string]string{}, budget: "1000"}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	address := l.Addr().String()
	must(t, l.Close())
	p.url = "http://" + address
	p.configure()
	p.cmd = exec.Command(Tool(t, "prometheus"), "--config.file="+filepath.Join(p.dir, "prometheus.yml"), "--web.listen-address="+address,
		"--storage.tsdb.path="+filepath.Join(p.dir, "data"), "--log.level=warn")
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var log strings.Builder
	p.cmd.Stdout, p.cmd.Stderr = &log, &log
	started, ended := make(chan error), make(chan struct{})
	go func() {
		defer close(ended)
		runtime.LockOSThread() // the signal at our death comes when this thread ends
		err := p.cmd.Start()
		started <- err
		if err == nil {
			_ = p.cmd.Wait() // it ends by a signal
		}
	}()
	must(t, <-started)
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill() // it may have ended by itself
		<-ended
		if t.Failed() {
			t.Logf("Prometheus said: %s", log.String())
		}
	})
	p.Until("Prometheus is ready", func(ctx context.Context) bool {
		_, err := p.get(ctx, "/-/ready", nil)
		return err == nil
	})
	return p
}

// configure writes the configuration and the rules, and has them read if Prometheus runs.
func (p *Prometheus) configure() {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	scrape := p.named()
	if p.pods != "" {
		scrape = Among(p.t, p.pods, "scrape_interval: 15s", "scrape_interval: 1s\n  evaluation_interval: 1s", "scrape_timeout: 5s", "scrape_timeout: 1s")
	}
	rules := func(name string) string {
		raw, err := os.ReadFile(filepath.Join(Repository(p.t), "manifests", "monitoring", name))
		must(p.t, err)
		return inHaste(string(raw))
	}
	costs := strings.ReplaceAll(rules("costs.yaml"), "vector(1000)", "vector("+p.budget+")")
	for name, text := range map[string]string{"prometheus.yml": scrape, "rules.yaml": rules("rules.yaml"), "costs.yaml": costs} {
		must(p.t, os.WriteFile(filepath.Join(p.dir, name), []byte(text), 0o600))
	}
	if p.cmd != nil {
		must(p.t, p.cmd.Process.Signal(syscall.SIGHUP))
	}
}

// named is the configuration that scrapes the targets one by one.
func (p *Prometheus) named() string {
	var b strings.Builder
	b.WriteString("global: {scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}\nrule_files: [rules.yaml, costs.yaml]\nscrape_configs:\n- job_name: outrider\n  static_configs: []\n")
	for name, address := range p.targets {
		namespace, pod, _ := strings.Cut(name, "/")
		// As in prometheus.yaml: the webhook tells of other namespaces than its own.
		fmt.Fprintf(&b, "- job_name: %s\n  honor_labels: %v\n  static_configs: [{targets: ['%s'], labels: {namespace: %s, pod: %s}}]\n",
			name, namespace == "outrider-system", address, namespace, pod)
	}
	return b.String()
}

// Scrape adds a target, or moves it: name is its namespace and pod, with a slash between them.
func (p *Prometheus) Scrape(name, url string) {
	p.t.Helper()
	p.mu.Lock()
	p.targets[name] = strings.TrimPrefix(url, "http://")
	p.mu.Unlock()
	p.configure()
}

// Spend sets the budget of a month.
func (p *Prometheus) Spend(budget string) {
	p.t.Helper()
	p.mu.Lock()
	p.budget = budget
	p.mu.Unlock()
	p.configure()
}

func (p *Prometheus) get(ctx context.Context, path string, query url.Values) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, p.url+path+"?"+query.Encode(), nil)
	if err != nil {
		return nil, err
	}
	a, err := (&http.Client{Timeout: time.Minute}).Do(r)
	if err != nil {
		return nil, err
	}
	defer a.Body.Close()
	b, err := io.ReadAll(a.Body)
	if err == nil && a.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %s", path, a.Status, b)
	}
	return b, err
}

// Series is one result of a query.
type Series struct {
	Labels map[string]string   `json:"metric"`
	Value  [2]json.RawMessage  `json:"value"`
	Values [][]json.RawMessage `json:"values"`
}

func (p *Prometheus) ask(path string, query url.Values) []Series {
	p.t.Helper()
	b, err := p.get(p.t.Context(), path, query)
	if err != nil {
		p.t.Fatalf("%v: %v", query, err)
	}
	var a struct{ Data struct{ Result []Series } }
	if err := json.Unmarshal(b, &a); err != nil {
		p.t.Fatalf("%v: %v: %s", query, err, b)
	}
	return a.Data.Result
}

// Now runs a query.
func (p *Prometheus) Now(expr string) []Series {
	p.t.Helper()
	return p.ask("/api/v1/query", url.Values{"query": {expr}})
}

// Ever runs a query over all the time since Prometheus was started.
func (p *Prometheus) Ever(expr string) []Series {
	p.t.Helper()
	unix := func(at time.Time) string { return fmt.Sprint(at.Unix()) }
	// Whole seconds: up to the next one, or what has just happened would be missing.
	end := time.Now().Add(time.Second)
	return p.ask("/api/v1/query_range", url.Values{"query": {expr}, "start": {unix(p.begun)}, "end": {unix(end)}, "step": {"1"}})
}

// Patience is how long anything is waited for.
const Patience = 3 * time.Minute

// Until waits until ask says yes.
func (p *Prometheus) Until(what string, ask func(ctx context.Context) bool) {
	p.t.Helper()
	ctx, cancel := context.WithTimeoutCause(p.t.Context(), Patience, errors.New("it does not happen"))
	defer cancel()
	err := stage.Until(ctx, what, func() (bool, error) { return ask(ctx), nil })
	if err != nil {
		p.t.Fatalf("%v; firing are %v", err, p.Now(`ALERTS{alertstate="firing"}`))
	}
}

// Fires waits until an alert fires, with these labels if any are given: severity="warning".
func (p *Prometheus) Fires(alert string, labels ...string) {
	p.t.Helper()
	p.Until(alert+" fires", func(context.Context) bool { return p.Firing(alert, labels...) })
}

// Resolves waits until alerts fire no more.
func (p *Prometheus) Resolves(alerts ...string) {
	p.t.Helper()
	for _, a := range alerts {
		p.Until(a+" resolves", func(context.Context) bool { return !p.Firing(a) })
	}
}

// ResolvesIn is Resolves for one namespace, where others have reasons of their own for the same alerts.
func (p *Prometheus) ResolvesIn(namespace string, alerts ...string) {
	p.t.Helper()
	for _, a := range alerts {
		p.Until(a+" resolves in "+namespace, func(context.Context) bool { return !p.Firing(a, `namespace="`+namespace+`"`) })
	}
}

// Firing tells whether an alert fires, with these labels if any are given.
func (p *Prometheus) Firing(alert string, labels ...string) bool {
	p.t.Helper()
	labels = append([]string{`alertstate="firing"`, `alertname="` + alert + `"`}, labels...)
	return len(p.Now("ALERTS{"+strings.Join(labels, ",")+"}")) > 0
}
