//go:build !linux

package main

import (
	"errors"
	"fmt"
)

func freeBytes(dir string) (int64, error) {
	return 0, fmt.Errorf("asking for the free space of %s: %w", dir, errors.ErrUnsupported)
}
