package main

import (
	"testing"
	"testing/synctest"
	"time"
)

// spend makes requests, one each pace, for a while, and returns how many, and the longest pace.
func spend(p *pacer, used *int64, span time.Duration) (n int64, longest time.Duration) {
	for end := time.Now().Add(span); time.Now().Before(end); n++ {
		pace := p.pace()
		longest = max(longest, pace)
		time.Sleep(pace)
		*used++
	}
	return n, longest
}

func TestPace(t *testing.T) {
	const rpo, day = time.Second, 24 * time.Hour
	for name, c := range map[string]struct {
		budget, least, most int64
		longest             time.Duration
	}{
		"more than is used":              {budget: 400_000, least: 345_000, most: 345_600, longest: rpo / 4},
		"less than is used":              {budget: 200_000, least: 195_000, most: 210_000, longest: rpo * 3 / 4},
		"less than the rpo can do with":  {budget: 10_000, least: 115_000, most: 116_500, longest: rpo * 3 / 4},
		"an hour's worth may be a burst": {budget: 115_200, least: 115_000, most: 121_000, longest: rpo * 3 / 4},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var used int64
				n, longest := spend(newPacer(c.budget, rpo, func() int64 { return used }), &used, day)
				if n < c.least || n > c.most || longest > c.longest {
					t.Errorf("%d requests in a day, at most %v apart; want %d to %d, %v", n, longest, c.least, c.most, c.longest)
				}
			})
		})
	}
}

func TestPaceRecovers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var used int64
		p := newPacer(100_000, time.Second, func() int64 { return used })
		used += 1_000_000 // a restore of another program with these keys
		if got := p.pace(); got != 750*time.Millisecond {
			t.Errorf("with nothing left the pace is %v", got)
		}
		time.Sleep(allowanceSpan)
		if got := p.pace(); got != 250*time.Millisecond {
			t.Errorf("an hour later the pace is %v", got)
		}
	})
}
