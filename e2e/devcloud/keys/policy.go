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
	if len(r.Prefixes) == 0 || q.OnBucket {
		return true
	}
	return slices.ContainsFunc(r.Prefixes, func(p string) bool { return strings.HasPrefix(q.Key, p) })
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
