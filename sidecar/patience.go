package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// An init container that exits is started anew after ever longer pauses, of up to five minutes. So one that can only
// wait waits itself, and goes on a moment after the archive can be asked.
const (
	firstPause = time.Second
	longPause  = 15 * time.Second
	sayWaiting = 30 * time.Second
	// worthReporting is how long something has to be waited for to be an Event.
	worthReporting = 5 * time.Second
	// deniedPatience is how long refused credentials are waited for. Whoever grants a right is seen at once; a Secret that
	// was changed is seen by a new start only, as variables are read then. A container that ran for ten minutes is started
	// again without a long pause (the kubelet forgets its back-off after twice the longest).
	deniedPatience = 11 * time.Minute
)

// healing tells whether time may heal an error: the archive could not be asked, or refused. Everything else is decided:
// something is damaged, foreign, missing, or asked for in a way that cannot be.
func healing(err error) bool {
	code := exitOf(err)
	return code == exitUnknown || code == exitDenied
}

// patiently does something again and again until it succeeds or fails for good.
func (a *app) patiently(ctx context.Context, do func(context.Context) error) error {
	var denied, said, since time.Time
	var reported exitCode // what was waited for when it was reported last
	for pause, n := firstPause, 1; ; pause, n = min(2*pause, longPause), n+1 {
		err := do(ctx)
		if err == nil || !healing(err) {
			return err
		}
		if ctx.Err() != nil {
			return errors.Join(context.Cause(ctx), err)
		}
		now := time.Now()
		if since.IsZero() {
			since = now
		}
		if code := exitOf(err); code != reported && now.Sub(since) >= worthReporting {
			reported = code
			a.reportWaiting(err, since)
		}
		switch {
		case exitOf(err) != exitDenied:
			denied = time.Time{}
		case denied.IsZero():
			denied = now
		case now.Sub(denied) >= deniedPatience:
			return fmt.Errorf("the archive has refused for %v, and this ends so that changed credentials are read by a new start: %w", now.Sub(denied).Round(time.Second), err)
		}
		if now.Sub(said) >= sayWaiting {
			said = now
			a.log.Warn("the archive cannot be asked, and without its answer the server must not start: waiting",
				"error", err, "tries", n, "waiting_seconds", now.Sub(since).Seconds())
		}
		select {
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), err)
		case <-time.After(pause):
		}
	}
}

// makeDataDir makes a data directory that is not there, and what is missing above it. Who owns it must be able to get
// there: what a volume has below its root was otherwise made by root, for root alone. Zeros leave it to us.
func makeDataDir(dir string, uid, gid int) error {
	_, err := os.Lstat(dir)
	if err == nil {
		return nil
	}
	if !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("making the data directory: %w", err)
	}
	if parent := filepath.Dir(dir); parent != dir {
		if err := makeParent(parent, uid, gid); err != nil {
			return fmt.Errorf("making the data directory: %w", err)
		}
	}
	if err := makeOwned(dir, 0o700, uid, gid); err != nil {
		return fmt.Errorf("making the data directory: %w", err)
	}
	return nil
}

func makeParent(dir string, uid, gid int) error {
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := makeParent(filepath.Dir(dir), uid, gid); err != nil {
		return err
	}
	return makeOwned(dir, 0o755, uid, gid)
}

func makeOwned(dir string, mode os.FileMode, uid, gid int) error {
	if err := os.Mkdir(dir, mode); err != nil {
		return err
	}
	if err := os.Chmod(dir, mode); err != nil { // whatever the umask is
		return err
	}
	if os.Geteuid() != 0 || uid <= 0 {
		return nil
	}
	return os.Lchown(dir, uid, gid)
}
