// Package admit answers the API server's questions: what becomes of a pod (/mutate-pod), whether a workload can be
// what it says (/review-workload), and whether it can have more pods (/review-scale). What is decided is decided in inject; here it becomes an answer, a line in the log
// and a metric. No answer has a side effect, so a dry run needs no care.
package admit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"time"

	"github.com/go-logr/logr"
	admissionv1 "k8s.io/api/admission/v1"
	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/prometheus/client_golang/prometheus"

	"outrider.dev/webhook/internal/inject"
)

// Namespaces finds the annotations of a namespace; an error means that they could not be told.
type Namespaces interface {
	Annotations(ctx context.Context, name string) (map[string]string, error)
}

// Workloads reads a workload whose scale is to change: such a request does not say what is scaled. Errors are those of
// the Kubernetes API.
type Workloads interface {
	StatefulSet(ctx context.Context, namespace, name string) (*appsv1.StatefulSet, error)
	Deployment(ctx context.Context, namespace, name string) (*appsv1.Deployment, error)
}

// Config is what the answers depend on.
type Config struct {
	Namespaces Namespaces
	Workloads  Workloads
	// Input is what the configuration says, at this moment, for pods of a namespace with these annotations.
	Input   func(namespace string, annotations map[string]string) inject.Input
	Log     *slog.Logger
	Metrics prometheus.Registerer // may be nil
}

// Handlers answer. They may be used by anyone at any time.
type Handlers struct {
	cfg     Config
	metrics *metrics
}

// New makes the handlers.
func New(cfg Config) *Handlers { return &Handlers{cfg: cfg, metrics: newMetrics(cfg.Metrics)} }

// Pods is for the mutating webhook, on CREATE of pods.
func (h *Handlers) Pods() http.Handler { return h.handler(h.pod) }

// Workloads is for the validating webhook, on CREATE and UPDATE of StatefulSets and Deployments.
func (h *Handlers) Workloads() http.Handler { return h.handler(h.workload) }

// Scales is for the validating webhook, on UPDATE of the scale of StatefulSets and Deployments. It has a path of its own:
// one that an older replica does not know is passed over, and one that it knows would be a refusal.
func (h *Handlers) Scales() http.Handler { return h.handler(h.scale) }

// patience is less than the timeout of the registrations, so that a person reads what took so long.
const patience = 4 * time.Second

// answer is the outcome for one request, in the words of log and metric.
type answer struct {
	decision decision
	reason   inject.Reason
	text     string // why it is refused, or could not be judged
	code     int32  // of a refusal
	warnings []string
	patch    []byte
}

type decision string

const (
	changed decision = "changed" // admitted with a patch
	allowed decision = "allowed" // admitted as it is
	denied  decision = "denied"  // refused, for a reason that is the sender's to mend
	failed  decision = "failed"  // refused, because it could not be decided
)

// Reasons of ours, beside those of inject.
const (
	badRequest       inject.Reason = "bad_request"       // what was sent is not what this was registered for
	namespaceUnknown inject.Reason = "namespace_unknown" // the namespace's annotations could not be told
	workloadUnknown  inject.Reason = "workload_unknown"  // what is scaled could not be read
	mistake          inject.Reason = "internal_error"    // of this program
	unchanged        inject.Reason = "unchanged"         // an update that adds nothing, or of what is being deleted
)

func (h *Handlers) handler(decide func(context.Context, *admissionv1.AdmissionRequest) answer) http.Handler {
	hook := &admission.Webhook{Handler: admission.HandlerFunc(func(ctx context.Context, req admission.Request) admission.Response {
		begin := time.Now()
		ctx, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		a := h.guarded(ctx, &req.AdmissionRequest, decide)
		took := time.Since(begin)
		h.metrics.count(resourceOf(&req.AdmissionRequest), a, took)
		h.log(ctx, &req.AdmissionRequest, a, took)
		return a.response()
	})}
	standalone, err := admission.StandaloneWebhook(hook, admission.StandaloneOptions{Logger: logr.FromSlogHandler(h.cfg.Log.Handler())})
	if err != nil {
		return hook // never: the function only knows nil
	}
	return standalone
}

