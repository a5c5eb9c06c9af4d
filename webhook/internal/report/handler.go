package report

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"outrider.dev/sidecar/policy"
	"outrider.dev/webhook/internal/caller"
	"outrider.dev/webhook/internal/inject"
)

// largestBody is more than a report needs: its free text is cut to less than that.
const largestBody = 8 << 10

// answerWithin bounds all questions to the API server of one report.
const answerWithin = 8 * time.Second

// Limits of one replica. A sidecar has little to say in a day; what comes more often than this is not one, or has run
// wild. Whoever has no good token may still cost the API server a TokenReview, and all of them together get this many.
const (
	reviewsPerSecond = 20
	reviewsBurst     = 60
	podInterval      = 10 * time.Second
	podBurst         = 10
)

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
		var again time.Duration
		if a.Outcome == TooMany || a.Outcome == Unknown {
			again = podInterval
		}
		caller.Answer(w, status, again, a)
	})
}

// outcome puts an error into an Answer.
func (r *Reporter) outcome(ctx context.Context, err error) (Answer, int) {
	var no *refusal
	var malformed *caller.MalformedError
	switch {
	case err == nil:
		return Answer{Outcome: Noted, Message: "Events are written"}, http.StatusOK
	case errors.As(err, &malformed):
		return Answer{Outcome: BadRequest, Message: malformed.Text}, malformed.Status
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
	if err := caller.Posted(w, q); err != nil {
		return none, err
	}
	token, err := caller.Token(q)
	if err != nil {
		return none, refuse(Unauthenticated, "%v", err)
	}
	if err := r.reviews.Enter(q, token, r.now()); err != nil {
		return none, refused(err)
	}
	c, err := caller.Authenticate(ctx, r.client, token)
	if err != nil {
		return none, refused(err)
	}
	if !r.pods.Allow(r.now(), string(c.UID)) {
		return none, refuse(TooMany, "pod %s/%s reports too often: one in %v is enough", c.Namespace, c.Name, podInterval)
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

// find reads the caller's pod, and refuses one that has no sidecar of ours. The namespace's label and the containers are
// looked at as they are now; an annotation could be anybody's word.
func (r *Reporter) find(ctx context.Context, c caller.Pod) (*corev1.Pod, error) {
	pod, namespace, err := c.Read(ctx, r.client)
	if err != nil {
		return nil, refused(err)
	}
	if namespace.Labels[policy.Prefix+"protect"] != string(policy.ProtectEnabled) {
		return nil, refuse(NotOurs, "namespace %s is not protected: it has no label %sprotect=%s", c.Namespace, policy.Prefix, policy.ProtectEnabled)
	}
	if pod.Annotations[policy.Prefix+"protect"] == string(policy.ProtectDisabled) {
		return nil, refuse(NotOurs, "pod %s/%s is opted out of protection", c.Namespace, c.Name)
	}
	for _, name := range []string{inject.RestoreContainer, inject.SidecarContainer} {
		if !slices.ContainsFunc(pod.Spec.InitContainers, func(c corev1.Container) bool { return c.Name == name }) {
			return nil, refuse(NotOurs, "pod %s/%s has no container %s", c.Namespace, c.Name, name)
		}
	}
	return pod, nil
}

// read takes the body apart. Its errors are for the caller.
func read(w http.ResponseWriter, r *http.Request) (q Request, err error) {
	err = caller.Body(w, r, largestBody, `{"kind": "protected"}`, &q)
	return q, err
}
