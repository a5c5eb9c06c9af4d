// Package mission holds the scenarios that the project is for, played on a real cluster: nodes that go away under databases.
// `make e2e` runs them, with the build tag e2e.
//
// They start a cluster of their own, which needs root. With OUTRIDER_E2E_KUBECONFIG they are played in the cluster that this file
// names instead, in its current context or in that of OUTRIDER_E2E_CONTEXT:
//
//   - Which one that is they say first. No other file and no other variable leads to a cluster.
//   - They install the webhook in outrider-system, with the cluster-wide objects that go with it, and a stand-in for OSS in
//     outrider-e2e; each has its databases in a namespace of its own. What somebody else has installed there is not overwritten:
//     then they refuse. At the end all of it is removed, after failures, too, and after an interrupt or just before go test's
//     timeout. What a killed run has left the next one removes.
//   - Everything is reached through the API server, as kubectl does it, with the kubectl in PATH or that of `make setup`.
//   - Nodes have the images already, as after `make e2e-images` and `kind load image-archive`, or pull them from where
//     OUTRIDER_E2E_IMAGES says (registry.example.com/team), which is where the same command pushes them if it is told so.
//   - Five databases run at a time, each of which asks for half a core, 1 GiB of memory and 20 GiB of a node's disk.
//   - What is not to be done to somebody else's cluster, such as to take a node away or to look into one, is skipped, with a
//     sentence that says what it is.
//
// `make e2e-foreign` proves that with a cluster of ours, of which it uses the kubeconfig alone.
package mission
