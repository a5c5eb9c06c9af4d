// Package evacuate moves protected pods away from nodes that are about to be reclaimed.
//
// Two things tell of such a node. A sidecar that saw the termination notice of its instance asks by POST
// /v1/evacuations, with a token that names its pod and opens nothing else (Handler, on every replica). And ACK's
// node-problem-detector sets the Node condition InstanceExpired (Run, on the leader only). What is done is the same:
//
//   - the node gets the taint outrider.dev/reclaimed=YYYYMMDDTHHMMSSZ:NoSchedule, the announced time in UTC, and an
//     annotation of the same name with what is needed to take the taint away again;
//   - the pod is evicted with the grace period that the time leaves. A PodDisruptionBudget is respected as long as there
//     is time; then the pod is deleted, because the node takes it anyway, and takes it unprepared.
//
// A call can move the pod that makes it and no other, and taint the node of that pod and no other. Who calls is known
// from the TokenReview and from the pod as it is in the API server, never from what the call says. Nothing is stored:
// sidecars repeat their call every few seconds, any replica answers, and doing it twice is doing it once.
//
// Run also takes the taint away from a node that lives on, and notes on the node whose notice was wrong, which is not
// believed again for hours. It drains the whole node where Config.Drain asks for it, and replaces pods of lost nodes where
// Config.FastReplace asks for it.
//
// # Rights
//
// The ServiceAccount of the webhook needs these, and no others, for this package:
//
//	authentication.k8s.io  tokenreviews       create
//	""                     pods               get, list, delete
//	""                     pods/eviction      create
//	""                     nodes              get, list, watch, patch
//	""                     namespaces         get
//	events.k8s.io          events             create, patch
//	apps                   daemonsets         get       only with Config.Drain
//
// pods list and nodes list, watch are Run's. The workloads' own service accounts need none.
//
// # How to hang it in
//
//	e, err := evacuate.New(evacuate.Options{Client: clientset, Config: c.Evacuation, Recorder: recorder, Registerer: reg, Log: log})
//	webhookServer.Register(evacuate.Path, e.Handler())   // on every replica, behind TLS
//	e.Run(ctx)                                           // on the leader; returns when ctx ends
//
// clientset is a *kubernetes.Clientset with the rights above, and asks the API server, not a cache.
package evacuate
