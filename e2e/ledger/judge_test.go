package ledger

import (
	"crypto/sha256"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// scene is a small history, in which row n is begun at second 2n and answered at second 2n+1 of boot "b", and a server.
type scene struct {
	h *history
	s *state
}

func newScene() *scene {
	return &scene{
		h: &history{ledger: "l", rows: map[int64]*row{}},
		s: &state{rows: map[int64]*stored{}, prepared: map[int64]bool{}},
	}
}

func second(n float64) Instant {
	return Instant{Monotonic: int64(n * 1e9), Boot: "b"}
}

// wrote adds an acknowledged row that the server has.
func (s *scene) wrote(id int64, kind rowKind) *row {
	r := &row{id: id, size: 8, kind: kind, intent: second(float64(2 * id)), ack: second(float64(2*id + 1))}
	if kind == rowPrepared {
		r.prepared, r.commit = second(float64(2*id)+0.2), second(float64(2*id)+0.4)
		r.attempt = r.commit
	}
	s.h.rows[id] = r
	s.s.rows[id] = &stored{copies: 1, digest: sha256.Sum256(payload(id, 8))}
	s.s.indexRows++
	return r
}

func (s *scene) lose(id int64) {
	delete(s.s.rows, id)
	s.s.indexRows--
}

func (s *scene) judge(o Options) Report {
	j := &judge{before: s.h, after: s.h, found: s.s, options: o}
	return j.report()
}

func TestJudge(t *testing.T) {
	age := func(s float64) *float64 { return &s }
	all := Account{Acknowledged: 3, Present: 3}
	cases := []struct {
		name   string
		change func(*scene)
		want   Report
		held   bool
	}{
		{"nothing lost", func(*scene) {}, Report{Account: all}, true},
		{"the last one lost within the RPO", func(s *scene) { s.lose(3) }, Report{Account: Account{
			Acknowledged: 3, Present: 2, Lost: 1, OldestLostAge: age(1), NewestLostAge: age(1),
		}}, true},
		{"two lost, one too old", func(s *scene) { s.lose(3); s.lose(2) }, Report{Account: Account{
			Acknowledged: 3, Present: 1, Lost: 2, LostOlderThanRPO: 1, OldestLostAge: age(3), NewestLostAge: age(1),
		}}, false},
		{"a hole", func(s *scene) { s.lose(1) }, Report{Holes: 1, Account: Account{
			Acknowledged: 3, Present: 2, Lost: 1, LostOlderThanRPO: 1, OldestLostAge: age(5), NewestLostAge: age(5),
		}}, false},
		{"acknowledged just after the kill", func(s *scene) { s.h.rows[3].ack = second(8.5); s.lose(3) }, Report{
			Account: Account{Acknowledged: 3, Present: 2, Lost: 1, LostAfterKill: 1, OldestLostAge: age(0), NewestLostAge: age(0)},
		}, true},
		{"begun after the kill", func(s *scene) { s.h.rows[3].intent, s.h.rows[3].ack = second(10.5), second(11); s.lose(3) }, Report{
			Account: Account{Acknowledged: 3, Present: 2, Lost: 1, LostOfUnknownAge: 1, LostOlderThanRPO: 1},
		}, false},
		{"begun just after the mark of the kill", func(s *scene) {
			s.h.rows[3].intent, s.h.rows[3].ack = second(8.1), second(8.2)
			s.lose(3)
		}, Report{
			Account: Account{Acknowledged: 3, Present: 2, Lost: 1, LostAfterKill: 1, OldestLostAge: age(0), NewestLostAge: age(0)},
		}, true},
		{"begun just after a mark, and the ledger run again before the next", func(s *scene) {
			s.h.kills = []Instant{second(5.9)}
			s.h.runs = []Instant{second(0), second(7.2)}
			s.lose(3)
		}, Report{
			Account: Account{Acknowledged: 3, Present: 2, Lost: 1, LostAfterKill: 1, OldestLostAge: age(0), NewestLostAge: age(0)},
		}, true},
		{"begun just after a kill that the run outlived", func(s *scene) {
			s.h.kills = []Instant{second(5.9)}
			s.h.rows[3].ack = second(6.1)
			s.lose(3)
		}, Report{
			Account: Account{
				Acknowledged: 3, Present: 2, Lost: 1, LostOlderThanRPO: 1, OldestLostAge: age(1.9), NewestLostAge: age(1.9),
			},
		}, false},
		{"ages are counted from the kill that followed", func(s *scene) {
			s.h.kills = []Instant{second(3.5)}
			s.lose(1)
		}, Report{Account: Account{
			Acknowledged: 3, Present: 2, Lost: 1, OldestLostAge: age(0.5), NewestLostAge: age(0.5),
		}}, true},
		{"acknowledged in another boot", func(s *scene) {
			s.h.rows[3].intent.Boot, s.h.rows[3].ack.Boot = "c", "c"
			s.lose(3)
		}, Report{
			Account: Account{Acknowledged: 3, Present: 2, Lost: 1, LostOfUnknownAge: 1, LostOlderThanRPO: 1},
		}, false},
		{"in flight", func(s *scene) {
			s.wrote(4, rowSync).ack = Instant{}
			s.wrote(5, rowSync).ack = Instant{}
			s.lose(5)
		}, Report{Account: all, InFlight: InFlight{Present: 1, Absent: 1}}, true},
		{"asynchronous commits apart", func(s *scene) { s.h.rows[2].kind, s.h.rows[3].kind = rowAsync, rowAsync; s.lose(3) }, Report{
			Account: Account{Acknowledged: 1, Present: 1},
			Async:   Account{Acknowledged: 2, Present: 1, Lost: 1, OldestLostAge: age(1), NewestLostAge: age(1)},
		}, true},
		{"never announced", func(s *scene) { delete(s.h.rows, 2) }, Report{
			Account: Account{Acknowledged: 2, Present: 2}, Foreign: 1,
		}, false},
		{"twice there", func(s *scene) { s.s.rows[2].copies = 2; s.s.indexRows++ }, Report{Account: all, Duplicates: 1}, false},
		{"other content", func(s *scene) { s.s.rows[2].digest[0] ^= 1 }, Report{Account: all, Damaged: 1}, false},
		{"other connection", func(s *scene) { s.s.rows[2].connection = 9 }, Report{Account: all, Damaged: 1}, false},
		{"index lacks a row", func(s *scene) { s.s.indexRows-- }, Report{Account: all, IndexDifference: -1}, false},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			s := newScene()
			for id := int64(1); id <= 3; id++ {
				s.wrote(id, rowSync)
			}
			c.change(s)
			// The last row was acknowledged at second 7.
			got := s.judge(Options{Kill: second(8), RPO: time.Second})
			compare(t, got, c.want)
			if held := got.Err() == nil; held != c.held {
				t.Errorf("verdict %v, want held = %v", got.Err(), c.held)
			}
		})
	}
}

