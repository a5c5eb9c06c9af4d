package policy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Key describes one key of the policy.
type Key struct {
	Name    string // without Prefix; also the name of the flag of verbs that it concerns, with a few exceptions
	Env     string // name in the environment
	Default string // the value that holds when none is given; empty if there is none
	Unset   string // what is done when neither a value nor a default is there
	Form    string // which values are allowed
	Doc     string // meaning, one sentence without a full stop
	PodOnly bool   // refused as a default for many pods, because it names or marks a single one
}

// Keys describes all keys in the order in which they are documented.
func Keys() []Key {
	fs := fields()
	keys := make([]Key, len(fs))
	for i, f := range fs {
		keys[i] = f.Key
	}
	return keys
}

// field is a Key and the one place that parses and formats it. get returns "" for a value that means unset.
type field struct {
	Key
	set func(p *Policy, value string) error
	get func(p *Policy) string
}

func text(k Key, at func(*Policy) *string, check func(string) (string, error)) field {
	return field{
		Key: k,
		set: func(p *Policy, v string) (err error) {
			*at(p), err = check(v)
			return err
		},
		get: func(p *Policy) string { return *at(p) },
	}
}

func choice[T ~string](k Key, at func(*Policy) *T, values ...T) field {
	words := make([]string, len(values))
	for i, v := range values {
		words[i] = string(v)
	}
	k.Form = strings.Join(words, ", ")
	return field{
		Key: k,
		set: func(p *Policy, v string) error {
			if !slices.Contains(words, v) {
				return fmt.Errorf("%q is none of these: %s", v, k.Form)
			}
			*at(p) = T(v)
			return nil
		},
		get: func(p *Policy) string { return string(*at(p)) },
	}
}

// duration takes Key.Form for an example where there is no default.
func duration(k Key, at func(*Policy) *time.Duration, low, high time.Duration) field {
	k.Form = fmt.Sprintf("%s to %s, such as %s", FormatDuration(low), FormatDuration(high), cmp.Or(k.Default, k.Form))
	return field{
		Key: k,
		set: func(p *Policy, v string) error {
			d, err := ParseDuration(v)
			if err == nil && (d < low || d > high) {
				err = fmt.Errorf("%q is out of range: expected %s to %s", v, FormatDuration(low), FormatDuration(high))
			}
			*at(p) = d
			return err
		},
		get: func(p *Policy) string {
			if *at(p) == 0 {
				return ""
			}
			return FormatDuration(*at(p))
		},
	}
}

// stringer is a value with a text form; the zero value's is empty.
type stringer interface {
	comparable
	String() string
}

func value[T stringer](k Key, at func(*Policy) *T, parse func(string) (T, error)) field {
	return field{
		Key: k,
		set: func(p *Policy, v string) (err error) {
			*at(p), err = parse(v)
			return err
		},
		get: func(p *Policy) string {
			var zero T
			if *at(p) == zero {
				return ""
			}
			return (*at(p)).String()
		},
	}
}
