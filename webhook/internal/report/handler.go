package report

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"time"
)

// largestBody is more than a report needs: its free text is cut to less than that.
const largestBody = 8 << 10

// answerWithin bounds all questions to the API server of one report.
const answerWithin = 8 * time.Second

// Handler answers POST /v1/reports. Every answer is an Answer as JSON:
//
//	200  noted: the Events are being written
//	400  the body is not a Request;  405, 415  not a POST, not JSON
//	401  no token, or none that is valid for the audience outrider.dev
//	403  the token is good, and its pod is gone or has no sidecar of ours
//	429  too often
//	503  it could not be told who reports
func (r *Reporter) Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		ctx, cancel := context.WithTimeout(q.Context(), answerWithin)
		defer cancel()
		reason, err := r.answer(ctx, w, q)
		a, status := r.outcome(ctx, err)
		r.metrics.reports.WithLabelValues(reason, string(a.Outcome)).Inc()
		h := w.Header()
		h.Set("Content-Type", "application/json")
		h.Set("Cache-Control", "no-store")
		h.Set("X-Content-Type-Options", "nosniff")
		switch a.Outcome {
		case Unauthenticated:
			h.Set("WWW-Authenticate", `Bearer realm="outrider.dev"`)
		case TooMany, Unknown:
			h.Set("Retry-After", "10")
		default:
		}
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(a) // whoever reported may be gone
	})
}

// outcome puts an error into an Answer.
func (r *Reporter) outcome(ctx context.Context, err error) (Answer, int) {
	var no *refusal
	var another *unexpected
	switch {
	case err == nil:
		return Answer{Outcome: Noted, Message: "Events are written"}, http.StatusOK
	case errors.As(err, &another):
		return Answer{Outcome: BadRequest, Message: another.text}, another.status
	case errors.As(err, &no):
		r.log.DebugContext(ctx, "a report was refused", "outcome", string(no.outcome), "reason", no.text)
		return Answer{Outcome: no.outcome, Message: no.text}, no.outcome.status()
	}
	// What the API server said in detail is for the log, not for the pod.
	r.log.WarnContext(ctx, "a report could not be taken", "error", err)
	return Answer{Outcome: Unknown, Message: "the API server could not be asked: try again"}, Unknown.status()
}

// answer goes from who reports to what is reported, and only then writes anything. It returns the label reason.
func (r *Reporter) answer(ctx context.Context, w http.ResponseWriter, q *http.Request) (string, error) {
	if q.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		return none, &unexpected{http.StatusMethodNotAllowed, "only POST is answered here"}
	}
	token := bearer(q)
	if token == "" {
		return none, refuse(Unauthenticated, "no token: send the projected service account token as Authorization: Bearer TOKEN")
	}
	if !r.reviews.Allow() {
		return none, refuse(TooMany, "too many reports at once: try again")
	}
	c, err := r.authenticate(ctx, token)
	if err != nil {
		return none, err
	}
	if !r.pods.allow(r.now(), c.uid) {
		return none, refuse(TooMany, "pod %s/%s reports too often: one in %v is enough", c.namespace, c.name, podInterval)
	}
	said, err := read(w, q)
	if err != nil {
		return none, err
	}
	e, err := said.event()
	if err != nil {
		return none, err
	}
	pod, err := r.find(ctx, c)
	if err != nil {
		return none, err
	}
	r.tell(ctx, pod, e)
	return e.reason, nil
}

// unexpected is a request that is no report by its own word.
type unexpected struct {
	status int
	text   string
}

func (u *unexpected) Error() string { return u.text }

// read takes the body apart. Its errors are refusals.
func read(w http.ResponseWriter, r *http.Request) (Request, error) {
	var q Request
	if t := r.Header.Get("Content-Type"); t != "" {
		if m, _, err := mime.ParseMediaType(t); err != nil || m != "application/json" {
			return q, &unexpected{http.StatusUnsupportedMediaType, fmt.Sprintf("the body is %.60q: send application/json", t)}
		}
	}
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, largestBody))
	if err := d.Decode(&q); err != nil {
		return q, refuse(BadRequest, `the body is not like {"kind": "protected"}: %v`, err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return q, refuse(BadRequest, "the body has more than one JSON value, or more than %d bytes", largestBody)
	}
	return q, nil
}
