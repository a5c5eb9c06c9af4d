package basebackup

import (
	"testing"
	"time"
)

func mustParse(t *testing.T, cron string) Schedule {
	t.Helper()
	s, err := ParseSchedule(cron)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestDecide(t *testing.T) {
	hourly := mustParse(t, "0 * * * *")
	// A zone with another minute of the hour must not matter: the schedule is in UTC.
	zone := time.FixedZone("", 5*3600+30*60)
	at := func(h, m int) time.Time { return time.Date(2026, 11, 23, h, m, 0, 0, time.UTC).In(zone) }
	const giB = 1 << 30
	base := Situation{Now: at(10, 30), Last: at(10, 0), Taken: true, Took: 30 * time.Second, RTO: 5 * time.Minute, Load: Load{Raw: 2 * giB}}
	with := func(change func(*Situation)) Situation {
		s := base
		change(&s)
		return s
	}
	for _, test := range []struct {
		name string
		in   Situation
		want Action
		at   time.Time
	}{
		{"the first one at once", with(func(s *Situation) { s.Taken = false; s.Last = time.Time{}; s.Unchanged = true }), Begin, time.Time{}},
		{"a gap", with(func(s *Situation) { s.Gap = true; s.Unchanged = true }), Begin, time.Time{}},
		{"not yet", base, Wait, at(10, 30).Add(askAgain)},
		{"just before", with(func(s *Situation) { s.Now = at(11, 0).Add(-10 * time.Second) }), Wait, at(11, 0)},
		{"the hour", with(func(s *Situation) { s.Now = at(11, 0) }), Begin, time.Time{}},
		{"hours later", with(func(s *Situation) { s.Now = at(15, 59) }), Begin, time.Time{}},
		{"only bookkeeping", with(func(s *Situation) { s.Now = at(11, 0); s.Unchanged = true }), Skip, time.Time{}},
		{"the skipped hour is over", with(func(s *Situation) { s.Now = at(11, 1); s.Last = at(11, 0); s.Unchanged = true }), Wait, at(11, 1).Add(askAgain)},
		{"a failure before the first", with(func(s *Situation) { s.Taken = false; s.Failed = at(10, 30) }), Wait, at(10, 31)},
		{"long after a failure", with(func(s *Situation) { s.Now = at(11, 2); s.Failed = at(11, 0) }), Begin, time.Time{}},
		{"a slow one failed", with(func(s *Situation) { s.Now = at(11, 2); s.Failed = at(11, 0); s.Took = 3 * time.Hour }), Wait, at(11, 15)},
		{"replay within the target", with(func(s *Situation) { s.Load.WAL = 4 * giB }), Wait, at(10, 30).Add(askAgain)},
		{"replay past the target", with(func(s *Situation) { s.Load.WAL = 40 * giB }), Begin, time.Time{}},
		{"no target", with(func(s *Situation) { s.Load.WAL = 40 * giB; s.RTO = 0 }), Wait, at(10, 30).Add(askAgain)},
		{"too large for its target", with(func(s *Situation) { s.Load.Raw = 1000 * giB; s.Load.WAL = giB }), Wait, at(10, 30).Add(askAgain)},
		{"the last one is hardly over", with(func(s *Situation) { s.Load.WAL = 40 * giB; s.Took = 10 * time.Minute }), Wait, at(10, 30).Add(askAgain)},
	} {
		if got := hourly.Decide(test.in); got.Action != test.want || !got.At.Equal(test.at) || got.Reason == "" {
			t.Errorf("%s: %+v, want action %d at %v", test.name, got, test.want, test.at)
		}
	}
}

func TestScheduleThatNeverComes(t *testing.T) {
	for _, cron := range []string{"", "61 * * * *", "0 0 31 2 *", "hourly"} {
		if s, err := ParseSchedule(cron); err == nil {
			t.Errorf("%q is a schedule, next %v", cron, s.Next(time.Now()))
		}
	}
}

func TestPrediction(t *testing.T) {
	rates := Rates{Unpack: 100, Sync: 1000, Replay: 50, Write: 10, Overhead: time.Second}
	// 1 s + 1000/100 + 1000/1000 + 500/50 + 200/10
	if got := (Load{Raw: 1000, WAL: 500, SharedBuffers: 200}).Predict(rates); got != 42*time.Second {
		t.Errorf("predicted %v", got)
	}
	if got := (Load{Raw: 1000, WAL: 50, SharedBuffers: 200}).Predict(rates); got != 18*time.Second {
		t.Errorf("predicted %v: a checkpoint cannot write more than was replayed", got)
	}
	if got := (Load{}).Predict(Rates{}); got != defaultOverhead {
		t.Errorf("predicted %v", got)
	}
}
