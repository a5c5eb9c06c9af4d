// Package mission holds the scenarios that the project is for, played on a real cluster: nodes that go away under databases.
// `make e2e` runs them. They need root, as the cluster does.
package mission
