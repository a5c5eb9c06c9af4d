package policy

import (
	"errors"
	"maps"
	"slices"
	"strings"
)

// Level is one place where keys of the policy are given. Later levels win over earlier ones.
type Level struct {
	name   string
	values map[string]string // by the key's name
	spell  func(Key) string  // how a key is written there
	many   bool              // whether it holds for many pods
}

// Configuration is the webhook's configuration: keys without the prefix.
func Configuration(values map[string]string) Level {
	return Level{name: "configuration", values: values, spell: bare, many: true}
}

// Namespace is the level of a namespace's annotations. Annotations of others are passed over.
func Namespace(name string, annotations map[string]string) Level {
	return Level{name: "namespace " + name, values: ours(annotations), spell: prefixed, many: true}
}

// Pod is the level of a pod's annotations. Annotations of others are passed over.
func Pod(annotations map[string]string) Level {
	return Level{name: "pod", values: ours(annotations), spell: prefixed}
}

// Said is what a level says of a key, as it stands there: whether it is right is not looked at. "" is nothing.
func (l Level) Said(name string) string { return strings.TrimSpace(l.values[name]) }

func bare(k Key) string     { return k.Name }
func prefixed(k Key) string { return Prefix + k.Name }
func inEnv(k Key) string    { return k.Env }
func asFlag(k Key) string   { return "--" + k.Name }

func ours(annotations map[string]string) map[string]string {
	values := map[string]string{}
	for name, v := range annotations {
		if key, ok := strings.CutPrefix(name, Prefix); ok && name != Status {
			values[key] = v
		}
	}
	return values
}

// Sources tells for each key which level gave its value: the level's name, or Default. Keys without a value are
// absent.
type Sources map[string]string

// Default is the source of a value that nobody gave.
const Default = "default"

// Error is one thing that is wrong with a policy.
type Error struct {
	Level   string // where
	Key     string // as it is spelt there
	Problem string // what is wrong and what would be right
}

// Error is the message: level, key, problem and remedy.
func (e *Error) Error() string {
	if e.Level == "" {
		return e.Key + ": " + e.Problem
	}
	return e.Level + ": " + e.Key + ": " + e.Problem
}

// Resolve merges levels, the weakest first, over the defaults. All that is wrong on any level is reported at once, as
// joined errors of type *Error; the Policy is then empty.
func Resolve(levels ...Level) (Policy, Sources, error) {
	fs := fields()
	byName := make(map[string]field, len(fs))
	var p Policy
	var errs []error
	sources := Sources{}
	for _, f := range fs {
		byName[f.Name] = f
		if f.Default == "" {
			continue
		}
		if err := f.set(&p, f.Default); err != nil {
			errs = append(errs, &Error{Level: Default, Key: f.Name, Problem: err.Error()})
		}
		sources[f.Name] = Default
	}
	for _, l := range levels {
		for _, name := range slices.Sorted(maps.Keys(l.values)) {
			f, known := byName[name]
			if !known {
				errs = append(errs, &Error{Level: l.name, Key: l.spell(Key{Name: name}), Problem: unknownKey(name, l)})
				continue
			}
			if problem := l.apply(f, &p); problem != "" {
				errs = append(errs, &Error{Level: l.name, Key: l.spell(f.Key), Problem: problem})
				continue
			}
			sources[name] = l.name
		}
	}
	if len(errs) == 0 {
		errs = contradictions(p, sources)
	}
	if err := errors.Join(errs...); err != nil {
		return Policy{}, nil, err
	}
	return p, sources, nil
}

func (l Level) apply(f field, p *Policy) (problem string) {
	v := strings.TrimSpace(l.values[f.Name])
	switch {
	case f.PodOnly && l.many:
		return "it is about a single database: set it on the pod"
	case v == "":
		return "it is empty: leave it out, or give " + f.Form
	}
	if err := f.set(p, v); err != nil {
		return err.Error()
	}
	return ""
}

// contradictions finds what is wrong between keys that are each right.
func contradictions(p Policy, sources Sources) (errs []error) {
	wrong := func(key, problem string) {
		errs = append(errs, &Error{Level: sources[key], Key: key, Problem: problem})
	}
	clone := p.Archiving == Off && p.RestoreFrom != ""
	if p.Archive == "" && p.Protect != ProtectDisabled && !clone {
		wrong("archive", "it is set nowhere: expected oss://bucket/prefix in an annotation of the pod or its namespace, "+
			"in the webhook's configuration, or as --archive or OUTRIDER_ARCHIVE on the command line")
	}
	if p.Restore == RestoreNever && p.RestoreFrom != "" {
		wrong("restore-from", "it contradicts restore "+string(RestoreNever)+": leave one of them out")
	}
	if p.Restore == RestoreNever && p.RestoreTarget != (Target{}) {
		wrong("restore-target", "it contradicts restore "+string(RestoreNever)+": leave one of them out")
	}
	return errs
}
