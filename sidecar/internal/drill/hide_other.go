//go:build !linux

package drill

// hide is for Linux, where pods are.
func hide() error { return nil }
