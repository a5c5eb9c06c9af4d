package inject

import (
	"fmt"
	"path"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"outrider.dev/sidecar/policy"
)

// lists compares by the keys of elements. The user's keep their order; those of ours that went are removed, those that
// are new or have moved are put in.
func (d *differ) lists(at string, before, after []any) error {
	field := keyField(path.Base(at))
	if field == "" {
		return d.positions(at, before, after)
	}
	kb, ka := keysOf(before, field), keysOf(after, field)
	keep := kept(at, before, kb, ka)
	for i, k := range slices.Backward(kb) {
		if slices.Contains(keep, k) {
			continue
		}
		if !isOurs(at, before[i]) {
			return fmt.Errorf("%s/%d (%s) would be lost or moved: this is a mistake in outrider, not in the pod", at, i, k)
		}
		d.remove(at + "/" + strconv.Itoa(i))
	}
	for i, k := range ka {
		p := at + "/" + strconv.Itoa(i)
		if !slices.Contains(keep, k) {
			d.add(p, after[i])
			continue
		}
		if err := d.element(at, p, before[slices.Index(kb, k)], after[i]); err != nil {
			return err
		}
	}
	return nil
}

// element compares two elements with the same key. Of what is ours nothing old is worth keeping.
func (d *differ) element(list, at string, before, after any) error {
	if !isOurs(list, before) {
		return d.compare(at, before, after)
	}
	if !reflect.DeepEqual(before, after) {
		d.replace(at, after)
	}
	return nil
}

// positions compares lists whose elements have no key.
func (d *differ) positions(at string, before, after []any) error {
	if len(before) != len(after) {
		return fmt.Errorf("%s has %d elements instead of %d: this is a mistake in outrider, not in the pod", at, len(after), len(before))
	}
	for i := range before {
		if err := d.compare(at+"/"+strconv.Itoa(i), before[i], after[i]); err != nil {
			return err
		}
	}
	return nil
}

// keyField is the field that tells the elements of a list apart, "" if only their place does.
func keyField(list string) string {
	switch list {
	case "containers", "initContainers", "volumes", "env":
		return "name"
	case "volumeMounts":
		return "mountPath"
	}
	return ""
}

// keysOf are the keys of elements; of several with the same one each has its own.
func keysOf(list []any, field string) []string {
	keys, seen := make([]string, len(list)), map[string]int{}
	for i, e := range list {
		m, _ := e.(map[string]any)
		k, _ := m[field].(string)
		seen[k]++
		keys[i] = k + "#" + strconv.Itoa(seen[k])
	}
	return keys
}

// kept are the keys whose elements stay in their place: all that both lists have, if they are in the same order, else
// only those of the user.
func kept(at string, before []any, kb, ka []string) []string {
	both := func(list, other []string) []string {
		return slices.DeleteFunc(slices.Clone(list), func(k string) bool { return !slices.Contains(other, k) })
	}
	if b := both(kb, ka); slices.Equal(b, both(ka, kb)) {
		return b
	}
	var users []string
	for i, k := range kb {
		if !isOurs(at, before[i]) {
			users = append(users, k)
		}
	}
	if b := both(users, ka); slices.Equal(b, both(ka, users)) {
		return b
	}
	return nil
}

// isOurs tells whether an element of a list is Outrider's.
func isOurs(list string, element any) bool {
	m, _ := element.(map[string]any)
	name, _ := m["name"].(string)
	volume := name == spoolVolume || name == dataVolume || name == identityVolume
	switch list {
	case "/spec/initContainers":
		return isOurContainer(name)
	case "/spec/volumes":
		return volume
	}
	return volume && strings.HasSuffix(list, "/volumeMounts")
}

// mayGo tells whether a field may be removed: the annotation and the hook of ours, and what held nothing else.
func mayGo(at, name string, v any) bool {
	switch value := v.(type) {
	case []any:
		return len(value) > 0 && !slices.ContainsFunc(value, func(e any) bool { return !isOurs(at+"/"+name, e) })
	case map[string]any:
		if name == "lifecycle" && len(value) == 1 {
			return isOurHook(value["preStop"])
		}
		if _, has := value[policy.Status]; at == "/metadata" && name == "annotations" {
			return has && len(value) == 1
		}
		return name == "preStop" && isOurHook(value)
	}
	return at == "/metadata/annotations" && name == policy.Status
}

func isOurHook(v any) bool {
	hook, _ := v.(map[string]any)
	get, _ := hook["httpGet"].(map[string]any)
	return get["path"] == prestopPath && get["port"] == int64(port)
}
