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

// Bounds for what is expanded. References to references double with each step, and anybody may send a pod.
const (
	longestValue   = 4 << 10 // of a path, a port or a flag; what is longer is none that can be judged
	mostReferences = 1000
)

// valueOf is the value that a container gives to a variable.
func valueOf(c *corev1.Container, name string) (string, known) {
	i := lastVariable(c.Env, name)
	if i < 0 {
		return "", absent
	}
	e := expander{env: newIndex(c.Env), done: map[int]value{}, left: mostReferences}
	v := e.at(i)
	return v.text, v.known
}

// value is what a variable was found to be.
type value struct {
	text  string
	known known
}

// expander finds the values of one container's variables, each once.
type expander struct {
	env  index
	done map[int]value
	left int // references that may still be followed
}

func (e *expander) at(i int) value {
	if v, ok := e.done[i]; ok {
		return v
	}
	v := e.expand(i)
	if v.known == opaque || len(v.text) > longestValue {
		v = value{known: opaque}
	}
	e.done[i] = v
	return v
}

func (e *expander) expand(i int) value {
	def := e.env.env[i]
	if def.ValueFrom != nil || len(def.Value) > longestValue {
		return value{known: opaque}
	}
	state, size := given, 0
	text := expand(def.Value, func(ref string) (string, bool) {
		// A reference sees only what stands before it.
		j := e.env.before(i, ref)
		if e.left--; j < 0 || e.left < 0 || state == opaque || size > longestValue {
			state = opaque // perhaps from envFrom, perhaps a Service's; or too much
			return "", false
		}
		v := e.at(j)
		if v.known == opaque {
			state = opaque
		}
		size += len(v.text)
		return v.text, true
	})
	return value{text, state}
}

// index finds variables by name, also among very many.
type index struct {
	env []corev1.EnvVar
	all map[string][]int // ascending
}

func newIndex(env []corev1.EnvVar) index {
	x := index{env, map[string][]int{}}
	for i, e := range env {
		x.all[e.Name] = append(x.all[e.Name], i)
	}
	return x
}

// before is the definition that a reference in the variable i finds, the last one that stands before it; -1 if there is none.
func (x index) before(i int, name string) int {
	n, _ := slices.BinarySearch(x.all[name], i)
	if n == 0 {
		return -1
	}
	return x.all[name][n-1]
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
