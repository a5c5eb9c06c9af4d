package report

import (
	"fmt"
	"regexp"
	"strings"
	"time"
	"unicode"

	corev1 "k8s.io/api/core/v1"
)

// Kind is what has happened, from a closed list.
type Kind string

// The kinds.
const (
	Protected       Kind = "protected"
	NotProtected    Kind = "not_protected"
	Notice          Kind = "notice" // the node will be taken away
	NoticeWithdrawn Kind = "notice_withdrawn"
	Superseded      Kind = "superseded"
	Restored        Kind = "restored"
	RestoreWaiting  Kind = "restore_waiting"
)

// Kinds are all of them.
func Kinds() []Kind {
	return []Kind{Protected, NotProtected, Notice, NoticeWithdrawn, Superseded, Restored, RestoreWaiting}
}

// reason is what the Event is called; "" for a kind that is not known.
func (k Kind) reason() string {
	switch k {
	case Protected:
		return "Protected"
	case NotProtected:
		return "NotProtected"
	case Notice:
		return "TerminationNotice"
	case NoticeWithdrawn:
		return "TerminationNoticeWithdrawn"
	case Superseded:
		return "Superseded"
	case Restored:
		return "Restored"
	case RestoreWaiting:
		return "RestoreWaiting"
	default:
		return ""
	}
}

// Request is the body of a report. Fields that are not known are passed over: a sidecar may be newer than the webhook.
type Request struct {
	Kind Kind `json:"kind"`
	// Since is from when on it holds; of NotProtected and RestoreWaiting.
	Since     *time.Time `json:"since,omitempty"`
	ReleaseAt *time.Time `json:"release_at,omitempty"` // when the node will be released; of Notice
	// WaitsFor is whom a restore waits for: archive, credentials, or predecessor.
	WaitsFor string `json:"waits_for,omitempty"`
	// Of Restored: where the restore ended, as PostgreSQL writes positions, and how the writer before it had ended (clean,
	// interrupted or vanished; "" if that is not known).
	End       string `json:"end,omitempty"`
	Timeline  uint32 `json:"timeline,omitempty"`
	Before    string `json:"before,omitempty"`
	LostBytes *int64 `json:"lost_bytes,omitempty"` // of WAL that is known to be lost
	Detail    string `json:"detail,omitempty"`     // for people
}

// Bounds of an Event: its note may have 1024 bytes (k8s.io/kubernetes, pkg/apis/core/validation/events.go).
const (
	longestNote   = 1000
	longestDetail = 600
)

// position is an LSN as PostgreSQL prints it.
var position = regexp.MustCompile(`^[0-9A-F]{1,8}/[0-9A-F]{1,8}$`)

// event is what a Request becomes. The client folds Events into one that differ in nothing but their note, so what must
// not be folded has an action of its own.
type event struct {
	kind, reason, action, note string
}

// event checks a request and puts it into words. Its errors are refusals.
func (q Request) event() (event, error) {
	e := event{kind: corev1.EventTypeNormal, reason: q.Kind.reason(), action: "Report"}
	detail := clean(q.Detail)
	switch q.Kind {
	case Protected:
		e.note = "what is committed goes to the archive, and there is a snapshot to restore from"
	case NotProtected:
		e.kind = corev1.EventTypeWarning
		if q.Since == nil {
			return e, refuse(BadRequest, "since is missing: say from when on the database is not protected, as 2020-04-07T17:03:00Z")
		}
		e.note = "not protected since " + stamp(*q.Since)
	case Notice:
		e.kind = corev1.EventTypeWarning
		if q.ReleaseAt == nil {
			return e, refuse(BadRequest, "release_at is missing: say when the node will be released, as 2020-04-07T17:03:00Z")
		}
		e.note = "the node is announced to be released at " + stamp(*q.ReleaseAt)
	case NoticeWithdrawn:
		e.note = "the node is not released after all"
	case Superseded:
		e.kind = corev1.EventTypeWarning
		e.note = "another writer owns the archive: nothing of this one is kept any more"
	case Restored:
		return q.restored(e, detail)
	case RestoreWaiting:
		return q.waiting(e, detail)
	default:
		return e, refuse(BadRequest, "the kind %.40q is not known here", string(q.Kind))
	}
	return e.with(detail), nil
}

func (q Request) restored(e event, detail string) (event, error) {
	if !position.MatchString(q.End) || q.Timeline == 0 {
		return e, refuse(BadRequest, "end is %.40q on timeline %d: say where the restore ended, as 16/B374D848 on timeline 2", q.End, q.Timeline)
	}
	e.note = fmt.Sprintf("the database was restored up to %s of timeline %d", q.End, q.Timeline)
	switch q.Before {
	case "":
	case "clean":
		e.note += "; the one before it had stopped in order"
	case "interrupted":
		e.note += "; the one before it was interrupted"
	case "vanished":
		e.note += "; the one before it was gone at once"
	default:
		return e, refuse(BadRequest, "before is %.40q: expected clean, interrupted or vanished", q.Before)
	}
	switch n := q.LostBytes; {
	case n == nil:
	case *n < 0:
		return e, refuse(BadRequest, "lost_bytes is %d: expected 0 or more", *n)
	case *n == 0:
		e.note += "; nothing was lost"
	default:
		e.kind = corev1.EventTypeWarning
		e.note += fmt.Sprintf("; %d bytes of WAL were lost", *n)
	}
	return e.with(detail), nil
}

func (q Request) waiting(e event, detail string) (event, error) {
	e.kind = corev1.EventTypeWarning
	switch q.WaitsFor {
	case "archive":
		e.action, e.note = "AskArchive", "PostgreSQL is not started before the archive has answered"
	case "credentials":
		e.action, e.note = "AskArchive", "PostgreSQL is not started while the archive refuses the credentials"
	case "predecessor":
		e.action, e.note = "AwaitPredecessor", "the restore waits until the writer before has noticed that it was superseded"
	default:
		return e, refuse(BadRequest, "waits_for is %.40q: expected archive, credentials or predecessor", q.WaitsFor)
	}
	if q.Since != nil {
		e.note += ", since " + stamp(*q.Since)
	}
	return e.with(detail), nil
}

// with adds the free text.
func (e event) with(detail string) event {
	if detail != "" {
		e.note += ": " + detail
	}
	if len(e.note) > longestNote {
		e.note = strings.ToValidUTF8(e.note[:longestNote], "") + "…"
	}
	return e
}

// clean leaves of a text what is printed, in one line: neither control characters, nor those that change how others are
// shown.
func clean(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case !unicode.IsPrint(r), r == unicode.ReplacementChar:
			return -1
		}
		return r
	}, s)
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > longestDetail {
		s = strings.ToValidUTF8(s[:longestDetail], "") + "…"
	}
	return s
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
