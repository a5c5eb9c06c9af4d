package watch

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

// Among is manifests/monitoring/prometheus.yaml with changes, in pairs: what has to stand there, as a regular expression, and
// what shall instead. Debian's Prometheus is built without its client of Kubernetes, so that it finds in a file, which it reads
// anew whenever that is replaced, what that would say of each pod. What to make of it is up to the configuration.
func Among(t testing.TB, pods string, changes ...string) string {
	t.Helper()
	name := filepath.Join("manifests", "monitoring", "prometheus.yaml")
	raw, err := os.ReadFile(filepath.Join(Repository(t), name))
	must(t, err)
	config := string(raw)
	changes = append(changes, `kubernetes_sd_configs: \[\{role: pod.*\}\]`, "file_sd_configs: [{files: ["+pods+"]}]")
	for i := 0; i < len(changes); i += 2 {
		re := regexp.MustCompile(changes[i])
		if !re.MatchString(config) {
			t.Fatalf("%s has no %s", name, changes[i])
		}
		config = re.ReplaceAllLiteralString(config, changes[i+1])
	}
	return config
}
