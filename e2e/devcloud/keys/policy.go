package keys

import (
	"slices"
	"strings"
)

// Rule allows actions on keys. An empty list means all.
type Rule struct {
	// Actions as in a RAM policy, such as "oss:PutObject"; a trailing * stands for any ending.
	Actions []string `json:"actions,omitempty"`
	// Buckets by name.
	Buckets []string `json:"buckets,omitempty"`
	// Prefixes of object keys. For a listing the requested prefix has to begin with one of them. Actions on a
	// bucket as a whole do not look at them.
	Prefixes []string `json:"prefixes,omitempty"`
	// Patterns of whole object keys, as in the resources of a RAM policy: * stands for any run of characters. For a
	// listing the requested prefix has to match one of them, as in the condition oss:Prefix.
	Patterns []string `json:"patterns,omitempty"`
}

// Request is what a rule judges: an action on one key of a bucket. OnBucket marks actions that have no key.
type Request struct {
	Action, Bucket, Key string
	OnBucket            bool
}

func (r Rule) allows(q Request) bool {
	if len(r.Actions) > 0 && !slices.ContainsFunc(r.Actions, func(a string) bool { return matches(a, q.Action) }) {
		return false
	}
	if len(r.Buckets) > 0 && !slices.Contains(r.Buckets, q.Bucket) {
		return false
	}
	if q.OnBucket {
		return true
	}
	if len(r.Prefixes) > 0 && !slices.ContainsFunc(r.Prefixes, func(p string) bool { return strings.HasPrefix(q.Key, p) }) {
		return false
	}
	return len(r.Patterns) == 0 || slices.ContainsFunc(r.Patterns, func(p string) bool { return like(p, q.Key) })
}

// like tells whether the whole text matches a pattern in which * stands for any run of characters, slashes included.
func like(pattern, text string) bool {
	parts := strings.Split(pattern, "*")
	last := len(parts) - 1
	if last == 0 {
		return text == pattern
	}
	text, ok := strings.CutPrefix(text, parts[0])
	for _, part := range parts[1:last] {
		i := strings.Index(text, part)
		if i < 0 {
			return false
		}
		text = text[i+len(part):]
	}
	return ok && strings.HasSuffix(text, parts[last])
}

func matches(pattern, action string) bool {
	if prefix, ok := strings.CutSuffix(pattern, "*"); ok {
		return strings.HasPrefix(action, prefix)
	}
	return pattern == action
}

// Allows tells whether the owner of the key may do it: without rules everything, otherwise what any rule allows.
func (k Key) Allows(q Request) bool {
	return len(k.Rules) == 0 || slices.ContainsFunc(k.Rules, func(r Rule) bool { return r.allows(q) })
}
