// Package manifests_test reads what is applied to clusters as a cluster would: every file, every kustomization, every
// example, and what README says of them.
package manifests_test

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

// top is the directory of the manifests.
const top = "../../manifests"

// object is one decoded document and where it is from.
type object struct {
	runtime.Object
	from string
}

func (o object) kind() string { return o.GetObjectKind().GroupVersionKind().Kind }

func (o object) name(t *testing.T) string {
	t.Helper()
	m, err := meta.Accessor(o.Object)
	if err != nil {
		t.Fatalf("%s: %v", o.from, err)
	}
	return m.GetName()
}

func (o object) namespace(t *testing.T) string {
	t.Helper()
	m, err := meta.Accessor(o.Object)
	if err != nil {
		t.Fatalf("%s: %v", o.from, err)
	}
	return m.GetNamespace()
}

// decode reads all documents strictly: an unknown kind, an unknown field and a field given twice are errors.
func decode(t *testing.T, from string, raw []byte) []object {
	t.Helper()
	decoder := serializer.NewCodecFactory(scheme.Scheme, serializer.EnableStrict).UniversalDeserializer()
	var objects []object
	for _, doc := range documents(t, from, raw) {
		o, _, err := decoder.Decode(doc, nil, nil)
		if err != nil {
			t.Errorf("%s: %v", from, err)
			continue
		}
		objects = append(objects, object{o, from})
	}
	return objects
}

// documents splits YAML and leaves out what holds comments only.
func documents(t *testing.T, from string, raw []byte) [][]byte {
	t.Helper()
	var all [][]byte
	r := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(raw)))
	for {
		doc, err := r.Read()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatalf("%s: %v", from, err)
		}
		if hasContent(doc) {
			all = append(all, doc)
		}
	}
}

func hasContent(doc []byte) bool {
	for line := range strings.Lines(string(doc)) {
		if line = strings.TrimSpace(line); line != "" && line != "---" && !strings.HasPrefix(line, "#") {
			return true
		}
	}
	return false
}

// walk calls do with every file below manifests that ends so, and fails if there is none.
func walk(t *testing.T, suffix string, do func(path string)) {
	t.Helper()
	found := 0
	err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && strings.HasSuffix(path, suffix) {
			found++
			do(path)
		}
		return err
	})
	if err != nil || found == 0 {
		t.Fatalf("%d files *%s, %v", found, suffix, err)
	}
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// build runs kustomize as kubectl does, and decodes what comes out.
func build(t *testing.T, dir string) []object {
	t.Helper()
	return decode(t, dir, render(t, dir))
}

func render(t *testing.T, dir string) []byte {
	t.Helper()
	result, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), dir)
	if err != nil {
		t.Fatalf("kustomize build %s: %v", dir, err)
	}
	raw, err := result.AsYaml()
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// isKubernetes tells files of objects from those that only kustomize or our own programs read.
func isKubernetes(path string) bool {
	switch filepath.Base(path) {
	case "kustomization.yaml", "config.yaml":
		return false
	}
	return !strings.HasPrefix(path, top+"/monitoring/") // Prometheus and Grafana read those
}

func TestEveryFileIsWhatKubernetesKnows(t *testing.T) {
	walk(t, ".yaml", func(path string) {
		if !isKubernetes(path) {
			return
		}
		raw := read(t, path)
		// A patch may say that something goes, which is no field of anything.
		raw = bytes.ReplaceAll(raw, []byte("$patch: delete\n"), nil)
		if objects := decode(t, path, raw); len(objects) == 0 {
			t.Errorf("%s: there is nothing in it", path)
		}
	})
}

func TestEveryKustomizationBuilds(t *testing.T) {
	walk(t, "kustomization.yaml", func(path string) {
		if bytes.Contains(read(t, path), []byte("kind: Component\n")) {
			return
		}
		dir := filepath.Dir(path)
		t.Run(strings.TrimPrefix(dir, top+"/"), func(t *testing.T) {
			seen := map[string]bool{}
			for _, o := range build(t, dir) {
				key := o.kind() + " " + o.namespace(t) + "/" + o.name(t)
				if seen[key] {
					t.Errorf("%s is there twice", key)
				}
				seen[key] = true
			}
			if len(seen) == 0 {
				t.Error("nothing comes out")
			}
		})
	})
}
