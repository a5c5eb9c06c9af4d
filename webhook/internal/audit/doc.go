// Package audit looks for what admission cannot see: databases that were there before their namespace was protected, or
// came in while nobody asked the webhook; those that run with yesterday's image or policy; workloads whose pods wait
// because the webhook or the guard refuses them, or the webhook was away; and disruption budgets that no evacuation can satisfy. It says so in
// metrics and Events. It changes nothing.
//
// Only namespaces with the label outrider.dev/protect=enabled are looked at, but for workloads whose pods wait: the guard
// refuses them also where somebody has taken the label away.
//
// # Rights
//
//	""             namespaces, pods        list
//	apps           replicasets             get     whose Deployment it is
//	apps           statefulsets            get     whether pods are missing
//	policy         poddisruptionbudgets    list
//	events.k8s.io  events                  list, create, patch
//
// # How to hang it in
//
//	a, err := audit.New(audit.Options{Client: clientset, Input: s.input, Recorder: recorder, Registerer: reg, Log: log})
//	a.Run(ctx)   // on the leader; returns when ctx ends
package audit
