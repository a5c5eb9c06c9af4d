package caller_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"outrider.dev/webhook/internal/caller"
)

// What is taken for a token has three parts, a bounded length, and nothing that could become another header.
func FuzzToken(f *testing.F) {
	const longest = 16 << 10
	for _, s := range []string{"Bearer a.b.c", "bearer  a.b.c ", "Basic a.b.c", "Bearer", "", "Bearer a", "Bearer " + strings.Repeat("a", longest) + ".b.c"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, header string) {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", nil)
		r.Header["Authorization"] = []string{header}
		token, err := caller.Token(r)
		if (err == nil) != (token != "") || len(token) > longest || err == nil && strings.Count(token, ".") != 2 || strings.ContainsAny(token, "\r\n") && !strings.ContainsAny(header, "\r\n") {
			t.Fatalf("%q is taken as %q, %v", header, token, err)
		}
	})
}

func TestToken(t *testing.T) {
	for header, want := range map[string]string{"Bearer a.b.c": "a.b.c", "bearer  a.b.c ": "a.b.c", "Basic a.b.c": "", "Bearer a.b": "", "": ""} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", nil)
		r.Header.Set("Authorization", header)
		if token, err := caller.Token(r); token != want || (err != nil) != (want == "") {
			t.Errorf("%q: %q, %v", header, token, err)
		}
	}
}

// One key does not use up what another one may, and what was used up comes back.
func TestLimiter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := caller.NewLimiter(time.Second, 2)
		allowed := func(key string) (n int) {
			for l.Allow(time.Now(), key) {
				n++
			}
			return n
		}
		if a, b := allowed("a"), allowed("b"); a != 2 || b != 2 {
			t.Errorf("%d and %d at once", a, b)
		}
		time.Sleep(time.Second)
		if a := allowed("a"); a != 1 {
			t.Errorf("%d after a second", a)
		}
		time.Sleep(3 * time.Hour) // everything is forgotten
		if a, b := allowed("a"), allowed("b"); a != 2 || b != 2 {
			t.Errorf("%d and %d after hours", a, b)
		}
	})
}

func TestWhatIsNoCall(t *testing.T) {
	for name, c := range map[string]struct {
		method, contentType, body string
		status                    int
	}{
		"a GET":     {method: http.MethodGet, status: http.StatusMethodNotAllowed},
		"a form":    {contentType: "application/x-www-form-urlencoded", body: "{}", status: http.StatusUnsupportedMediaType},
		"no JSON":   {body: "x", status: http.StatusBadRequest},
		"two":       {body: "{}{}", status: http.StatusBadRequest},
		"too large": {body: `{"a":"` + strings.Repeat("x", 100) + `"}`, status: http.StatusBadRequest},
		"a call":    {body: `{"a":"b"}`, status: http.StatusOK},
	} {
		front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			var into struct{ A string }
			err := caller.Posted(w, r)
			if err == nil {
				err = caller.Body(w, r, 64, `{"a": "b"}`, &into)
			}
			status, text := http.StatusOK, "fine"
			if m, ok := err.(*caller.MalformedError); ok { //nolint:errorlint // it is never wrapped
				status, text = m.Status, m.Text
			}
			caller.Answer(w, status, 5*time.Second, map[string]string{"message": text})
		}))
		if c.method == "" {
			c.method = http.MethodPost
		}
		q, err := http.NewRequestWithContext(t.Context(), c.method, front.URL, strings.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		if c.contentType != "" {
			q.Header.Set("Content-Type", c.contentType)
		}
		a, err := front.Client().Do(q)
		if err != nil {
			t.Fatal(err)
		}
		_ = a.Body.Close()
		front.Close()
		if a.StatusCode != c.status || a.Header.Get("Retry-After") != "5" || a.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: status %d, header %v; want %d", name, a.StatusCode, a.Header, c.status)
		}
	}
}
