package inject

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// Operation is one step of a JSON patch (RFC 6902).
type Operation struct {
	Op    string `json:"op"` // add, replace, remove
	Path  string `json:"path"`
	Value any    `json:"value,omitempty"`
}

// Patch is what turns before into after. It is the difference of the two as this program understands them, and is meant
// for the pod as it was sent, which may have fields that are newer than this program: of the user's own things it
// touches only what differs, so whatever it does not know stays. An element of a list is removed only if it is
// Outrider's. Anything else that is missing from after is an error.
func Patch(before, after *corev1.Pod) ([]Operation, error) {
	b, err := generic(before)
	if err != nil {
		return nil, err
	}
	a, err := generic(after)
	if err != nil {
		return nil, err
	}
	var d differ
	if err := d.compare("", b, a); err != nil {
		return nil, fmt.Errorf("comparing pod %s with what it becomes: %w", before.Name, err)
	}
	return d.ops, nil
}

// generic is a pod as JSON has it.
func generic(pod *corev1.Pod) (any, error) {
	v, err := runtime.DefaultUnstructuredConverter.ToUnstructured(pod)
	if err != nil {
		return nil, fmt.Errorf("taking pod %s apart: %w", pod.Name, err)
	}
	return v, nil
}

type differ struct{ ops []Operation }

func (d *differ) add(path string, v any)     { d.ops = append(d.ops, Operation{"add", path, v}) }
func (d *differ) replace(path string, v any) { d.ops = append(d.ops, Operation{"replace", path, v}) }

func (d *differ) remove(path string) { d.ops = append(d.ops, Operation{Op: "remove", Path: path}) }

func (d *differ) compare(path string, before, after any) error {
	if reflect.DeepEqual(before, after) {
		return nil
	}
	switch b := before.(type) {
	case map[string]any:
		if a, ok := after.(map[string]any); ok {
			return d.objects(path, b, a)
		}
	case []any:
		if a, ok := after.([]any); ok {
			return d.lists(path, b, a)
		}
	}
	d.replace(path, after)
	return nil
}

func (d *differ) objects(path string, before, after map[string]any) error {
	for _, name := range slices.Sorted(maps.Keys(before)) {
		if _, stays := after[name]; stays {
			continue
		}
		if !mayGo(path, name, before[name]) {
			return fmt.Errorf("%s/%s would be lost: this is a mistake in outrider, not in the pod", path, name)
		}
		d.remove(path + "/" + escape(name))
	}
	for _, name := range slices.Sorted(maps.Keys(after)) {
		at := path + "/" + escape(name)
		if b, was := before[name]; was {
			if err := d.compare(at, b, after[name]); err != nil {
				return err
			}
			continue
		}
		d.add(at, after[name])
	}
	return nil
}

// escape writes a name as a part of a JSON pointer (RFC 6901).
func escape(name string) string {
	return strings.NewReplacer("~", "~0", "/", "~1").Replace(name)
}
