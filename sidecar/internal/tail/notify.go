package tail

import (
	"errors"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"

	"outrider.dev/sidecar/internal/wal"
)

// notifier is a running file watcher; its channels are nil when there is none.
type notifier struct {
	events <-chan fsnotify.Event
	errors <-chan error
	close  func() error
}

func watch(dir string) (notifier, error) {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return notifier{}, err
	}
	if err := w.Add(dir); err != nil {
		return notifier{}, errors.Join(err, w.Close())
	}
	return notifier{events: w.Events, errors: w.Errors, close: w.Close}, nil
}

// heard tells whether an event is a hint. Files that a server is only preparing (xlogtemp.*) are none.
func (t *Tailer) heard(e fsnotify.Event, ok bool) bool {
	if !ok {
		t.lost(errors.New("the watcher has ended"))
		return true
	}
	if filepath.Clean(e.Name) == filepath.Clean(t.cfg.Dir) && e.Has(fsnotify.Remove|fsnotify.Rename) {
		t.lost(errors.New("the directory was removed or replaced"))
		return true
	}
	if !wal.IsSegmentName(filepath.Base(e.Name)) || e.Op == fsnotify.Chmod {
		return false
	}
	return true
}

// trouble hears of an error of the watcher: something may have been missed.
func (t *Tailer) trouble(err error, ok bool) {
	switch {
	case !ok:
		t.lost(errors.New("the watcher has ended"))
	case errors.Is(err, fsnotify.ErrEventOverflow):
		// Lost events are no loss: each of them says the same.
	default:
		t.lost(err)
	}
}

// lost goes on without a watcher.
func (t *Tailer) lost(err error) {
	t.cfg.Log.Warn("cannot watch pg_wal any longer, looking at its files instead",
		"dir", t.cfg.Dir, "interval", t.cfg.Interval, "error", err)
	stop := t.notify.close
	t.notify = notifier{}
	if stop != nil {
		_ = stop() // nothing more is expected of it
	}
	t.metrics.watching(false)
}

const (
	drainGap   = 100 * time.Microsecond
	drainLimit = 20 * time.Millisecond
)

// drain drops the events that piled up while nobody listened. They arrive one by one from a goroutine that has to be
// given a moment after each; there may be thousands, and under load they never end.
func (t *Tailer) drain() {
	if t.notify.events == nil {
		return
	}
	end := time.Now().Add(drainLimit)
	gap := time.NewTimer(drainGap)
	defer gap.Stop()
	for time.Now().Before(end) {
		select {
		case e, ok := <-t.notify.events:
			t.heard(e, ok)
		case err, ok := <-t.notify.errors:
			t.trouble(err, ok)
		case <-gap.C:
			return
		}
		gap.Reset(drainGap)
	}
}
