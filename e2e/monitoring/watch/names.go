package watch

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// Documented are the metrics in the tables of README.md.
func Documented(t testing.TB) []string {
	t.Helper()
	readme, err := os.ReadFile(filepath.Join(Repository(t), "README.md"))
	must(t, err)
	var names []string
	for _, m := range regexp.MustCompile("(?m)^\\| `(outrider_[a-z_0-9]+?)(?:_\\{bucket,sum,count\\})?` \\|").FindAllStringSubmatch(string(readme), -1) {
		names = append(names, m[1])
	}
	if len(names) < 50 {
		t.Fatalf("README.md has %d metrics", len(names))
	}
	return names
}

// Undocumented are the names of metrics in a text, be it a query or an exposition, that README.md does not have. The
// suffixes of histograms belong to the same metric.
func Undocumented(t testing.TB, text string) []string {
	t.Helper()
	known := Documented(t)
	var unknown []string
	for _, name := range regexp.MustCompile(`\boutrider_[a-z_0-9]+`).FindAllString(text, -1) {
		base := name
		for _, suffix := range []string{"_bucket", "_sum", "_count"} {
			base = strings.TrimSuffix(base, suffix)
		}
		if !slices.Contains(known, name) && !slices.Contains(known, base) {
			unknown = append(unknown, name)
		}
	}
	slices.Sort(unknown)
	return slices.Compact(unknown)
}
