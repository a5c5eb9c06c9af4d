package inject

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"sigs.k8s.io/yaml"
)

// applyPatch is RFC 6902 as an API server applies it: an add needs the parent, a replace and a remove need the target.
func applyPatch(doc any, ops []Operation) (any, error) {
	raw, err := json.Marshal(ops)
	if err != nil {
		return nil, err
	}
	var decoded []Operation // as it comes over the wire
	if err := json.Unmarshal(raw, &decoded); err != nil {
		return nil, err
	}
	for _, op := range decoded {
		if doc, err = applyOne(doc, strings.Split(op.Path, "/")[1:], op); err != nil {
			return nil, fmt.Errorf("%s %s: %w", op.Op, op.Path, err)
		}
	}
	return doc, nil
}

func applyOne(doc any, path []string, op Operation) (any, error) {
	name := strings.NewReplacer("~1", "/", "~0", "~").Replace(path[0])
	last := len(path) == 1
	switch d := doc.(type) {
	case map[string]any:
		child, has := d[name]
		switch {
		case !last && !has, last && op.Op != "add" && !has:
			return nil, fmt.Errorf("there is no %s", name)
		case !last:
			v, err := applyOne(child, path[1:], op)
			d[name] = v
			return d, err
		case op.Op == "remove":
			delete(d, name)
		default:
			d[name] = op.Value
		}
		return d, nil
	case []any:
		i, err := strconv.Atoi(name)
		if err != nil || i < 0 || i > len(d) || i == len(d) && (!last || op.Op != "add") {
			return nil, fmt.Errorf("there is no element %s of %d", name, len(d))
		}
		switch {
		case !last:
			d[i], err = applyOne(d[i], path[1:], op)
		case op.Op == "add":
			d = slices.Insert(d, i, op.Value)
		case op.Op == "remove":
			d = slices.Delete(d, i, i+1)
		default:
			d[i] = op.Value
		}
		return d, err
	}
	return nil, fmt.Errorf("%s is in no object or list", name)
}

// strange adds a field that this program does not know to every object of a document, and says how many.
func strange(v any) int {
	n := 0
	switch d := v.(type) {
	case map[string]any:
		for k, child := range d {
			switch k {
			case "labels", "annotations", "limits", "requests", "nodeSelector":
				continue // maps of names, not objects
			}
			n += strange(child)
		}
		d["fieldOfTheFuture"] = map[string]any{"kept": true}
		n++
	case []any:
		for _, child := range d {
			n += strange(child)
		}
	}
	return n
}

func count(v any, name string) int {
	n := 0
	switch d := v.(type) {
	case map[string]any:
		for k, child := range d {
			if k == name {
				n++
				continue
			}
			n += count(child, name)
		}
	case []any:
		for _, child := range d {
			n += count(child, name)
		}
	}
	return n
}

// checkPatch applies the patch from before to after to a raw pod with fields of the future.
func checkPatch(before, after *corev1.Pod) error {
	ops, err := Patch(before, after)
	if err != nil {
		return err
	}
	raw, err := json.Marshal(before)
	if err != nil {
		return err
	}
	var doc any
	if err := json.Unmarshal(raw, &doc); err != nil {
		return err
	}
	// What is ours in the pod is replaced as a whole, so what stands there does not count.
	spec := doc.(map[string]any)["spec"].(map[string]any)
	mark := func(list string) {
		elements, _ := spec[list].([]any)
		for _, e := range elements {
			if !isOurs("/spec/"+list, e) {
				strange(e)
			}
		}
	}
	for _, list := range []string{"containers", "initContainers", "volumes"} {
		mark(list)
	}
	for _, c := range spec["containers"].([]any) {
		m := c.(map[string]any)
		if hook, ok := m["lifecycle"].(map[string]any); ok && isOurJSONHook(hook["preStop"]) {
			delete(hook, "fieldOfTheFuture") // goes with the hook that is ours
		}
		mounts, _ := m["volumeMounts"].([]any)
		for _, e := range mounts {
			if isOurs("/volumeMounts", e) {
				delete(e.(map[string]any), "fieldOfTheFuture")
			}
		}
	}
	spec["fieldOfTheFuture"] = "kept"
	doc.(map[string]any)["metadata"].(map[string]any)["fieldOfTheFuture"] = "kept"
	futures := count(withoutHooks(doc), "fieldOfTheFuture")
	if doc, err = applyPatch(doc, ops); err != nil {
		return err
	}
	if left := count(withoutHooks(doc), "fieldOfTheFuture"); left != futures {
		return fmt.Errorf("%d of %d unknown fields are left", left, futures)
	}
	patched, err := json.Marshal(doc)
	if err != nil {
		return err
	}
	var got corev1.Pod
	if err := json.Unmarshal(patched, &got); err != nil {
		return err
	}
	if !equality.Semantic.DeepEqual(&got, after) {
		return fmt.Errorf("the patched pod differs from the wanted one (-want +got):\n%s", cmp.Diff(after, &got))
	}
	return nil
}

func isOurJSONHook(v any) bool {
	hook, _ := v.(map[string]any)
	get, _ := hook["httpGet"].(map[string]any)
	return get["path"] == prestopPath && get["port"] == float64(port)
}

// withoutHooks leaves our own hooks out of the count: unknown fields inside of them go with them.
func withoutHooks(doc any) any {
	raw, _ := json.Marshal(doc)
	var v any
	_ = json.Unmarshal(raw, &v)
	spec := v.(map[string]any)["spec"].(map[string]any)
	for _, c := range spec["containers"].([]any) {
		if l, ok := c.(map[string]any)["lifecycle"].(map[string]any); ok && isOurJSONHook(l["preStop"]) {
			delete(l, "preStop")
		}
	}
	return v
}