func TestJudgePrepared(t *testing.T) {
	cases := []struct {
		name   string
		change func(*scene, *row)
		want   Prepared
		kind   string // of the loss
		report Report // other fields
	}{
		{"committed", func(*scene, *row) {}, Prepared{Acknowledged: 1, Committed: 1}, "", Report{}},
		{"still prepared", func(s *scene, r *row) {
			s.lose(1)
			s.s.prepared[1], r.ack, r.commit = true, Instant{}, Instant{}
		}, Prepared{Acknowledged: 1, Pending: 1}, "", Report{}},
		{
			"commit unanswered, committed", func(_ *scene, r *row) { r.ack = Instant{} },
			Prepared{Acknowledged: 1, Committed: 1},
			"",
			Report{},
		},
		{
			"commit unanswered, gone", func(s *scene, r *row) { s.lose(1); r.ack = Instant{} },
			Prepared{Acknowledged: 1, Lost: 1},
			"prepare",
			Report{},
		},
		{
			"prepared again after its commit", func(s *scene, _ *row) { s.lose(1); s.s.prepared[1] = true },
			Prepared{Acknowledged: 1, Lost: 1},
			"commit of prepared",
			Report{},
		},
		{"gone", func(s *scene, _ *row) { s.lose(1) }, Prepared{Acknowledged: 1, Lost: 1}, "prepare", Report{}},
		{"PREPARE unanswered, there", func(s *scene, r *row) {
			s.lose(1)
			s.s.prepared[1], r.prepared, r.commit, r.ack = true, Instant{}, Instant{}, Instant{}
		}, Prepared{}, "", Report{InFlight: InFlight{Present: 1}}},
		{
			"committed without being asked", func(_ *scene, r *row) { r.commit, r.ack = Instant{}, Instant{} },
			Prepared{Acknowledged: 1, Committed: 1},
			"",
			Report{Unasked: 1},
		},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			s := newScene()
			c.change(s, s.wrote(1, rowPrepared))
			got := s.judge(Options{Kill: second(3), RPO: 0})
			if diff := cmp.Diff(c.want, got.Prepared); diff != "" {
				t.Errorf("prepared (-want +got)\n%s", diff)
			}
			if got.Lost != c.want.Lost || got.Unasked != c.report.Unasked || got.InFlight != c.report.InFlight {
				t.Errorf("lost %d, unasked %d, in flight %+v", got.Lost, got.Unasked, got.InFlight)
			}
			if got.Lost > 0 && got.Losses[0].Kind != c.kind {
				t.Errorf("the loss is a %q, want %q", got.Losses[0].Kind, c.kind)
			}
			if want := c.want.Lost == 0 && c.report.Unasked == 0; (got.Err() == nil) != want {
				t.Errorf("verdict %v", got.Err())
			}
		})
	}
}

// A COMMIT PREPARED that was tried before a crash and again after it proves nothing about the order before the crash.
func TestARepeatedCommitOfAPreparedRowIsNoHole(t *testing.T) {
	s := newScene()
	s.wrote(1, rowAsync)
	s.lose(1)
	r := s.wrote(2, rowPrepared)
	r.intent, r.prepared, r.commit, r.attempt = second(1), second(1.5), second(3.5), second(9)
	if got := s.judge(Options{Kill: second(4)}); got.Holes != 0 || got.Async.Lost != 1 {
		t.Errorf("%d holes, %d lost", got.Holes, got.Async.Lost)
	}
	r.attempt = r.commit
	if got := s.judge(Options{Kill: second(4)}); got.Holes != 1 {
		t.Errorf("tried once before the crash: %d holes, want 1", got.Holes)
	}
}

func TestWithoutAKillEveryLossCounts(t *testing.T) {
	s := newScene()
	s.wrote(1, rowSync)
	s.lose(1)
	r := s.judge(Options{RPO: time.Hour})
	if r.LostOfUnknownAge != 1 || r.LostOlderThanRPO != 1 || r.OldestLostAge != nil || r.Err() == nil {
		t.Errorf("a loss without a known kill gave %+v, %v", r, r.Err())
	}
}

func compare(t *testing.T, got, want Report) {
	t.Helper()
	diff := cmp.Diff(want, got,
		cmpopts.IgnoreFields(Report{}, "Ledger", "Kill", "RPO", "Losses"),
		cmpopts.IgnoreUnexported(Report{}, Account{}))
	if diff != "" {
		t.Errorf("report (-want +got)\n%s", diff)
	}
}
