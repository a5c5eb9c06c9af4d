package inject

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// copier makes variables of the PostgreSQL container available in another one, as references: their values stay where
// they are. A reference that finds nothing leaves the variable out instead of keeping the container from starting.
type copier struct {
	from *corev1.Container
	env  index           // of from, once something is referred to
	need map[int]bool    // definitions that others refer to
	free []string        // names that are referred to and defined as a whole elsewhere (envFrom)
	seen map[string]bool // those in free
	last []corev1.EnvVar
}

// variable gives target the value of the first of sources that the container defines itself, else of any that its
// ConfigMaps and Secrets (envFrom) may define; there the image's own names count, not target's. fallback is the value if
// nothing is found; "" is none.
func (c *copier) variable(target, fallback string, sources ...string) {
	for _, s := range sources {
		i := lastVariable(c.from.Env, s)
		if i < 0 {
			continue
		}
		c.require(i)
		if s == target && c.need[i] {
			return
		}
		e := c.definition(i)
		e.Name = target
		// A reference that finds nothing would leave the fallback of the image in force, not an empty name.
		if e.ValueFrom != nil && fallback != "" {
			c.last = append(c.last, corev1.EnvVar{Name: target, Value: fallback})
		}
		c.last = append(c.last, e)
		return
	}
	if fallback != "" {
		c.last = append(c.last, corev1.EnvVar{Name: target, Value: fallback})
	}
	for _, s := range slices.Backward(sources) { // of several definitions the last one present holds
		if s != target || len(sources) == 1 {
			c.last = append(c.last, fromAll(c.from.EnvFrom, target, s)...)
		}
	}
}

// referred takes a variable along under its own name, because something refers to it.
func (c *copier) referred(name string) {
	i := lastVariable(c.from.Env, name)
	if i < 0 {
		c.elsewhere(name)
		return
	}
	if c.need[i] {
		return
	}
	if c.need == nil {
		c.need = map[int]bool{}
	}
	c.need[i] = true
	c.require(i)
}

// elsewhere takes along a name that nothing in the container itself defines.
func (c *copier) elsewhere(name string) {
	if c.seen == nil {
		c.seen = map[string]bool{}
	}
	if !c.seen[name] {
		c.seen[name] = true
		c.free = append(c.free, name)
	}
}

// require takes along what the definition i refers to. A reference sees only what stands before it.
func (c *copier) require(i int) {
	if c.env.all == nil {
		c.env = newIndex(c.from.Env)
	}
	for _, name := range references(c.from.Env[i].Value) {
		if j := c.env.before(i, name); j >= 0 {
			if c.need == nil {
				c.need = map[int]bool{}
			}
			if !c.need[j] {
				c.need[j] = true
				c.require(j)
			}
			continue
		}
		c.elsewhere(name)
	}
}

// definition is a variable's definition for another container.
func (c *copier) definition(i int) corev1.EnvVar {
	e := *c.from.Env[i].DeepCopy()
	if e.ValueFrom == nil {
		return e
	}
	if r := e.ValueFrom.SecretKeyRef; r != nil {
		r.Optional = new(true)
	}
	if r := e.ValueFrom.ConfigMapKeyRef; r != nil {
		r.Optional = new(true)
	}
	if r := e.ValueFrom.FileKeyRef; r != nil {
		r.Optional = new(true)
	}
	if r := e.ValueFrom.ResourceFieldRef; r != nil && r.ContainerName == "" {
		r.ContainerName = c.from.Name
	}
	return e
}

// variables are all that were asked for, in an order in which references find what they refer to.
func (c *copier) variables() []corev1.EnvVar {
	var env []corev1.EnvVar
	for _, name := range c.free {
		env = append(env, fromAll(c.from.EnvFrom, name, name)...)
	}
	for i := range c.from.Env {
		if c.need[i] {
			env = append(env, c.definition(i))
		}
	}
	return append(env, c.last...)
}

// fromAll defines target by the key that name has in each ConfigMap and Secret of envFrom.
func fromAll(sources []corev1.EnvFromSource, target, name string) (env []corev1.EnvVar) {
	for _, f := range sources {
		key, ok := strings.CutPrefix(name, f.Prefix)
		if !ok || key == "" {
			continue
		}
		e := corev1.EnvVar{Name: target, ValueFrom: &corev1.EnvVarSource{}}
		switch {
		case f.SecretRef != nil:
			e.ValueFrom.SecretKeyRef = &corev1.SecretKeySelector{LocalObjectReference: f.SecretRef.LocalObjectReference, Key: key, Optional: new(true)}
		case f.ConfigMapRef != nil:
			e.ValueFrom.ConfigMapKeyRef = &corev1.ConfigMapKeySelector{LocalObjectReference: f.ConfigMapRef.LocalObjectReference, Key: key, Optional: new(true)}
		default:
			continue
		}
		env = append(env, e)
	}
	return env
}
