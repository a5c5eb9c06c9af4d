package evacuate

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"outrider.dev/webhook/internal/caller"
)

// largestBody is far more than a request needs.
const largestBody = 4 << 10

const (
	// answerWithin bounds all questions to the API server of one call.
	answerWithin = 8 * time.Second
	// askAgain is how often a sidecar asks.
	askAgain = 5 * time.Second
)

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
		var again time.Duration
		if o := a.Outcome; o == Waiting || o == TooMany || o == Unknown {
			again = askAgain
		}
		caller.Answer(w, status, again, a)
	})
}

// serve decides; a status other than 0 replaces the outcome's.
func (e *Evacuator) serve(ctx context.Context, w http.ResponseWriter, r *http.Request) (a Answer, status int) {
	a, err := e.answer(ctx, w, r)
	var no *refusal
	var none *caller.MalformedError
	switch {
	case err == nil:
		return a, 0
	case errors.As(err, &none):
		return Answer{Outcome: BadRequest, Message: none.Text}, none.Status
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
	if err := caller.Posted(w, r); err != nil {
		return Answer{}, err
	}
	token, err := caller.Token(r)
	if err != nil {
		return Answer{}, refuse(Unauthenticated, "%v", err)
	}
	if err := e.limits.reviews.Enter(r, token, e.now()); err != nil {
		return Answer{}, refused(err)
	}
	c, err := caller.Authenticate(ctx, e.client, token)
	if err != nil {
		return Answer{}, refused(err)
	}
	if !e.limits.pods.Allow(e.now(), string(c.UID)) {
		return Answer{}, refuse(TooMany, "pod %s/%s asks too often: every %v is enough", c.Namespace, c.Name, askAgain)
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
	return e.evacuate(ctx, pod, node, q.ReleaseAt)
}

// refused makes a refusal of why a caller is not let in; another error stays what it is.
func refused(err error) error {
	switch {
	case errors.Is(err, caller.ErrInvalid):
		return refuse(Unauthenticated, "%v", err)
	case errors.Is(err, caller.ErrOften):
		return refuse(TooMany, "%v", err)
	case errors.Is(err, caller.ErrUnbound), errors.Is(err, caller.ErrGone):
		return refuse(NoPod, "%v", err)
	default:
		return err
	}
}

// find reads the caller's pod and all that has to be known of it.
func (e *Evacuator) find(ctx context.Context, c caller.Pod) (*corev1.Pod, *corev1.Node, error) {
	pod, namespace, err := c.Read(ctx, e.client)
	if err != nil {
		return nil, nil, refused(err)
	}
	if err := checkPod(pod, namespace); err != nil {
		return nil, nil, err
	}
	node, err := e.client.CoreV1().Nodes().Get(ctx, pod.Spec.NodeName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil, refuse(NotSpot, "node %s of pod %s/%s is gone", pod.Spec.NodeName, c.Namespace, c.Name)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("reading node %s: %w", pod.Spec.NodeName, err)
	}
	return pod, node, checkNode(node, e.spot)
}

// read takes the body apart. Its errors are for the caller.
func read(w http.ResponseWriter, r *http.Request) (Request, error) {
	var q Request
	if err := caller.Body(w, r, largestBody, `{"release_at": "2020-04-07T17:03:00Z"}`, &q); err != nil {
		return q, err
	}
	if q.ReleaseAt.IsZero() {
		return q, refuse(BadRequest, "release_at is missing: say when the node will be released, as 2020-04-07T17:03:00Z")
	}
	return q, nil
}
