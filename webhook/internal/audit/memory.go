package audit

import (
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
)

// again is how long something that does not change is not said anew. Events are kept for an hour.
const again = 24 * time.Hour

// gone is after how long something that was not found any more is news when it comes back.
const gone = time.Hour

// longestNote is what the API server takes (1024 bytes).
const longestNote = 1000

// memory is what was said, about what. A replica that begins to lead says everything once more.
type memory map[topic]*entry

type topic struct {
	uid    types.UID
	reason string
	text   string
}

type entry struct {
	said, asked time.Time
}

// news tells whether something has to be said, and remembers that it was.
func (m memory) news(now time.Time, t topic) bool {
	e := m[t]
	if e == nil {
		m[t] = &entry{said: now, asked: now}
		return true
	}
	e.asked = now
	if now.Sub(e.said) < again {
		return false
	}
	e.said = now
	return true
}

// forget drops what has not been true for a while.
func (m memory) forget(now time.Time) {
	for t, e := range m {
		if now.Sub(e.asked) > gone {
			delete(m, t)
		}
	}
}

// say writes a warning as an Event about an object, unless that was done.
func (a *Auditor) say(regarding, related runtime.Object, reason, text string) {
	t := topic{uid: uidOf(regarding), reason: reason, text: text}
	if a.recorder == nil || !a.said.news(time.Now(), t) {
		return
	}
	if len(text) > longestNote {
		text = strings.ToValidUTF8(text[:longestNote], "") + "…"
	}
	a.recorder.Eventf(regarding, related, corev1.EventTypeWarning, reason, "Audit", "%s", text)
}

func uidOf(o runtime.Object) types.UID {
	if r, ok := o.(*corev1.ObjectReference); ok {
		return r.UID
	}
	m, err := meta.Accessor(o)
	if err != nil {
		return types.UID(fmt.Sprintf("%T", o))
	}
	return m.GetUID()
}
