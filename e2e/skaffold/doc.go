// Package skaffold proves the development loop with the real skaffold, on a real cluster and with a registry of its own:
// what skaffold.yaml says is built and deployed, and an edit of a source becomes live. `make skaffold` runs it, with the
// build tag e2e. It needs root, as the cluster does.
package skaffold
