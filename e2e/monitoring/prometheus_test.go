package monitoring_test

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
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"outrider.dev/e2e/stage"
)

// prometheus is a real one that scrapes each second.
type prometheus struct {
	t     *testing.T
	dir   string
	url   string
	proc  *stage.Process
	begun time.Time

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
	} {
		rules = regexp.MustCompile(from).ReplaceAllString(rules, to)
	}
	return rules
}

func startPrometheus(t *testing.T, s *stage.Stage) *prometheus {
	t.Helper()
	// Below the stage, which ends all its processes before it removes what they write.
	p := &prometheus{t: t, dir: filepath.Join(s.Dir, "prometheus"), begun: time.Now(), targets: map[string]string{}, budget: "1000"}
	must(t, os.Mkdir(p.dir, 0o700))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	address := l.Addr().String()
	must(t, l.Close())
	p.url = "http://" + address
	p.configure()
	cmd := s.Command(tool(t, "prometheus"), "--config.file="+filepath.Join(p.dir, "prometheus.yml"), "--web.listen-address="+address,
		"--storage.tsdb.path="+filepath.Join(p.dir, "data"), "--log.level=warn")
	cmd.SysProcAttr.Credential = nil // its files are ours
	if p.proc, err = s.Start("prometheus", cmd); err != nil {
		t.Fatal(err)
	}
	p.until("Prometheus is ready", func(ctx context.Context) bool {
		_, err := p.get(ctx, "/-/ready", nil)
		return err == nil
	})
	return p
}

// configure writes the configuration and the rules, and has them read if Prometheus runs.
func (p *prometheus) configure() {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	var b strings.Builder
	b.WriteString("global: {scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}\nrule_files: [rules.yaml, costs.yaml]\nscrape_configs:\n- job_name: outrider\n  static_configs: []\n")
	for name, address := range p.targets {
		namespace, pod, _ := strings.Cut(name, "/")
		fmt.Fprintf(&b, "- job_name: %s\n  static_configs: [{targets: ['%s'], labels: {namespace: %s, pod: %s}}]\n", name, address, namespace, pod)
	}
	costs := strings.ReplaceAll(inHaste(string(read(p.t, costsFile))), "vector(1000)", "vector("+p.budget+")")
	for name, text := range map[string]string{
		"prometheus.yml": b.String(), "rules.yaml": inHaste(string(read(p.t, rulesFile))), "costs.yaml": costs,
	} {
		if err := os.WriteFile(filepath.Join(p.dir, name), []byte(text), 0o600); err != nil {
			p.t.Fatal(err)
		}
	}
	if p.proc != nil {
		if err := p.proc.Signal(syscall.SIGHUP); err != nil {
			p.t.Fatal(err)
		}
	}
}

// scrape adds a target.
func (p *prometheus) scrape(name, url string) {
	p.t.Helper()
	p.mu.Lock()
	p.targets[name] = strings.TrimPrefix(url, "http://")
	p.mu.Unlock()
	p.configure()
}

func (p *prometheus) spend(budget string) {
	p.t.Helper()
	p.mu.Lock()
	p.budget = budget
	p.mu.Unlock()
	p.configure()
}

func (p *prometheus) get(ctx context.Context, path string, query url.Values) ([]byte, error) {
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

// series is one result of a query.
type series struct {
	Labels map[string]string   `json:"metric"`
	Value  [2]json.RawMessage  `json:"value"`
	Values [][]json.RawMessage `json:"values"`
}

func (p *prometheus) ask(path string, query url.Values) []series {
	p.t.Helper()
	b, err := p.get(p.t.Context(), path, query)
	if err != nil {
		p.t.Fatalf("%v: %v", query, err)
	}
	var a struct{ Data struct{ Result []series } }
	if err := json.Unmarshal(b, &a); err != nil {
		p.t.Fatalf("%v: %v: %s", query, err, b)
	}
	return a.Data.Result
}

// now runs a query.
func (p *prometheus) now(expr string) []series {
	p.t.Helper()
	return p.ask("/api/v1/query", url.Values{"query": {expr}})
}

// ever runs a query over all the time since Prometheus was started.
func (p *prometheus) ever(expr string) []series {
	p.t.Helper()
	unix := func(at time.Time) string { return fmt.Sprint(at.Unix()) }
	return p.ask("/api/v1/query_range", url.Values{"query": {expr}, "start": {unix(p.begun)}, "end": {unix(time.Now())}, "step": {"1"}})
}

const patience = 3 * time.Minute

func (p *prometheus) until(what string, ask func(ctx context.Context) bool) {
	p.t.Helper()
	ctx, cancel := context.WithTimeoutCause(p.t.Context(), patience, errors.New("it does not happen"))
	defer cancel()
	err := stage.Until(ctx, what, func() (bool, error) { return ask(ctx), nil })
	if err != nil {
		p.t.Fatalf("%v; firing are %v", err, p.now(`ALERTS{alertstate="firing"}`))
	}
}

// fires waits until an alert fires.
func (p *prometheus) fires(alert string) {
	p.t.Helper()
	p.until(alert+" fires", func(context.Context) bool { return p.firing(alert) })
}

// resolves waits until an alert fires no more.
func (p *prometheus) resolves(alerts ...string) {
	p.t.Helper()
	for _, a := range alerts {
		p.until(a+" resolves", func(context.Context) bool { return !p.firing(a) })
	}
}

func (p *prometheus) firing(alert string) bool {
	p.t.Helper()
	return len(p.now(`ALERTS{alertstate="firing",alertname="`+alert+`"}`)) > 0
}
