package cluster

import (
	"fmt"
	"os"
	"path/filepath"
)

// binaries is the directory with the programs of Kubernetes and etcd.
type binaries string

// findBinaries looks for .cache/kube at the top of this repository. OUTRIDER_TEST_KUBE_DIR names another directory.
func findBinaries() (binaries, error) {
	dir := os.Getenv("OUTRIDER_TEST_KUBE_DIR")
	if dir == "" {
		top, err := moduleTop()
		if err != nil {
			return "", err
		}
		dir = filepath.Join(top, ".cache", "kube")
	}
	for _, name := range []string{"kube-apiserver", "etcd"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			return "", fmt.Errorf("looking for Kubernetes in %s, where `make setup` puts it: %w", dir, err)
		}
	}
	return binaries(dir), nil
}

func (b binaries) kubernetes(name string) string {
	return filepath.Join(string(b), name)
}

// moduleTop is the top of this repository: tests run in the directory of their package, two or more below.
func moduleTop() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, ".ci", "build-kubernetes")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("looking for the top of the repository above the working directory: %w", os.ErrNotExist)
		}
	}
}

// Programs is the directory with kubectl and the programs for nodes on this machine.
func (c *Cluster) Programs() string {
	return string(c.binaries)
}
