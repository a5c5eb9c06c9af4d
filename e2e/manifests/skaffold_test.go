package manifests_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	"sigs.k8s.io/yaml"
)

// skaffold builds what its overlay runs, from sources that are there, and the webhook with the sidecar.
func TestSkaffoldBuildsWhatItDeploys(t *testing.T) {
	var config struct {
		APIVersion string `json:"apiVersion"`
		Build      struct {
			Artifacts []struct {
				Image    string                          `json:"image"`
				Requires []struct{ Image, Alias string } `json:"requires"`
				Custom   struct {
					BuildCommand string                           `json:"buildCommand"`
					Dependencies struct{ Paths, Ignore []string } `json:"dependencies"`
				} `json:"custom"`
			} `json:"artifacts"`
		} `json:"build"`
		Manifests struct {
			Kustomize struct{ Paths []string } `json:"kustomize"`
		} `json:"manifests"`
	}
	if err := yaml.Unmarshal(read(t, "../../skaffold.yaml"), &config); err != nil {
		t.Fatal(err)
	}
	var built []string
	for _, a := range config.Build.Artifacts {
		built = append(built, a.Image)
		if !strings.Contains(a.Custom.BuildCommand, "./images/build -only "+a.Image+` -image "$IMAGE"`) {
			t.Errorf("%s is built by %q", a.Image, a.Custom.BuildCommand)
		}
		for _, r := range a.Requires {
			if !slices.Contains(built, r.Image) || !strings.Contains(a.Custom.BuildCommand, `-sidecar "$`+r.Alias+`"`) {
				t.Errorf("%s requires %s as %s", a.Image, r.Image, r.Alias)
			}
		}
		for _, p := range a.Custom.Dependencies.Paths {
			dir, _, _ := strings.Cut(p, "*")
			if _, err := os.Stat(filepath.Join("..", "..", dir)); err != nil {
				t.Errorf("%s depends on %s: %v", a.Image, p, err)
			}
		}
	}
	if len(config.Manifests.Kustomize.Paths) != 1 {
		t.Fatalf("the overlays are %v", config.Manifests.Kustomize.Paths)
	}
	run := []string{"outrider"} // in the pods of databases
	for _, o := range build(t, filepath.Join("..", "..", config.Manifests.Kustomize.Paths[0])) {
		if d, ok := o.Object.(*appsv1.Deployment); ok {
			image, _, _ := strings.Cut(d.Spec.Template.Spec.Containers[0].Image, ":")
			run = append(run, image)
		}
	}
	slices.Sort(built)
	slices.Sort(run)
	if !slices.Equal(built, run) {
		t.Errorf("built are %v, deployed %v", built, run)
	}
}