// Fields that are newer than this program survive, at every level of what is the user's.
func TestPatchOfExamplesKeepsUnknownFields(t *testing.T) {
	patched := 0
	for _, e := range examples(t) {
		d, err := e.decide(testInput())
		if err != nil || d.Pod == nil {
			continue
		}
		patched++
		if err := checkPatch(e.pod, d.Pod); err != nil {
			t.Errorf("%s: %v", e.name, err)
		}
	}
	if patched < 30 {
		t.Fatalf("only %d examples were patched", patched)
	}
}

// The value that older injectors lost: a field that this library does not have yet, next to one that it changes.
func TestPatchTouchesOnlyWhatDiffers(t *testing.T) {
	raw := []byte(`{"apiVersion":"v1","kind":"Pod","metadata":{"name":"orders","newMeta":1},
	 "spec":{"newSpec":{"a":[1]},"containers":[{"name":"pg","image":"postgres:16","newContainer":true,
	   "env":[{"name":"A","valueFrom":{"newKeyRef":{"key":"x"}}}],
	   "lifecycle":{"newHook":1,"postStart":{"sleep":{"seconds":1,"newSleep":2}}},
	   "volumeMounts":[{"name":"d","mountPath":"/var/lib/postgresql/data","newMount":"m"}]}],
	  "volumes":[{"name":"d","newSource":{"x":1},"emptyDir":{}}],
	  "tolerations":[{"key":"node.kubernetes.io/not-ready","effect":"NoExecute","operator":"Exists","tolerationSeconds":300,"newToleration":1}]}}`)
	var pod corev1.Pod
	if err := json.Unmarshal(raw, &pod); err != nil {
		t.Fatal(err)
	}
	d, err := Pod(&pod, testInput())
	if err != nil {
		t.Fatal(err)
	}
	ops, err := Patch(&pod, d.Pod)
	if err != nil {
		t.Fatal(err)
	}
	var paths []string
	for _, op := range ops {
		paths = append(paths, op.Op+" "+op.Path)
	}
	want := []string{
		"add /metadata/annotations",
		"add /spec/containers/0/env/1",
		"add /spec/containers/0/lifecycle/preStop",
		"add /spec/containers/0/volumeMounts/1",
		"add /spec/initContainers",
		"add /spec/terminationGracePeriodSeconds",
		"replace /spec/tolerations/0/tolerationSeconds",
		"add /spec/volumes/1",
		"add /spec/volumes/2",
	}
	slices.Sort(paths)
	slices.Sort(want)
	if diff := cmp.Diff(want, paths); diff != "" {
		t.Errorf("operations (-want +got):\n%s", diff)
	}
	var doc any
	if err := json.Unmarshal(raw, &doc); err != nil {
		t.Fatal(err)
	}
	if doc, err = applyPatch(doc, ops); err != nil {
		t.Fatal(err)
	}
	out, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	for _, field := range []string{"newMeta", "newSpec", "newContainer", "newKeyRef", "newHook", "newSleep", "newMount", "newSource", "newToleration"} {
		if !strings.Contains(string(out), `"`+field+`"`) {
			t.Errorf("%s is lost", field)
		}
	}
}

// A patch that would take something of the user's is not made.
func TestPatchNeverRemovesWhatIsTheUsers(t *testing.T) {
	var before corev1.Pod
	if err := yaml.Unmarshal([]byte(`
metadata: {name: orders, annotations: {a: b}, labels: {x: y}}
spec:
  initContainers: [{name: i1}, {name: i2}]
  containers: [{name: pg, env: [{name: A, value: "1"}], command: [a, b], volumeMounts: [{name: d, mountPath: /d}],
    lifecycle: {preStop: {exec: {command: ["true"]}}}}]
  volumes: [{name: d, emptyDir: {}}]
`), &before); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*corev1.Pod){
		"label":                 func(p *corev1.Pod) { p.Labels = nil },
		"annotation":            func(p *corev1.Pod) { delete(p.Annotations, "a") },
		"init container":        func(p *corev1.Pod) { p.Spec.InitContainers = p.Spec.InitContainers[1:] },
		"order":                 func(p *corev1.Pod) { slices.Reverse(p.Spec.InitContainers) },
		"all init containers":   func(p *corev1.Pod) { p.Spec.InitContainers = nil },
		"variable":              func(p *corev1.Pod) { p.Spec.Containers[0].Env = nil },
		"word of a command":     func(p *corev1.Pod) { p.Spec.Containers[0].Command = []string{"a"} },
		"mount":                 func(p *corev1.Pod) { p.Spec.Containers[0].VolumeMounts = nil },
		"hook":                  func(p *corev1.Pod) { p.Spec.Containers[0].Lifecycle = nil },
		"volume":                func(p *corev1.Pod) { p.Spec.Volumes[0].Name = "e" },
		"container by new name": func(p *corev1.Pod) { p.Spec.Containers[0].Name = "e" },
	} {
		after := before.DeepCopy()
		change(after)
		if ops, err := Patch(&before, after); err == nil {
			t.Errorf("without its %s a pod is patched: %v", name, ops)
		}
	}
	if ops, err := Patch(&before, before.DeepCopy()); err != nil || len(ops) != 0 {
		t.Errorf("the patch of a pod that stays as it is: %v, %v", ops, err)
	}
}
