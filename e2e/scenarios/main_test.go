// Package scenarios plays what happens to a protected database in real life, with the real programs, and holds what
// a person would see against what is promised: the state and the remedy in /status, exit codes, and above all what
// the ledger finds after a restore. Each test has a cloud and servers of its own. Those that take longer than a test
// run may are played with OUTRIDER_LONG=1.
package scenarios

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"outrider.dev/e2e/stage"
	"outrider.dev/e2e/world"
)

var programs *world.Programs

func TestMain(m *testing.M) {
	flag.Parse()
	// Each test keeps a server, a cloud and the ledger busy. More at a time measure each other.
	if err := flag.Set("test.parallel", "2"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(world.Run(m, func(p *world.Programs) { programs = p }))
}

// play is a world with small WAL segments, in a test that runs beside another one.
func play(t *testing.T) *world.World {
	t.Helper()
	t.Parallel()
	return world.New(t, programs, 1)
}

// long tells whether the longer form of a test is wanted.
func long() bool { return os.Getenv("OUTRIDER_LONG") != "" }

// must fails the test on an error.
func must(t *testing.T, err error) {
	t.Helper()
	world.Must(t, err)
}

// reaches waits until outrider is in a state and says all of the words about it.
func reaches(w *world.World, o *stage.Outrider, state string, words ...string) stage.Status {
	w.T.Helper()
	var st stage.Status
	ctx := w.Deadline(world.Long)
	err := stage.Until(ctx, "state "+state, func() (bool, error) {
		if !o.Running() {
			return false, fmt.Errorf("outrider has ended")
		}
		s, err := o.Status(ctx)
		if err == nil {
			st = s
		}
		return st.State == state && missingWord(st.Reason, words) == "", nil
	})
	if err != nil {
		w.T.Fatalf("%v: wanted are the words %q; the last state was %q: %s\n%s", err, words, st.State, st.Reason, o.Tail(8))
	}
	return st
}

func missingWord(text string, words []string) string {
	for _, word := range words {
		if !strings.Contains(text, word) {
			return word
		}
	}
	return ""
}

// says fails the test if a text lacks one of the words.
func says(t *testing.T, text string, words ...string) {
	t.Helper()
	if word := missingWord(text, words); word != "" {
		t.Errorf("it does not say %q: %s", word, text)
	}
}

// objects is the archive as it is now.
func objects(w *world.World, root string) map[string]string {
	w.T.Helper()
	found, err := w.Cloud.Objects(w.Deadline(world.Long), root)
	must(w.T, err)
	return found
}

// why is the part of `outrider why` that tests look at.
type why struct {
	Epoch   uint64 `json:"epoch"`
	Verdict struct {
		Outcome string `json:"outcome"`
		Text    string `json:"text"`
		Lost    string `json:"lost"`
	} `json:"verdict"`
	Receipt *struct {
		Clean  bool   `json:"clean"`
		Reason string `json:"reason"`
	} `json:"receipt"`
	Journal []struct {
		Event string         `json:"event"`
		Attrs map[string]any `json:"attrs"`
	} `json:"journal"`
	Phases []phase `json:"phases"`
	Outage *struct {
		Seconds float64 `json:"seconds"`
		Begin   string  `json:"begins_with"`
		Bound   string  `json:"bound"`
	} `json:"outage"`
}

// phase is one step of the time line.
type phase struct {
	Name    string         `json:"name"`
	Epoch   uint64         `json:"epoch"`
	At      *time.Time     `json:"at"`
	Seconds *float64       `json:"seconds"`
	Text    string         `json:"text"`
	Details map[string]any `json:"details"`
}

// askWhy runs `outrider why`.
func askWhy(w *world.World, args ...string) why {
	w.T.Helper()
	out, err := w.Stage.Do(w.Deadline(world.Long), w.Cloud, w.Root, append([]string{"why", "-o", "json"}, args...)...)
	must(w.T, err)
	var y why
	if err := json.Unmarshal([]byte(out), &y); err != nil {
		w.T.Fatalf("reading what outrider why says: %v: %s", err, out)
	}
	return y
}

// fails runs a command of outrider that must end with an exit code, and returns what it said.
func fails(w *world.World, code int, args ...string) string {
	w.T.Helper()
	out, err := w.Stage.Do(w.Deadline(2*world.Long), w.Cloud, w.Root, args...)
	if got := stage.ExitCode(err); got != code {
		w.T.Fatalf("outrider %s: exit code %d, want %d: %v\n%s", strings.Join(args, " "), got, code, err, out)
	}
	if err == nil {
		return out
	}
	return err.Error()
}

// whole is a deadline for one step of a test.
func whole(w *world.World) context.Context {
	w.T.Helper()
	return w.Deadline(world.Long)
}
