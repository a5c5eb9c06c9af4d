package monitoring_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

// What an overlay gets that names the component.
func TestComponentBuilds(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	must(t, err)
	there, err := filepath.Abs(monitoring)
	must(t, err)
	rel, err := filepath.Rel(dir, there)
	must(t, err)
	overlay := fmt.Sprintf("apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\ncomponents: [%s]\n", rel)
	must(t, os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte(overlay), 0o600))
	built, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), dir)
	must(t, err)
	var got []string
	for _, r := range built.Resources() {
		got = append(got, r.GetKind()+" "+r.GetNamespace()+"/"+r.GetName())
	}
	slices.Sort(got)
	want := []string{
		"ConfigMap outrider-system/outrider-dashboard", "PodMonitor outrider-system/outrider", "PodMonitor outrider-system/outrider-webhook",
		"PrometheusRule outrider-system/outrider", "PrometheusRule outrider-system/outrider-costs",
	}
	if !slices.Equal(got, want) {
		t.Errorf("the component has %q", got)
	}
}
