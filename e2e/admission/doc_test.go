// Package admission tests the webhook end to end: the manifests as people apply them, the real program in pods of its
// own, and the real API server and controllers of package cluster. Kubelets are played (package hand): databases are
// pods in which nothing runs, which is enough to see them admitted, refused, evicted and replaced.
//
// One installation is shared by all tests (world_test.go). A test has namespaces of its own. All the while a canary
// creates pods, and no such creation may be refused: not while certificates change, which they do every minute, nor
// while the webhook is rolled out. A test that takes the webhook away says so (world.outage).
//
//	admission_test.go   pods and workloads as people apply them: together with their namespace, server-side, dry runs;
//	                    denials as Events of owners, warnings, what is left alone
//	security_test.go    Pod Security, ResourceQuota, rights of service accounts
//	rollout_test.go     the webhook is replaced, its certificates change
//	outage_test.go      the webhook is away, its configuration is gone, the label is gone (outrider-guard); what the audit finds
//	plugin_test.go      kubectl outrider: what it says of databases, and its check-up
//	drill_test.go       pods that hold a restore drill
//	evacuation_test.go  calls for evacuation, with tokens of all kinds; disruption budgets, grace, taint, InstanceExpired
package admission
