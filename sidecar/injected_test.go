package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"outrider.dev/sidecar/policy"
)

// What the webhook writes into a pod is read here: a variable of which only one side knows is a promise that nobody
// keeps. The pods are those that the webhook's own tests compare with.
func TestVariablesThatTheWebhookWritesAreRead(t *testing.T) {
	pods, err := filepath.Glob("../webhook/internal/inject/testdata/*.out.yaml")
	if err != nil || len(pods) == 0 {
		t.Fatalf("there are no injected pods to look at: %v", err)
	}
	read := variablesRead(t)
	variable := regexp.MustCompile(`(?m)^\s*-? *name: (OUTRIDER_[A-Z_]+)$`)
	written := map[string]string{}
	for _, path := range pods {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range variable.FindAllStringSubmatch(string(b), -1) {
			written[m[1]] = filepath.Base(path)
		}
	}
	for _, must := range []string{"OUTRIDER_ARCHIVE", "OUTRIDER_POD_UID", "OUTRIDER_EVACUATION_URL", "OUTRIDER_PGPASSWORD_FILE", "OUTRIDER_RUN_AS"} {
		if written[must] == "" {
			t.Errorf("no pod has %s: this test does not see what it should", must)
		}
	}
	for name, where := range written {
		if !slices.Contains(read, name) {
			t.Errorf("%s (of %s, for one) is read by nothing here", name, where)
		}
	}
}

// variablesRead are those of the policy, those with a flag, and those that a file of this package names.
func variablesRead(t *testing.T) []string {
	t.Helper()
	var names []string
	for _, k := range policy.Keys() {
		names = append(names, k.Env)
	}
	var walk func(*cobra.Command)
	walk = func(c *cobra.Command) {
		c.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, f.Annotations[envAnnotation]...) })
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(newRootCommand(newApp(nil, os.LookupEnv, nil, nil)))
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	literal := regexp.MustCompile(`"(OUTRIDER_[A-Z_]+)"`)
	for _, path := range files {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range literal.FindAllStringSubmatch(string(b), -1) {
			names = append(names, m[1])
		}
	}
	return names
}
