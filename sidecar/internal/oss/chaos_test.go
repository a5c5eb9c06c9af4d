package oss

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"outrider.dev/e2e/devcloud/devtest"
	devoss "outrider.dev/e2e/devcloud/oss"
	"outrider.dev/sidecar/internal/archive"
)

// TestChaos lets several writers create objects once, read and list them while every kind of request fails in every
// way now and then. Whoever is told that it created an object must have created it, and everybody reads the same.
func TestChaos(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	cloud := devtest.Start(t)
	cloud.SetFaults(
		devoss.Fault{Kind: devoss.Status, Status: 503, Probability: .05, Seed: seed},
		devoss.Fault{Kind: devoss.ResetBefore, Probability: .05, Seed: seed + 1},
		devoss.Fault{Kind: devoss.ResetAfter, Probability: .08, Seed: seed + 2},
		devoss.Fault{Kind: devoss.Truncate, Probability: .05, Seed: seed + 3},
		devoss.Fault{Op: "put", Kind: devoss.WrongCRC, Probability: .05, Seed: seed + 4},
		devoss.Fault{Op: "part", Kind: devoss.WrongCRC, Probability: .05, Seed: seed + 5},
		devoss.Fault{Kind: devoss.Hang, Probability: .01, Seed: seed + 6},
	)
	change := func(c *Config) {
		c.Timeouts.Attempts, c.Timeouts.Attempt, c.PartSize = 30, 300*time.Millisecond, minPartSize
	}
	const keys, writers = 40, 3
	bodies := func(key, writer int) []byte {
		r := rand.New(rand.NewPCG(seed, uint64(key*10+writer)))
		size := r.IntN(1000)
		if key%3 == 0 {
			size = r.IntN(4 * minPartSize)
		}
		return append(random(uint64(key*10+writer), size), byte(writer))
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	winners := map[int][]int{}
	for w := range writers {
		b := open(t, cloud, change)
		wg.Go(func() {
			for k := range keys {
				name, body := fmt.Sprintf("k/%02d", k), bodies(k, w)
				var err error
				if k%3 == 0 {
					_, err = b.Upload(t.Context(), name, bytes.NewReader(body), archive.PutOptions{})
				} else {
					err = b.Put(t.Context(), name, body, archive.PutOptions{})
				}
				mu.Lock()
				switch {
				case err == nil:
					winners[k] = append(winners[k], w)
				case !errors.Is(err, fs.ErrExist):
					t.Errorf("writer %d, %s: %v", w, name, err)
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	b := open(t, cloud, change)
	for k := range keys {
		if len(winners[k]) != 1 {
			t.Errorf("key %d was created by writers %v", k, winners[k])
			continue
		}
		wantObject(t, b, fmt.Sprintf("k/%02d", k), bodies(k, winners[k][0]))
	}
	n := 0
	for _, err := range b.List(t.Context(), "k/", "") {
		if n++; err != nil {
			t.Fatal(err)
		}
	}
	if n != keys {
		t.Errorf("%d keys listed, want %d", n, keys)
	}
}
