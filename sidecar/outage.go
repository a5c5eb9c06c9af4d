package main

import (
	"fmt"
	"time"
)

// outage is the time without writes around the last stop, as far as the archive can tell it.
type outage struct {
	From    time.Time `json:"from"`
	To      time.Time `json:"to"` // the first write after it
	Seconds float64   `json:"seconds"`
	Begin   string    `json:"begins_with"`     // the name of the phase
	Bound   string    `json:"bound,omitempty"` // absent if From is exact
}

// What Seconds are if they are not exact.
const (
	boundAtMost  = "at_most"  // the database was alive at From
	boundAtLeast = "at_least" // the database was down at From
)

// outage is nil as long as no first write is known, or nothing to count from.
func (e ending) outage() *outage {
	seen := map[string]phase{}
	for _, p := range e.Phases {
		if _, twice := seen[p.Name]; p.At != nil && !twice {
			seen[p.Name] = p
		}
	}
	end, ok := seen[stepFirstWrite]
	if !ok {
		return nil
	}
	o := outage{To: *end.At}
	from := func(name, bound string) {
		if p, ok := seen[name]; ok && (o.Begin == "" || p.At.After(o.From)) {
			o.From, o.Begin, o.Bound = *p.At, name, bound
		}
	}
	_, down := seen[stepPostgresDown]
	if e.Verdict.Outcome == outcomeClean {
		from(stepPostgresDown, "")
		if o.Begin == "" { // an older version did not note it
			from(stepReceipt, boundAtLeast)
		}
		if p, ok := seen[stepPostgresStopping]; ok {
			o.From, o.Begin, o.Bound = *p.At, p.Name, ""
		}
	} else {
		// Signs of life, of which the last counts.
		from(stepLastBeat, boundAtMost)
		from(stepLastCommit, boundAtMost)
		if !down { // the sidecar had to go first
			from(stepReceipt, boundAtMost)
		}
		if o.Begin == "" {
			from(stepPostgresDown, boundAtLeast)
		}
	}
	if o.Begin == "" {
		return nil
	}
	if o.Seconds = o.To.Sub(o.From).Seconds(); o.Seconds < 0 {
		return nil // two clocks
	}
	return &o
}

func (o outage) String() string {
	begin := map[string]string{
		stepLastBeat: "the last sign of life", stepLastCommit: "the last commit that was restored", stepReceipt: "the end of the sidecar",
		stepPostgresStopping: "the moment when Postgres began to stop", stepPostgresDown: "the moment when Postgres was down",
	}[o.Begin]
	bound := map[string]string{boundAtMost: "at most ", boundAtLeast: "at least "}[o.Bound]
	return fmt.Sprintf("%s%.1f s, from %s to the first write", bound, o.Seconds, begin)
}
