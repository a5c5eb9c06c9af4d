package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	"sigs.k8s.io/yaml"

	"outrider.dev/sidecar/policy"
	"outrider.dev/webhook/internal/inject"
)

const manifests = "../manifests"

// Every configuration that is installed is one that this program reads.
func TestInstalledConfigurationsAreRead(t *testing.T) {
	paths, err := filepath.Glob(filepath.Join(manifests, "*", "config.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	more, err := filepath.Glob(filepath.Join(manifests, "*", "*", "config.yaml"))
	if err != nil || len(paths) == 0 || len(more) == 0 {
		t.Fatalf("%d and %d files, %v", len(paths), len(more), err)
	}
	for _, path := range append(paths, more...) {
		c, err := readConfig(path)
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		if want := "https://outrider-webhook.outrider-system.svc/v1/evacuations"; c.Evacuation.URL != want {
			t.Errorf("%s: evacuation is asked for at %q, and the Service is reached at %s", path, c.Evacuation.URL, want)
		}
		if err := c.validate(); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// The base's configuration shows every key there is, and what it shows commented out can be taken in as it stands.
func TestBaseConfigurationShowsEveryKey(t *testing.T) {
	path := filepath.Join(manifests, "base", "config.yaml")
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	open := regexp.MustCompile(`(?m)^( *)#([a-zA-Z- ])`).ReplaceAllStringFunc(string(raw), func(s string) string {
		if strings.HasSuffix(s, "# ") {
			return s // a comment; a key stands right behind its #
		}
		return strings.Replace(s, "#", "", 1)
	})
	// Lines of the policy are indented behind the #.
	open = regexp.MustCompile(`(?m)^#(  [a-zA-Z-])`).ReplaceAllString(open, "$1")
	c, err := readConfig(write(t, open))
	if err != nil {
		t.Fatalf("%v in\n%s", err, open)
	}
	if err := c.validate(); err != nil {
		t.Errorf("%s: %v", path, err)
	}
	var shown map[string]any
	if err := yaml.Unmarshal([]byte(open), &shown); err != nil {
		t.Fatal(err)
	}
	for _, key := range keysOf(reflect.TypeFor[config](), "") {
		if !has(shown, key) {
			t.Errorf("%s does not show the key %s", path, key)
		}
	}
}

// keysOf lists the keys of a configuration, those of nested structs with dots.
func keysOf(t reflect.Type, prefix string) (keys []string) {
	for f := range t.Fields() {
		name := prefix + strings.Split(f.Tag.Get("json"), ",")[0]
		if keys = append(keys, name); f.Type.Kind() == reflect.Struct {
			keys = append(keys, keysOf(f.Type, name+".")...)
		}
	}
	return keys
}

func has(m map[string]any, key string) bool {
	first, rest, nested := strings.Cut(key, ".")
	v, ok := m[first]
	if !ok || !nested {
		return ok
	}
	inner, _ := v.(map[string]any)
	return has(inner, rest)
}

// The guard and the registrations speak of the containers and of the annotation by the names that the injection uses.
func TestManifestsUseTheInjectionsNames(t *testing.T) {
	for file, words := range map[string][]string{
		"guard.yaml":    {"c.name == '" + inject.RestoreContainer + "'", "c.name == '" + inject.SidecarContainer + "'", "'" + policy.Prefix + "protect'].orValue('') == '" + string(policy.ProtectEnabled) + "'"},
		"webhooks.yaml": {policy.Prefix + "protect: " + string(policy.ProtectEnabled), "'" + policy.Prefix + "protect'].orValue('') != '" + string(policy.ProtectDisabled) + "'"},
	} {
		raw, err := os.ReadFile(filepath.Join(manifests, "base", file))
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range words {
			if !strings.Contains(string(raw), w) {
				t.Errorf("%s does not say %s", file, w)
			}
		}
	}
}

// The Deployment starts a program that knows what it is told, where the Service, the probes and the Secret expect it.
func TestDeploymentFitsTheProgram(t *testing.T) {
	raw, err := os.ReadFile(filepath.Join(manifests, "base", "deployment.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var d appsv1.Deployment
	if err := yaml.Unmarshal(bytes.Split(raw, []byte("\n---\n"))[0], &d); err != nil {
		t.Fatal(err)
	}
	spec := d.Spec.Template.Spec
	c := spec.Containers[0]
	cmd := newServeCommand(newApp(nil, nil, nil, nil))
	if c.Args[0] != cmd.Name() {
		t.Fatalf("the arguments are %q", c.Args)
	}
	if err := cmd.ParseFlags(c.Args[1:]); err != nil {
		t.Fatal(err)
	}
	ports := map[string]string{}
	for _, p := range c.Ports {
		ports[p.Name] = fmt.Sprintf(":%d", p.ContainerPort)
	}
	for flag, port := range map[string]string{"listen": "https", "metrics-listen": "metrics", "health-listen": "health"} {
		if got := cmd.Flag(flag).Value.String(); got != ports[port] || got == "" {
			t.Errorf("--%s is %q, and the port %s is %s", flag, got, port, ports[port])
		}
	}
	if got := cmd.Flag("config").Value.String(); filepath.Dir(got) != c.VolumeMounts[0].MountPath || filepath.Base(got) != "config.yaml" {
		t.Errorf("--config is %q, and the ConfigMap is at %s", got, c.VolumeMounts[0].MountPath)
	}
	if got := c.ReadinessProbe.HTTPGet.Path + c.LivenessProbe.HTTPGet.Path; got != "/readyz/healthz" {
		t.Errorf("the probes ask for %s", got)
	}
	if longest := 30*time.Second + drainFor; time.Duration(*spec.TerminationGracePeriodSeconds)*time.Second <= longest {
		t.Errorf("the grace period is %d s, and a stop may take %s", *spec.TerminationGracePeriodSeconds, longest)
	}
}

func TestManifestsHaveTheProgramsNames(t *testing.T) {
	for file, names := range map[string][]string{
		"service.yaml": {serviceName}, "tls-secret.yaml": {secretName}, "webhooks.yaml": {registrationName, "service: {namespace: outrider-system, name: " + serviceName},
		"rbac.yaml": {"resourceNames: [" + secretName + "]", "resourceNames: [" + leaseName + "]", "resourceNames: [" + registrationName + "]"},
	} {
		raw, err := os.ReadFile(filepath.Join(manifests, "base", file))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			if !strings.Contains(name, " ") {
				name = "\n  name: " + name + "\n"
			}
			if !strings.Contains(string(raw), name) {
				t.Errorf("%s does not have %q", file, name)
			}
		}
	}
}
