package inject

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// doubling is an environment whose last variable would be 2^n bytes long.
func doubling(n int) (env []corev1.EnvVar) {
	env = []corev1.EnvVar{{Name: "A0", Value: "x"}}
	for i := 1; i <= n; i++ {
		env = append(env, corev1.EnvVar{Name: fmt.Sprint("A", i), Value: fmt.Sprintf("$(A%d)$(A%[1]d)", i-1)})
	}
	return env
}

// chain is an environment of n variables that refer to each other.
func chain(n int) (env []corev1.EnvVar) {
	env = []corev1.EnvVar{{Name: "A0", Value: "/data"}}
	for i := 1; i <= n; i++ {
		env = append(env, corev1.EnvVar{Name: fmt.Sprint("A", i), Value: fmt.Sprintf("$(A%d)", i-1)})
	}
	return env
}

// Anybody may send a pod, and one must not cost the webhook its memory or the time of others.
func TestExpansionIsBounded(t *testing.T) {
	const big = 20_000
	for name, c := range map[string]struct {
		env  []corev1.EnvVar
		last string
		want known
	}{
		"doubled thirty times":   {doubling(30), "A30", opaque},
		"doubled ten times":      {doubling(10), "A10", given},
		"a chain":                {chain(100), "A100", given},
		"a chain without end":    {chain(big), fmt.Sprint("A", big), opaque},
		"many references":        {append(doubling(0), corev1.EnvVar{Name: "Z", Value: strings.Repeat("$(A0)", big)}), "Z", opaque},
		"a value that is long":   {[]corev1.EnvVar{{Name: "Z", Value: strings.Repeat("x", 10_000)}}, "Z", opaque},
		"nothing doubled thirty": {append([]corev1.EnvVar{{Name: "A0"}}, doubling(30)[1:]...), "A30", given},
	} {
		t.Run(name, func(t *testing.T) {
			begun := time.Now()
			v, k := valueOf(&corev1.Container{Env: c.env}, c.last)
			if k != c.want || len(v) > 4<<10 {
				t.Errorf("it is %s, %d bytes; want %s", k, len(v), c.want)
			}
			pod := simple("db", "postgres:16")
			pod.Spec.Containers[0].Env = append(slices.Clone(c.env),
				corev1.EnvVar{Name: "PGDATA", Value: "$(" + c.last + ")"}, corev1.EnvVar{Name: "POSTGRES_PASSWORD", Value: "$(" + c.last + ")"})
			_, _ = Pod(pod, testInput())
			if took := time.Since(begun); took > 5*time.Second {
				t.Errorf("it took %s", took)
			}
		})
	}
}