// guarded makes a panic a refusal: a database must not start unprotected because of a mistake of ours, and one pod that
// provokes it must not take the others' admission away.
func (h *Handlers) guarded(ctx context.Context, req *admissionv1.AdmissionRequest, decide func(context.Context, *admissionv1.AdmissionRequest) answer) (a answer) {
	defer func() {
		if p := recover(); p != nil {
			h.cfg.Log.ErrorContext(ctx, "a mistake in this program", "panic", fmt.Sprint(p), "stack", string(debug.Stack()), "namespace", req.Namespace, "name", req.Name)
			a = answer{decision: failed, reason: mistake, code: http.StatusInternalServerError, text: fmt.Sprintf("a mistake in outrider-webhook, whose log has the details: %v", p)}
		}
	}()
	return decide(ctx, req)
}

// resourceOf is the label of a metric: a closed list, whatever is sent.
func resourceOf(req *admissionv1.AdmissionRequest) string {
	switch r := req.Resource.Resource; r {
	case "pods", "statefulsets", "deployments":
		return r
	default:
		return "other"
	}
}

func (a answer) response() admission.Response {
	r := admission.Response{AdmissionResponse: admissionv1.AdmissionResponse{
		Allowed:          a.decision == changed || a.decision == allowed,
		Warnings:         a.warnings,
		AuditAnnotations: map[string]string{"reason": string(a.reason)},
	}}
	if a.patch != nil {
		kind := admissionv1.PatchTypeJSONPatch
		r.Patch, r.PatchType = a.patch, &kind
	}
	if !r.Allowed {
		status := metav1.StatusReasonForbidden
		if a.decision == failed {
			status = metav1.StatusReasonInternalError
		}
		r.Result = &metav1.Status{Status: metav1.StatusFailure, Code: a.code, Reason: status, Message: fmt.Sprintf("outrider: %s: %s", a.reason, a.text)}
	}
	return r
}

func (h *Handlers) log(ctx context.Context, req *admissionv1.AdmissionRequest, a answer, took time.Duration) {
	level := slog.LevelInfo
	switch {
	case a.decision == failed:
		level = slog.LevelError
	case a.decision == allowed && a.text != "":
		level = slog.LevelWarn
	case a.reason == inject.NoPostgres || a.reason == unchanged:
		level = slog.LevelDebug
	}
	h.cfg.Log.LogAttrs(ctx, level, "admission",
		slog.String("decision", string(a.decision)), slog.String("reason", string(a.reason)), slog.String("resource", resourceOf(req)),
		slog.String("namespace", req.Namespace), slog.String("name", nameOf(req)), slog.String("operation", string(req.Operation)),
		slog.Bool("dry_run", req.DryRun != nil && *req.DryRun), slog.String("request", string(req.UID)), slog.String("message", a.text),
		slog.Int("warnings", len(a.warnings)), slog.Float64("seconds", took.Seconds()))
}

// input asks for everything that a decision in a namespace depends on.
func (h *Handlers) input(ctx context.Context, namespace string) (inject.Input, answer, bool) {
	annotations, err := h.cfg.Namespaces.Annotations(ctx, namespace)
	if err != nil {
		text := err.Error()
		if errors.Is(err, context.DeadlineExceeded) {
			text += "; try again when the API server is less busy"
		}
		return inject.Input{}, answer{decision: failed, reason: namespaceUnknown, code: http.StatusServiceUnavailable, text: text}, false
	}
	return h.cfg.Input(namespace, annotations), answer{}, true
}

// refused is the answer to what inject refuses. 422 would name fields; 403 is what controllers show as it is.
func refused(d inject.Decision, err error) answer {
	return answer{decision: denied, reason: d.Reason, code: http.StatusForbidden, text: err.Error(), warnings: d.Warnings}
}

func unreadable(req *admissionv1.AdmissionRequest, err error) answer {
	return answer{
		decision: failed, reason: badRequest, code: http.StatusBadRequest,
		text: fmt.Sprintf("reading the %s of the request: %v", req.Kind.Kind, err),
	}
}
