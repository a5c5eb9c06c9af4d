package oss

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
)

// StaticCredentials returns credentials that never change. token is empty except for temporary ones.
func StaticCredentials(id, secret, token string) (Credentials, error) {
	if id == "" || secret == "" {
		return nil, errors.New("the access key id or its secret is empty: set OSS_ACCESS_KEY_ID and OSS_ACCESS_KEY_SECRET")
	}
	return static{Keys{ID: id, Secret: secret, Token: token}}, nil
}

type static struct{ keys Keys }

func (s static) Keys(context.Context) (Keys, error) { return s.keys, nil }

func (s static) Reject(Keys) bool { return false }

// FileCredentials returns credentials that are read from files, one value in each, and read again when a file changes:
// Kubernetes rotates a mounted secret while we run. token is the path of a file with a security token, or empty. The
// files are read here for the first time.
func FileCredentials(id, secret, token string) (Credentials, error) {
	f := &files{paths: [3]string{id, secret, token}}
	if id == "" || secret == "" {
		return nil, errors.New("the file of the access key id or that of its secret was not named: set OSS_ACCESS_KEY_ID_FILE and OSS_ACCESS_KEY_SECRET_FILE")
	}
	_, err := f.Keys(context.Background())
	return f, err
}

type files struct {
	paths [3]string // of id, secret and token

	mu    sync.Mutex
	keys  Keys
	stamp [3]os.FileInfo
}

// Keys implements Credentials. Files that cannot be read, as in the middle of a rotation, leave the last keys in use.
func (f *files) Keys(context.Context) (Keys, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	stamp, err := f.stat()
	if err == nil && f.keys.ID != "" && same(stamp, f.stamp) {
		return f.keys, nil
	}
	var keys Keys
	if err == nil {
		keys, err = f.read()
	}
	// Two files cannot be read at one moment: keys count only if nothing was exchanged meanwhile.
	if err == nil {
		var after [3]os.FileInfo
		if after, err = f.stat(); err == nil && !same(stamp, after) {
			err = errors.New("the files of the credentials changed while they were read")
		}
	}
	if err != nil {
		if f.keys.ID != "" {
			return f.keys, nil
		}
		return Keys{}, fmt.Errorf("reading the credentials: %w", err)
	}
	f.keys, f.stamp = keys, stamp
	return keys, nil
}

func (f *files) stat() (stamp [3]os.FileInfo, err error) {
	for i, path := range f.paths {
		if path != "" {
			if stamp[i], err = os.Stat(path); err != nil {
				return stamp, err
			}
		}
	}
	return stamp, nil
}

// same compares the files themselves too: Kubernetes exchanges them behind a symbolic link.
func same(x, y [3]os.FileInfo) bool {
	for i := range x {
		if (x[i] == nil) != (y[i] == nil) {
			return false
		}
		if x[i] != nil && (!os.SameFile(x[i], y[i]) || !x[i].ModTime().Equal(y[i].ModTime()) || x[i].Size() != y[i].Size()) {
			return false
		}
	}
	return true
}

func (f *files) read() (Keys, error) {
	var values [3]string
	for i, path := range f.paths {
		if path == "" {
			continue
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return Keys{}, err
		}
		if values[i] = strings.TrimSpace(string(b)); values[i] == "" {
			return Keys{}, fmt.Errorf("%s is empty", path)
		}
	}
	return Keys{ID: values[0], Secret: values[1], Token: values[2]}, nil
}

// Reject implements Credentials: the files may have changed since k was read.
func (f *files) Reject(k Keys) bool {
	now, err := f.Keys(context.Background())
	return err == nil && now != k
}
