package main

import (
	"flag"
	"os"
	"strings"
	"testing"

	"outrider.dev/sidecar/policy"
)

var update = flag.Bool("update", false, "write generated tables into README.md instead of comparing them")

// What README says of exit codes and settings is what the program says.
func TestReadmeTablesAreCurrent(t *testing.T) {
	const path = "../README.md"
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	for name, table := range map[string]string{
		"exit codes": exitTable(), "policy": policy.Table(), "metrics": metricsTable(t, "."), "webhook metrics": metricsTable(t, "../webhook"),
	} {
		begin, end := "<!-- "+name+": generated -->\n", "<!-- /"+name+" -->"
		before, rest, ok := strings.Cut(text, begin)
		old, after, closed := strings.Cut(rest, end)
		if !ok || !closed {
			t.Errorf("README.md has no place for the table of %s", name)
			continue
		}
		want := "\n" + strings.TrimSpace(table) + "\n\n"
		if old != want && !*update {
			t.Errorf("the table of %s in README.md is not current: go test ./sidecar -run Readme -update", name)
		}
		text = before + begin + want + end + after
	}
	for _, state := range allStates() {
		if !strings.Contains(text, "`"+string(state)+"` |") && !strings.Contains(text, "| `"+string(state)+"`") {
			t.Errorf("README.md does not say what the state %s means", state)
		}
	}
	if *update {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
