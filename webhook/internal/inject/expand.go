package inject

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// expand replaces the references $(NAME) of Kubernetes. "$$" is a plain "$", and a reference to what lookup does not
// know stays as it is (API reference, EnvVar.value).
func expand(s string, lookup func(name string) (string, bool)) string {
	var b strings.Builder
	for {
		before, rest, ok := strings.Cut(s, "$")
		b.WriteString(before)
		if !ok {
			return b.String()
		}
		s = rest
		if strings.HasPrefix(rest, "$") {
			b.WriteByte('$')
			s = rest[1:]
			continue
		}
		name, after, closed := strings.Cut(strings.TrimPrefix(rest, "("), ")")
		if !strings.HasPrefix(rest, "(") || !closed {
			b.WriteByte('$')
			continue
		}
		value, known := lookup(name)
		if !known {
			value = "$(" + name + ")"
		}
		b.WriteString(value)
		s = after
	}
}

// references are the names that a value refers to.
func references(s string) (names []string) {
	expand(s, func(name string) (string, bool) {
		names = append(names, name)
		return "", true
	})
	return names
}

// literal protects a value from being expanded.
func literal(s string) string { return strings.ReplaceAll(s, "$", "$$") }

// known is what can be said of a variable's value without a cluster.
type known string

const (
	absent known = "absent" // the container does not set it; the image may
	given  known = "given"  // this is its value
	opaque known = "opaque" // it is set, to what only the cluster knows
)

// valueOf is the value that a container gives to a variable.
func valueOf(c *corev1.Container, name string) (string, known) {
	i := lastVariable(c.Env, name)
	if i < 0 {
		return "", absent
	}
	return valueAt(c, i)
}

func valueAt(c *corev1.Container, i int) (string, known) {
	if c.Env[i].ValueFrom != nil {
		return "", opaque
	}
	state := given
	v := expand(c.Env[i].Value, func(ref string) (string, bool) {
		// A reference sees only what stands before it.
		j := lastVariable(c.Env[:i], ref)
		if j < 0 {
			state = opaque // perhaps from envFrom, perhaps a Service's
			return "", false
		}
		v, k := valueAt(c, j)
		if k == opaque {
			state = opaque
		}
		return v, true
	})
	return v, state
}

// lastVariable is the index of the definition that holds, the last one; -1 if there is none.
func lastVariable(env []corev1.EnvVar, name string) int {
	for i, e := range slices.Backward(env) {
		if e.Name == name {
			return i
		}
	}
	return -1
}

// firstOf is the value of the first of these variables that the container sets.
func firstOf(c *corev1.Container, names ...string) (name, value string, k known) {
	for _, n := range names {
		if v, k := valueOf(c, n); k == opaque || k == given && v != "" {
			return n, v, k
		}
	}
	return "", "", absent
}

// mayComeFrom tells whether a ConfigMap or Secret as a whole (envFrom) may set a variable.
func mayComeFrom(c *corev1.Container, name string) bool {
	return slices.ContainsFunc(c.EnvFrom, func(f corev1.EnvFromSource) bool { return strings.HasPrefix(name, f.Prefix) })
}
