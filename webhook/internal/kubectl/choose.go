package kubectl

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"outrider.dev/webhook/internal/inject"
)

// NotFoundError says that no protected database goes by a name, or that several could be meant.
type NotFoundError struct{ text string }

// Error says what there is instead.
func (e NotFoundError) Error() string { return e.text }

// Choose finds the pod of one protected database: by the pod's name, by TYPE/NAME of the pod or of its workload, or, with
// "", the only one of the namespace. Nothing of that kind is a NotFoundError.
func (c *Cluster) Choose(ctx context.Context, namespace, name string) (Database, error) {
	all, err := c.find(ctx, namespace)
	if err != nil {
		return Database{}, err
	}
	return choose(all, namespace, name)
}

// Names are the pods of the protected databases of a namespace.
func (c *Cluster) Names(ctx context.Context, namespace string) ([]string, error) {
	all, err := c.find(ctx, namespace)
	if err != nil {
		return nil, err
	}
	return names(protectedOnes(all)), nil
}

func choose(all []Database, namespace, name string) (Database, error) {
	all = protectedOnes(all)
	meant := slices.DeleteFunc(slices.Clone(all), func(d Database) bool { return !d.goesBy(name) })
	switch {
	case len(meant) == 1:
		return meant[0], nil
	case len(all) == 0:
		return Database{}, NotFoundError{fmt.Sprintf("namespace %s has no protected database that is there now. What a database left behind is in the archive, and can be asked from anywhere: "+
			"outrider why --archive oss://BUCKET/PREFIX/%s/CLUSTER", namespace, namespace)}
	case len(meant) == 0:
		return Database{}, NotFoundError{fmt.Sprintf("namespace %s has no protected database %s: it has %s", namespace, name, strings.Join(names(all), ", "))}
	case name == "":
		return Database{}, NotFoundError{fmt.Sprintf("namespace %s has several protected databases: name one of %s", namespace, strings.Join(names(all), ", "))}
	}
	return Database{}, NotFoundError{fmt.Sprintf("%s is several pods: name one of %s", name, strings.Join(names(meant), ", "))}
}

// Hint says what to do instead where a command of outrider could not be run because the sidecar of the pod does not run;
// "" if it does, as far as the pod's status says. In the middle of a restore there is nobody to ask in the pod, and the
// archive can be asked from anywhere.
func (d Database) Hint(command string) string {
	if d.State == "" || d.State == StateUnprotected || d.State == StateSuspected {
		return ""
	}
	about := fmt.Sprintf("the sidecar of pod %s/%s does not run now: it is %s", d.Namespace, d.Pod, d.State)
	if d.Reason != "" {
		about += " (" + d.Reason + ")"
	}
	about += ": ask again when it runs"
	root := variable(initContainer(d.pod, inject.SidecarContainer), "OUTRIDER_ARCHIVE")
	if command == "backup" || !strings.HasPrefix(root, "oss://") {
		return about // it is of the running server, or has no archive
	}
	return about + fmt.Sprintf(", or, from anywhere with the credentials of the archive: outrider %s --archive %s", command, root)
}

func protectedOnes(all []Database) []Database {
	return slices.DeleteFunc(slices.Clone(all), func(d Database) bool { return !claims(d.pod) })
}

func names(all []Database) []string {
	list := make([]string, len(all))
	for i, d := range all {
		list[i] = d.Pod
	}
	return list
}

// goesBy tells whether a name, as people type it, means this database. "" means any.
func (d Database) goesBy(name string) bool {
	kind, rest, typed := strings.Cut(name, "/")
	if !typed {
		return name == "" || name == d.Pod
	}
	switch lower(kind) {
	case "pod", "pods", "po":
		return rest == d.Pod
	case "sts", "statefulsets":
		kind = "statefulset"
	case "deploy", "deployments":
		kind = "deployment"
	}
	return lower(kind)+"/"+rest == d.Workload
}
