// Package report turns what sidecars say of their databases into Events, where people look first: on the pod, and on the
// workload that made it.
//
// Sidecars have no right to write Events. They say what has happened by POST /v1/reports, with the token that names
// their pod and opens nothing else. Who speaks is known from the TokenReview and from the pod as it is in the API server,
// never from what is said: a report can make Events about the pod that sends it, and about that pod's workload, and about
// nothing else. What it can make them say is a closed list; the one free text is bounded, and stripped of everything that
// is not printed.
//
// Nothing is stored and nothing depends on it. A report that is lost is an Event that is missing; status, metrics and the
// journal in the archive have it all the same.
//
// # Rights
//
// The ServiceAccount of the webhook needs these, and no others, for this package:
//
//	authentication.k8s.io  tokenreviews  create
//	""                     pods          get
//	""                     namespaces    get
//	apps                   replicasets   get
//	events.k8s.io          events        create, patch
package report
