// Package mission holds the scenarios that the project is for, played on a real cluster: nodes that go away under databases.
// `make e2e` runs them, with the build tag e2e. They need root, as the cluster does.
package mission
