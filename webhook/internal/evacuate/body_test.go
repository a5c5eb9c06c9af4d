package evacuate

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

func readBody(body, contentType string) (Request, error) {
	r := httptest.NewRequest(http.MethodPost, Path, strings.NewReader(body))
	r.Header.Set("Content-Type", contentType)
	return read(httptest.NewRecorder(), r)
}

func TestBodies(t *testing.T) {
	at := time.Date(2026, 4, 7, 17, 3, 0, 0, time.UTC)
	for name, c := range map[string]struct {
		body, contentType string
		want              time.Time
		text              string
	}{
		"as ECS says it":     {body: `{"release_at":"2026-04-07T17:03:00Z"}`, want: at},
		"with a zone":        {body: `{"release_at":"2026-04-07T19:03:00+02:00","instance":"i-1"}`, want: at},
		"of a newer sidecar": {body: `{"release_at":"2026-04-07T17:03:00Z","mood":{"a":[1]}}`, contentType: "application/json; charset=utf-8", want: at},
		"empty":              {text: "the body is not like"},
		"no time":            {body: `{}`, text: "release_at is missing"},
		"null":               {body: `null`, text: "release_at is missing"},
		"no object":          {body: `[1]`, text: "the body is not like"},
		"no RFC 3339":        {body: `{"release_at":"tomorrow"}`, text: "tomorrow"},
		"a number":           {body: `{"release_at":1775581380}`, text: "the body is not like"},
		"two":                {body: `{"release_at":"2026-04-07T17:03:00Z"}{}`, text: "more than one"},
		"too long":           {body: `{"instance":"` + strings.Repeat("x", largestBody) + `","release_at":"2026-04-07T17:03:00Z"}`, text: "too large"},
		"too long behind":    {body: `{"release_at":"2026-04-07T17:03:00Z"}` + strings.Repeat(" ", largestBody), text: "more than 4096 bytes"},
		"a form":             {body: "release_at=x", contentType: "application/x-www-form-urlencoded", text: "send application/json"},
	} {
		q, err := readBody(c.body, c.contentType)
		if c.text != "" {
			if err == nil || !strings.Contains(err.Error(), c.text) {
				t.Errorf("%s: %v, want %q", name, err, c.text)
			}
			continue
		}
		if err != nil || !q.ReleaseAt.Equal(c.want) {
			t.Errorf("%s: %v, %v", name, q, err)
		}
	}
}

func TestBodyThatBreaksOffIsNoRequest(t *testing.T) {
	r := httptest.NewRequest(http.MethodPost, Path, iotest.TimeoutReader(iotest.OneByteReader(strings.NewReader(`{"release_at":"2026-04-07T17:03:00Z"}`))))
	if _, err := read(httptest.NewRecorder(), r); outcomeOf(err) != BadRequest {
		t.Errorf("%v", err)
	}
}

// Whatever is sent is a request with a time, or refused with words.
func FuzzBody(f *testing.F) {
	for _, s := range []string{`{"release_at":"2026-04-07T17:03:00Z"}`, `{"release_at":"9999-12-31T23:59:59.999999999+23:59"}`, `{"release_at":null}`, `{"RELEASE_AT":"0001-01-01T00:00:00Z"}`, "\x00", `{"release_at":"`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, body string) {
		q, err := readBody(body, "application/json")
		if err == nil && (q.ReleaseAt.IsZero() || len(body) > largestBody) {
			t.Fatalf("%q is taken as %+v", body, q)
		}
		if err != nil && (outcomeOf(err) != BadRequest || err.Error() == "") {
			t.Fatalf("%q: %v", body, err)
		}
		// What may be a time at all must not upset what is decided by it.
		now := time.Date(2026, 4, 7, 17, 0, 0, 0, time.UTC)
		if err == nil && checkTime(now, q.ReleaseAt) == nil {
			if p := decide(now, q.ReleaseAt, pod(nil)); p.grace < 1 || p.grace > 120 {
				t.Fatalf("%q: %+v", body, p)
			}
		}
	})
}

func TestEveryOutcomeHasAnAnswer(t *testing.T) {
	for _, o := range Outcomes() {
		changed := o == Evicted || o == Deleted || o == Terminating || o == PreparedOnly || o == Waiting
		if s := o.status(); changed != (s < 300) || s < 200 {
			t.Errorf("%s has status %d", o, s)
		}
	}
	if s := refuse(Unauthenticated, "x"); !errors.As(s, new(*refusal)) || Unauthenticated.status() != http.StatusUnauthorized {
		t.Error("a refusal is lost")
	}
}
