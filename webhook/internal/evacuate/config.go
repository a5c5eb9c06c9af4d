package evacuate

import (
	"fmt"
	"net/url"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// Config is the part evacuation of the webhook's configuration file.
type Config struct {
	// URL is where sidecars ask, such as https://outrider-webhook.outrider-system.svc/v1/evacuations. Without one pods are
	// told nothing of it and save themselves; InstanceExpired is still answered.
	URL string `json:"url"`
	// SpotNodes say which nodes may be reclaimed: a node that one of them matches. Absent is DefaultSpotNodes; an empty
	// list is no node but those with the condition InstanceExpired.
	SpotNodes []NodeSelector `json:"spotNodes"`
	// Drain is DrainNode to evict every pod of a node that is being reclaimed, not only those that are protected; ""
	// leaves the others alone. Pods that no controller makes, and those of DaemonSets, stay in any case. With it, whoever
	// may make pods in a protected namespace can have any spot node drained, by a notice that is none.
	Drain string `json:"drain"`
	// FastReplace removes a protected pod without persistent volumes from the API server when its node does not answer any
	// more and the announced time has passed, so that it is replaced without waiting for the Node object to go. Its
	// containers may still run there: what keeps them from writing to the archive is the epoch.
	FastReplace bool `json:"fastReplace"`
}

// DrainNode is the value of Config.Drain that empties the whole node.
const DrainNode = "node"

// NodeSelector matches nodes. What is empty matches all; one of both has to be given.
type NodeSelector struct {
	// Labels is a label selector as kubectl takes it, such as "pool=spot" or "tier in (spot,preemptible)".
	Labels string `json:"labels"`
	// Taint is KEY, KEY=VALUE, KEY:EFFECT or KEY=VALUE:EFFECT.
	Taint string `json:"taint"`
}

// DefaultSpotNodes are those that ACK's cloud-controller-manager (v2.10.2 and later) and Karpenter mark themselves.
func DefaultSpotNodes() []NodeSelector {
	return []NodeSelector{
		{Labels: "node.alibabacloud.com/spot-strategy in (SpotWithPriceLimit,SpotAsPriceGo)"},
		{Labels: "karpenter.sh/capacity-type=spot"},
	}
}

// Validate says what is wrong with the configuration, and where.
func (c Config) Validate() error {
	_, err := c.compile()
	return err
}

func (c Config) compile() (spotNodes, error) {
	if c.URL != "" {
		u, err := url.Parse(c.URL)
		if err != nil || u.Scheme != "https" || u.Host == "" {
			return nil, fmt.Errorf("evacuation.url %q: expected https://HOST%s", c.URL, Path)
		}
	}
	if c.Drain != "" && c.Drain != DrainNode {
		return nil, fmt.Errorf("evacuation.drain %q: expected %s, or nothing", c.Drain, DrainNode)
	}
	list := c.SpotNodes
	if list == nil {
		list = DefaultSpotNodes()
	}
	var all spotNodes
	for i, s := range list {
		m, err := s.compile()
		if err != nil {
			return nil, fmt.Errorf("evacuation.spotNodes[%d]: %w", i, err)
		}
		all = append(all, m)
	}
	return all, nil
}

func (s NodeSelector) compile() (nodeMatcher, error) {
	m := nodeMatcher{labels: labels.Everything()}
	if s.Labels == "" && s.Taint == "" {
		return m, fmt.Errorf("it has neither labels nor a taint, and would match every node: to do so, say labels: kubernetes.io/os=linux")
	}
	var err error
	if m.labels, err = labels.Parse(s.Labels); err != nil {
		return m, fmt.Errorf("labels %q: %w: expected a label selector such as pool=spot", s.Labels, err)
	}
	if s.Taint == "" {
		return m, nil
	}
	text, effect, _ := strings.Cut(s.Taint, ":")
	key, value, valued := strings.Cut(text, "=")
	switch e := corev1.TaintEffect(effect); e {
	case "", corev1.TaintEffectNoSchedule, corev1.TaintEffectPreferNoSchedule, corev1.TaintEffectNoExecute:
		m.taint = &taintMatcher{key: key, value: value, valued: valued, effect: e}
	default:
		return m, fmt.Errorf("taint %q: the effect %q is none of NoSchedule, PreferNoSchedule, NoExecute", s.Taint, effect)
	}
	if key == "" {
		return m, fmt.Errorf("taint %q has no key: expected KEY, KEY=VALUE, KEY:EFFECT or KEY=VALUE:EFFECT", s.Taint)
	}
	return m, nil
}

// spotNodes tell which nodes may be reclaimed.
type spotNodes []nodeMatcher

type nodeMatcher struct {
	labels labels.Selector
	taint  *taintMatcher
}

type taintMatcher struct {
	key, value string
	valued     bool
	effect     corev1.TaintEffect
}

func (s spotNodes) match(n *corev1.Node) bool {
	for _, m := range s {
		if m.match(n) {
			return true
		}
	}
	return false
}

func (m nodeMatcher) match(n *corev1.Node) bool {
	if !m.labels.Matches(labels.Set(n.Labels)) {
		return false
	}
	if m.taint == nil {
		return true
	}
	for _, t := range n.Spec.Taints {
		if t.Key == m.taint.key && (!m.taint.valued || t.Value == m.taint.value) && (m.taint.effect == "" || t.Effect == m.taint.effect) {
			return true
		}
	}
	return false
}
