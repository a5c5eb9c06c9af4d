package tail

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"

	"outrider.dev/sidecar/internal/wal"
)

func TestWithoutEventsTheFilesTell(t *testing.T) {
	breakage := map[string]func(w *world, tl *Tailer){
		"never watched": func(_ *world, tl *Tailer) { tl.notify = notifier{} },
		"watcher ends":  func(w *world, _ *Tailer) { close(w.events) },
		"errors end":    func(w *world, _ *Tailer) { close(w.errs) },
		"watcher fails": func(w *world, _ *Tailer) { go func() { w.errs <- errors.New("broken") }() },
		"directory is new": func(w *world, _ *Tailer) {
			go func() { w.events <- fsnotify.Event{Name: w.dir, Op: fsnotify.Remove} }()
		},
	}
	for name, harm := range breakage {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, dir string) {
				w, tl := settled(t, dir, 0x15FFF00)
				harm(w, tl)
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				if _, err := tl.Next(ctx, at(0x15FFF00)); !errors.Is(err, context.DeadlineExceeded) {
					t.Fatal(err)
				}
				if n := strings.Count(w.log.String(), "WARN"); n > 1 || n == 0 && name != "never watched" {
					t.Errorf("%d warnings:\n%s", n, &w.log)
				}
				last := wal.LSN(0x15FFF00)
				for _, l := range []wal.LSN{0x15FFF80, 0x1600080, 0x1600100} { // same file, next file, same file
					time.Sleep(time.Second)
					go func() {
						time.Sleep(3 * time.Second)
						w.touch(l)
						w.flush(l)
					}()
					if took := next(t, tl, last, l) - 3*time.Second; took > interval+interval/8 {
						t.Errorf("%s was seen after %v", l, took)
					}
					last = l
				}
			})
		})
	}
}

func TestOverflowIsAHintAndNoEnd(t *testing.T) {
	bubble(t, func(t *testing.T, dir string) {
		w, tl := settled(t, dir, 0x1500000)
		go func() {
			time.Sleep(time.Second)
			w.flush(0x1500100)
			w.errs <- fsnotify.ErrEventOverflow
		}()
		if took := next(t, tl, 0x1500000, 0x1500100); took > time.Second+interval/8 {
			t.Errorf("after an overflow the answer took %v", took)
		}
		if tl.notify.events == nil {
			t.Error("the watcher was given up")
		}
	})
}

func TestServerErrorsAreReturnedAndNotRepeatedTooSoon(t *testing.T) {
	bubble(t, func(t *testing.T, dir string) {
		w, tl := settled(t, dir, 0x1500000)
		gone := errors.New("the database system is shutting down")
		w.fail(gone)
		go w.send(0x1500000)
		if _, err := tl.Next(t.Context(), at(0x1500000)); !errors.Is(err, gone) {
			t.Fatalf("Next = %v, want the server's error", err)
		}
		if age, known := tl.Age(0x1500000); !known || age == 0 {
			t.Errorf("Age of a server that does not answer = %v, %v", age, known)
		}
		before, started := w.asked(), time.Now()
		for range 10 {
			if _, err := tl.Next(t.Context(), at(0x1500000)); !errors.Is(err, gone) {
				t.Fatalf("Next = %v, want the server's error", err)
			}
		}
		if n, took := w.asked()-before, time.Since(started); n != 10 || took < 9*interval {
			t.Errorf("%d questions in %v", n, took)
		}
		w.fail(nil)
		w.flush(0x1500100)
		if took := next(t, tl, 0x1500000, 0x1500100); took > interval+interval/8 {
			t.Errorf("the first answer after the errors took %v", took)
		}
	})
}

func TestPositionThatGoesBackIsAnError(t *testing.T) {
	bubble(t, func(t *testing.T, dir string) {
		w, tl := newWorld(t, dir, 0x1500000)
		if _, err := tl.Next(t.Context(), at(0x1500001)); !errors.Is(err, ErrBehind) {
			t.Errorf("asking for more than the server has: %v, want ErrBehind", err)
		}
		next(t, tl, 0x1400000, 0x1500000)
		w.flush(0x14FFFFF)
		if _, err := tl.Next(t.Context(), at(0x1400000)); !errors.Is(err, ErrBehind) {
			t.Errorf("after the server went back: %v, want ErrBehind", err)
		}
		w.mu.Lock()
		w.pos = wal.Position{}
		w.mu.Unlock()
		if pos, err := tl.Next(t.Context(), at(0x1400000)); err == nil {
			t.Errorf("no position at all is accepted as %s", pos)
		}
	})
}

func TestConfigIsChecked(t *testing.T) {
	w := &world{}
	good := Config{Dir: t.TempDir(), Size: segmentSize, Server: w}
	if tl, err := New(good); err != nil {
		t.Errorf("a good configuration: %v", err)
	} else if err := tl.Close(); err != nil {
		t.Error(err)
	}
	file := filepath.Join(good.Dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Config){
		"no server":      func(c *Config) { c.Server = nil },
		"segment size":   func(c *Config) { c.Size = 1234 },
		"no directory":   func(c *Config) { c.Dir = filepath.Join(c.Dir, "missing") },
		"a file":         func(c *Config) { c.Dir = file },
		"floor":          func(c *Config) { c.Interval, c.Floor = time.Second, time.Millisecond },
		"negative times": func(c *Config) { c.Interval = -1 },
	} {
		c := good
		change(&c)
		if _, err := New(c); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
