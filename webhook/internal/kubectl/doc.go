// Package kubectl is what the plugin kubectl-outrider does: find the databases of a cluster, ask each for its state,
// look for what will hurt (the checks), pass commands on to a sidecar, make a clone, and hold restore drills.
//
// It works with the rights of the person who calls it. What it may not or cannot read is unknown, and said to be so:
// never "not protected", and never "fine".
//
// # Rights
//
//	""                              namespaces, pods        get, list
//	""                              pods/proxy              get      the state of a database; without it pods/exec is tried
//	""                              pods/exec               create   why, list, backup
//	""                              pods                    create   restore; check, as a dry run
//	batch                           jobs, cronjobs          create   drill
//	""                              persistentvolumeclaims  get      restore and drill, for a disk as large as the original's; without it, the node's
//	""                              secrets                 get      check: the credentials that a policy names, outrider-webhook-tls
//	""                              configmaps              get      in outrider-system, for the policy that holds everywhere
//	apps                            deployments             get      in outrider-system, for check
//	policy                          poddisruptionbudgets    list     for check
//	admissionregistration.k8s.io    webhook configurations, admission policies   get, for check
package kubectl
