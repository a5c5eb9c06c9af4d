package inject

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"outrider.dev/sidecar/policy"
)

// nativeServer is a native sidecar that runs PostgreSQL from a known image, nil if there is none. It starts among the init
// containers and stops after all others, so that nothing can be before it to restore and behind it to ship the rest.
func (w *work) nativeServer() *corev1.Container {
	for i := range w.pod.Spec.InitContainers {
		if c := &w.pod.Spec.InitContainers[i]; isNative(*c) && layoutOf(c).family != unknownImage && runsServer(c) == server {
			return c
		}
	}
	return nil
}

func refuseNative(c *corev1.Container) error {
	return refuse(NoContainer, "PostgreSQL is the init container %s (%s), which goes on running beside the others, and a database cannot be protected there: make it an ordinary container, or, if its data may be lost, set %sprotect to disabled",
		c.Name, c.Image, policy.Prefix)
}

// Suspected tells whether a pod may hold a database that is not protected: nobody knows, and the warnings say why.
func (d Decision) Suspected() bool { return d.Reason == NoPostgres && len(d.Warnings) > 0 }

// lookalikes warns of containers that may well be PostgreSQL and are not protected.
func (w *work) lookalikes() {
	for i := range w.pod.Spec.Containers {
		c := &w.pod.Spec.Containers[i]
		switch guess := runsServer(c); {
		case guess == client:
		case layoutOf(c).family != unknownImage:
			w.warn("container %s has the image %s, and whether its script starts PostgreSQL cannot be told, so it is not protected: if it does, name it in %scontainer, and otherwise set %sprotect to disabled",
				c.Name, c.Image, policy.Prefix, policy.Prefix)
		case looksLikePostgres(c):
			w.warn("container %s (%s) looks like PostgreSQL, but its image is not known, so it is not protected: name it in %scontainer and its data directory in %spgdata, or set %sprotect to disabled",
				c.Name, c.Image, policy.Prefix, policy.Prefix, policy.Prefix)
		}
	}
	w.nativeLookalikes()
}

// nativeLookalikes warns of native sidecars that may.
func (w *work) nativeLookalikes() {
	for i := range w.pod.Spec.InitContainers {
		if c := &w.pod.Spec.InitContainers[i]; isNative(*c) && layoutOf(c).family == unknownImage && runsServer(c) != client && looksLikePostgres(c) {
			w.warn("the init container %s (%s) looks like PostgreSQL, and a database cannot be protected there: make it an ordinary container, or set %sprotect to disabled", c.Name, c.Image, policy.Prefix)
		}
	}
}

func looksLikePostgres(c *corev1.Container) bool {
	if slices.ContainsFunc(c.Env, func(e corev1.EnvVar) bool { return e.Name == "PGDATA" }) {
		return true
	}
	base := parseReference(c.Image).base()
	has := func(part string) bool { return strings.Contains(base, part) }
	return slices.ContainsFunc([]string{"postgres", "timescale", "spilo"}, has) && !isTool(base)
}

// isTool tells by the name of an image that it is of something beside a PostgreSQL. Short names are only taken as whole
// words: they are parts of too many others.
func isTool(base string) bool {
	has := func(part string) bool { return strings.Contains(base, part) }
	words := strings.FieldsFunc(base, func(r rune) bool { return strings.ContainsRune("-_.", r) })
	return slices.ContainsFunc([]string{
		"export", "operator", "backup", "client", "pool", "proxy", "bounce", "prometheus", "adapter", "admin", "postgrest", "migrat",
	}, has) || slices.Contains(words, "meta") || slices.Contains(words, "mcp")
}
