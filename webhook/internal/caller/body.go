package caller

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"time"
)

// MalformedError is a call that is none by its own word.
type MalformedError struct {
	Status int    // 400, 405 or 415
	Text   string // for the caller
}

func (e *MalformedError) Error() string { return e.Text }

func malformed(status int, format string, args ...any) error {
	return &MalformedError{Status: status, Text: fmt.Sprintf(format, args...)}
}

// Posted refuses what is no POST, and says so in the header of the answer.
func Posted(w http.ResponseWriter, r *http.Request) error {
	if r.Method == http.MethodPost {
		return nil
	}
	w.Header().Set("Allow", http.MethodPost)
	return malformed(http.StatusMethodNotAllowed, "only POST is answered here")
}

// Body takes the JSON of a request apart, of at most so many bytes. Its errors are MalformedErrors; like is how a good body
// looks. Fields that are not known are passed over.
func Body(w http.ResponseWriter, r *http.Request, largest int64, like string, into any) error {
	if t := r.Header.Get("Content-Type"); t != "" {
		if m, _, err := mime.ParseMediaType(t); err != nil || m != "application/json" {
			return malformed(http.StatusUnsupportedMediaType, "the body is %.60q: send application/json", t)
		}
	}
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, largest))
	if err := d.Decode(into); err != nil {
		return malformed(http.StatusBadRequest, "the body is not like %s: %v", like, err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return malformed(http.StatusBadRequest, "the body has more than one JSON value, or more than %d bytes", largest)
	}
	return nil
}

// Answer sends an answer as JSON. again, unless 0, is after how long the caller is to come again; it is in whole seconds.
func Answer(w http.ResponseWriter, status int, again time.Duration, body any) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	if status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", `Bearer realm="outrider.dev"`)
	}
	if again > 0 {
		h.Set("Retry-After", fmt.Sprint(int(again.Seconds())))
	}
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // whoever called may be gone
}
