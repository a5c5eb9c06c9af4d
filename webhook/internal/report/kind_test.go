package report

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	corev1 "k8s.io/api/core/v1"

	"outrider.dev/webhook/internal/caller"
)

func parse(body, contentType string) (event, error) {
	r := httptest.NewRequest(http.MethodPost, Path, strings.NewReader(body))
	r.Header.Set("Content-Type", contentType)
	q, err := read(httptest.NewRecorder(), r)
	if err != nil {
		return event{}, err
	}
	return q.event()
}

func TestReportsBecomeWords(t *testing.T) {
	for body, want := range map[string]event{
		`{"kind":"protected"}`: {corev1.EventTypeNormal, "Protected", "Report", "what is committed goes to the archive, and there is a snapshot to restore from"},
		`{"kind":"not_protected","since":"2026-04-07T19:03:00+02:00","detail":"no\n\tslot"}`: {
			corev1.EventTypeWarning, "NotProtected", "Report", "not protected since 2026-04-07T17:03:00Z: no slot",
		},
		`{"kind":"notice","release_at":"2026-04-07T17:03:00Z"}`: {corev1.EventTypeWarning, "TerminationNotice", "Report", "the node is announced to be released at 2026-04-07T17:03:00Z"},
		`{"kind":"notice_withdrawn"}`:                           {corev1.EventTypeNormal, "TerminationNoticeWithdrawn", "Report", "the node is not released after all"},
		`{"kind":"superseded","detail":"epoch 7"}`:              {corev1.EventTypeWarning, "Superseded", "Report", "another writer owns the archive: nothing of this one is kept any more: epoch 7"},
		`{"kind":"restored","end":"0/3000060","timeline":2,"before":"clean","lost_bytes":0}`: {
			corev1.EventTypeNormal, "Restored", "Report", "the database was restored up to 0/3000060 of timeline 2; the one before it had stopped in order; nothing was lost",
		},
		`{"kind":"restored","end":"16/B374D848","timeline":3,"before":"interrupted","lost_bytes":512,"detail":"lost: much"}`: {
			corev1.EventTypeWarning, "Restored", "Report", "the database was restored up to 16/B374D848 of timeline 3; the one before it was interrupted; 512 bytes of WAL were lost: lost: much",
		},
		`{"kind":"restore_waiting","waits_for":"archive","since":"2026-04-07T17:03:00Z","detail":"timeout"}`: {
			corev1.EventTypeWarning, "RestoreWaiting", "AskArchive", "PostgreSQL is not started before the archive has answered, since 2026-04-07T17:03:00Z: timeout",
		},
		`{"kind":"restore_waiting","waits_for":"predecessor","detail":"pod db-0"}`: {
			corev1.EventTypeWarning, "RestoreWaiting", "AwaitPredecessor", "the restore waits until the writer before has noticed that it was superseded: pod db-0",
		},
		// A newer sidecar, and one that would like to be somebody else.
		`{"kind":"protected","mood":{"a":[1]},"pod":"other","namespace":"kube-system","reason":"Killing"}`: {
			corev1.EventTypeNormal, "Protected", "Report", "what is committed goes to the archive, and there is a snapshot to restore from",
		},
	} {
		if got, err := parse(body, "application/json; charset=utf-8"); err != nil || got != want {
			t.Errorf("%s: %+v, %v; want %+v", body, got, err, want)
		}
	}
}

func TestWhatIsNoReport(t *testing.T) {
	for body, text := range map[string]string{
		"":                       "the body is not like",
		"null":                   "is not known here",
		"[1]":                    "the body is not like",
		"{}":                     "is not known here",
		`{"kind":"Killing"}`:     "is not known here",
		`{"kind":"protected"}{}`: "more than one",
		`{"kind":"protected"}` + strings.Repeat(" ", largestBody):         "more than 8192 bytes",
		`{"kind":"not_protected"}`:                                        "since is missing",
		`{"kind":"notice","release_at":"soon"}`:                           "the body is not like",
		`{"kind":"notice"}`:                                               "release_at is missing",
		`{"kind":"restored","timeline":1}`:                                "say where the restore ended",
		`{"kind":"restored","end":"0/3000060"}`:                           "say where the restore ended",
		`{"kind":"restored","end":"<b>","timeline":1}`:                    "say where the restore ended",
		`{"kind":"restored","end":"0/1","timeline":1,"before":"x"}`:       "expected clean",
		`{"kind":"restored","end":"0/1","timeline":1,"lost_bytes":-1}`:    "expected 0 or more",
		`{"kind":"restore_waiting"}`:                                      "expected archive",
		`{"kind":"restore_waiting","waits_for":"a friend with a secret"}`: "expected archive",
	} {
		_, err := parse(body, "application/json")
		var no *refusal
		var malformed *caller.MalformedError
		bad := errors.As(err, &no) && no.outcome == BadRequest || errors.As(err, &malformed) && malformed.Status == http.StatusBadRequest
		if !bad || !strings.Contains(err.Error(), text) {
			t.Errorf("%.60s: %v, want %q", body, err, text)
		}
	}
	var another *caller.MalformedError
	if _, err := parse("kind=protected", "application/x-www-form-urlencoded"); !errors.As(err, &another) || another.Status != http.StatusUnsupportedMediaType {
		t.Errorf("a form: %v", err)
	}
}

// Whatever a pod writes, an Event is one line of what is printed, and the API server takes it.
func FuzzNotesArePrintable(f *testing.F) {
	for _, s := range []string{"plain", "\x1b[2Jgone", "a\u202egnirts\u202c", "\x00\xff\xfe", strings.Repeat("ö", 2000), "\u2028line", "%s%d%!"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, detail string) {
		e, err := Request{Kind: Superseded, Detail: detail}.event()
		if err != nil || !utf8.ValidString(e.note) || len(e.note) > 1024 || len(clean(detail)) > longestDetail+len("…") {
			t.Fatalf("%q: %q of %d bytes, %v", detail, e.note, len(e.note), err)
		}
		for _, r := range e.note {
			if !unicode.IsPrint(r) {
				t.Fatalf("%q: %q has %U", detail, e.note, r)
			}
		}
	})
}

func TestEveryKindHasAReason(t *testing.T) {
	seen := map[string]bool{}
	for _, k := range Kinds() {
		if r := k.reason(); r == "" || seen[r] || strings.ContainsAny(r, " _-") {
			t.Errorf("%s has the reason %q", k, r)
		}
		seen[k.reason()] = true
	}
	if Kind("other").reason() != "" {
		t.Error("a kind that is not known has a reason")
	}
}
