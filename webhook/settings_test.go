package main

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

const goodConfig = "image: outrider:v1\npolicy: {rpo: 500ms}\n"

// newTestSettings are settings of a file that is mounted as the kubelet mounts a ConfigMap: a link to a link, of which the
// one in the middle is exchanged.
func newTestSettings(t *testing.T) (s *settings, replace func(content string), log *bytes.Buffer) {
	t.Helper()
	dir := t.TempDir()
	n := 0
	replace = func(content string) {
		t.Helper()
		n++
		version := filepath.Join(dir, "..v"+strings.Repeat("i", n))
		if err := os.Mkdir(version, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(version, "config.yaml"), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(filepath.Base(version), filepath.Join(dir, "..tmp")); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(dir, "..tmp"), filepath.Join(dir, "..data")); err != nil {
			t.Fatal(err)
		}
	}
	replace(goodConfig)
	if err := os.Symlink("..data/config.yaml", filepath.Join(dir, "config.yaml")); err != nil {
		t.Fatal(err)
	}
	log = &bytes.Buffer{}
	s, err := newSettings(filepath.Join(dir, "config.yaml"), slog.New(slog.NewTextHandler(log, nil)), nil)
	if err != nil {
		t.Fatal(err)
	}
	return s, replace, log
}

func TestConfigurationIsReadAgain(t *testing.T) {
	s, replace, log := newTestSettings(t)
	s.reload(t.Context())
	if s.get().Policy["rpo"] != "500ms" || log.Len() != 0 {
		t.Errorf("%+v; the log says %s", s.get(), log)
	}
	replace("image: outrider:v2\nlameDuck: 7s\n")
	s.reload(t.Context())
	if c := s.get(); c.Image != "outrider:v2" || time.Duration(c.LameDuck) != 7*time.Second || c.Policy["rpo"] != "" {
		t.Errorf("after a change: %+v", c)
	}
	if !strings.Contains(log.String(), "read again") || testutil.ToFloat64(s.metrics.good) != 1 {
		t.Errorf("the metric is %v, the log says %s", testutil.ToFloat64(s.metrics.good), log)
	}
}

// What is wrong is said once, and what was right stays in force.
func TestWrongConfigurationChangesNothing(t *testing.T) {
	for name, wrong := range map[string]string{
		"not YAML": "a: [\n", "unknown key": "imgae: x\n", "unknown policy": "policy: {retenton: 7d}\n", "empty image": "image: ''\n",
		"negative": "lameDuck: -5s\n", "empty": "policy: {rpo: ''}\n",
	} {
		t.Run(name, func(t *testing.T) {
			s, replace, log := newTestSettings(t)
			s.reload(t.Context())
			replace(wrong)
			for range 3 {
				s.reload(t.Context())
			}
			if c := s.get(); c.Image != "outrider:v1" || c.Policy["rpo"] != "500ms" {
				t.Errorf("in force is %+v", c)
			}
			if n := strings.Count(log.String(), "level=ERROR"); n != 1 || testutil.ToFloat64(s.metrics.good) != 0 {
				t.Errorf("%d errors are logged, the metric is %v:\n%s", n, testutil.ToFloat64(s.metrics.good), log)
			}
			replace(goodConfig + "# mended\n")
			s.reload(t.Context())
			if testutil.ToFloat64(s.metrics.good) != 1 {
				t.Error("it is not read after it was mended")
			}
		})
	}
}

func TestConfigurationThatGoesAway(t *testing.T) {
	s, replace, log := newTestSettings(t)
	if err := os.Remove(s.path); err != nil {
		t.Fatal(err)
	}
	s.reload(t.Context())
	s.reload(t.Context())
	if s.get().Image != "outrider:v1" || testutil.ToFloat64(s.metrics.good) != 0 || strings.Count(log.String(), "level=ERROR") != 1 {
		t.Errorf("in force is %+v; the log says %s", s.get(), log)
	}
	replace(goodConfig)
	if err := os.Symlink("..data/config.yaml", s.path); err != nil {
		t.Fatal(err)
	}
	s.reload(t.Context())
	if testutil.ToFloat64(s.metrics.good) != 1 {
		t.Error("it is not read after it came back")
	}
}

// A default that no pod could have is found at the start.
func TestServeRefusesWrongConfiguration(t *testing.T) {
	for name, c := range map[string]struct{ config, want string }{
		"policy":             {"policy: {retenton: 7d}", "configuration: retenton: unknown key; the nearest is retention"},
		"value":              {"policy: {rpo: fast}", "configuration: rpo: "},
		"about one database": {"policy: {cluster: orders}", "configuration: cluster: it is about a single database"},
		"no OIDC provider":   {"policy: {credentials: \"rrsa:writer\"}", "rrsa.oidcProvider"},
		"evacuation":         {"evacuation: {url: \"http://x\"}", "evacuation.url"},
		"pull policy":        {"imagePullPolicy: Sometimes", "Always, IfNotPresent or Never"},
		"metadata":           {"metadataURL: 100.100.100.200", "metadataURL"},
		"short certificate":  {"certificates: {server: 1s}", "certificates.server"},
		"short authority":    {"certificates: {server: 90d, ca: 100d}", "certificates.ca"},
		"long settling":      {"certificates: {server: 10s, ca: 30s, settle: 5s}", "certificates.settle"},
		"long lame duck":     {"lameDuck: 1m", "lameDuck"},
		"number":             {"lameDuck: 5", "expected one such as 5s"},
	} {
		t.Run(name, func(t *testing.T) {
			code, _, errs := run(t, "", "serve", "--config", write(t, c.config), "--kubeconfig", "/nowhere")
			if code != exitUsage || !strings.Contains(errs, c.want) {
				t.Errorf("exit code %d, %q; want %q", code, errs, c.want)
			}
		})
	}
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"listen":     {[]string{"--listen", "9443"}, "--listen"},
		"log level":  {[]string{"--log-level", "loud"}, "log level"},
		"kubeconfig": {[]string{"--kubeconfig", "/nowhere"}, "/nowhere"},
		"argument":   {[]string{"more"}, "takes no argument"},
	} {
		t.Run(name, func(t *testing.T) {
			code, _, errs := run(t, "", append([]string{"serve"}, c.args...)...)
			if code != exitUsage || !strings.Contains(errs, c.want) {
				t.Errorf("exit code %d, %q; want %q", code, errs, c.want)
			}
		})
	}
}
