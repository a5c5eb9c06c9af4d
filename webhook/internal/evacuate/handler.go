package evacuate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"time"
)

// largestBody is far more than a request needs.
const largestBody = 4 << 10

// answerWithin bounds all questions to the API server of one call: the sidecar asks again after 5 s.
const answerWithin = 8 * time.Second

// Handler answers POST /v1/evacuations. Every answer is an Answer as JSON:
//
//	200  evicted, deleted, terminating, prepared_only
//	202  waiting: ask again
//	400  the body is not a Request;  405, 415  not a POST, not JSON
//	401  no token, or none that is valid for the audience outrider.dev
//	403  the token is good, and its pod is not one to be moved
//	422  the announced time is too far away, or long over
//	429  too often
//	503  it could not be told, or not be done: ask again
func (e *Evacuator) Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		started := time.Now()
		ctx, cancel := context.WithTimeout(r.Context(), answerWithin)
		defer cancel()
		a, status := e.serve(ctx, w, r)
		if status == 0 {
			status = a.Outcome.status()
		}
		e.metrics.requests.WithLabelValues(string(a.Outcome)).Inc()
		e.metrics.seconds.Observe(time.Since(started).Seconds())
		h := w.Header()
		h.Set("Content-Type", "application/json")
		h.Set("Cache-Control", "no-store")
		h.Set("X-Content-Type-Options", "nosniff")
		switch a.Outcome {
		case Unauthenticated:
			h.Set("WWW-Authenticate", `Bearer realm="outrider.dev"`)
		case Waiting, TooMany, Unknown:
			h.Set("Retry-After", "5")
		default:
		}
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(a) // whoever asked may be gone
	})
}

// serve decides; a status other than 0 replaces the outcome's.
func (e *Evacuator) serve(ctx context.Context, w http.ResponseWriter, r *http.Request) (a Answer, status int) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		return Answer{Outcome: BadRequest, Message: "only POST is answered here"}, http.StatusMethodNotAllowed
	}
	a, err := e.answer(ctx, w, r)
	var no *refusal
	var typed *unsupportedType
	switch {
	case err == nil:
		return a, 0
	case errors.As(err, &typed):
		return Answer{Outcome: BadRequest, Message: err.Error()}, http.StatusUnsupportedMediaType
	case errors.As(err, &no):
		level := slog.LevelInfo
		if no.outcome == Unauthenticated || no.outcome == TooMany {
			level = slog.LevelDebug // anybody can make as many of these as he likes
		}
		e.log.Log(ctx, level, "a call for evacuation was refused", "outcome", string(no.outcome), "reason", no.text, "remote", r.RemoteAddr)
		return Answer{Outcome: no.outcome, Message: no.text}, 0
	}
	// What the API server said in detail is for the log, not for the pod.
	e.log.Error("a call for evacuation could not be answered", "error", err, "remote", r.RemoteAddr)
	a.Outcome, a.Message = Unknown, "the API server could not be asked or did not agree: ask again"
	return a, 0
}

// answer goes from who asks, to what is asked, to whether it is right, and only then changes anything.
func (e *Evacuator) answer(ctx context.Context, w http.ResponseWriter, r *http.Request) (Answer, error) {
	token := bearer(r)
	if token == "" {
		return Answer{}, refuse(Unauthenticated, "no token: send the projected service account token as Authorization: Bearer TOKEN")
	}
	if !e.limits.reviews.Allow() {
		return Answer{}, refuse(TooMany, "too many calls at once: ask again")
	}
	c, err := e.authenticate(ctx, token)
	if err != nil {
		return Answer{}, err
	}
	if !e.limits.pods.allow(e.now(), string(c.uid)) {
		return Answer{}, refuse(TooMany, "pod %s/%s asks too often: every 5 s is enough", c.namespace, c.name)
	}
	q, err := read(w, r)
	if err != nil {
		return Answer{}, err
	}
	pod, node, err := e.find(ctx, c)
	if err != nil {
		return Answer{}, err
	}
	if err := checkTime(e.now(), q.ReleaseAt); err != nil {
		return Answer{}, err
	}
	return e.evacuate(ctx, pod, node, q.ReleaseAt, "pod "+pod.Namespace+"/"+pod.Name)
}

// unsupportedType is a body that is not JSON by its own word.
type unsupportedType struct{ text string }

func (u *unsupportedType) Error() string { return u.text }

// read takes the body apart. Its errors are refusals.
func read(w http.ResponseWriter, r *http.Request) (Request, error) {
	var q Request
	if t := r.Header.Get("Content-Type"); t != "" {
		if m, _, err := mime.ParseMediaType(t); err != nil || m != "application/json" {
			return q, &unsupportedType{fmt.Sprintf("the body is %.60q: send application/json", t)}
		}
	}
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, largestBody))
	if err := d.Decode(&q); err != nil {
		return q, refuse(BadRequest, `the body is not like {"release_at": "2020-04-07T17:03:00Z"}: %v`, err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return q, refuse(BadRequest, "the body has more than one JSON value, or more than %d bytes", largestBody)
	}
	if q.ReleaseAt.IsZero() {
		return q, refuse(BadRequest, "release_at is missing: say when the node will be released, as 2020-04-07T17:03:00Z")
	}
	return q, nil
}
