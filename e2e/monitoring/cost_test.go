package monitoring_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"strings"
	"time"

	"outrider.dev/e2e/stage"
)

// truth is what the cloud itself counts.
type truth struct {
	at                         time.Time
	bytes, objects, puts, gets float64
}

func (s *scene) truth(ctx context.Context) truth {
	s.t.Helper()
	b, err := s.cloud.Control(ctx, http.MethodGet, "requests", "")
	must(s.t, err)
	var counts struct {
		Operations map[string]map[string]int
		Buckets    map[string]struct{ Objects, Bytes float64 }
	}
	must(s.t, json.Unmarshal(b, &counts))
	there := counts.Buckets[stage.Bucket]
	is := truth{at: time.Now(), bytes: there.Bytes, objects: there.Objects}
	for operation, results := range counts.Operations {
		if strings.HasPrefix(operation, "Get") || strings.HasPrefix(operation, "Head") {
			is.gets += float64(results["ok"])
		} else {
			is.puts += float64(results["ok"])
		}
	}
	return is
}

// number is the value of a query with one answer, NaN without.
func (s *scene) number(expr string) float64 {
	s.t.Helper()
	r := s.Now(expr)
	if len(r) != 1 {
		return math.NaN()
	}
	var text string
	must(s.t, json.Unmarshal(r[0].Value[1], &text))
	var v float64
	_, err := fmt.Sscan(text, &v)
	must(s.t, err)
	return v
}

// near is within 5 %.
func near(x, y float64) bool { return y > 0 && math.Abs(x-y) <= 0.05*y }

// bill holds what the sidecar counts, and what is forecast, against what the cloud counts.
func (s *scene) bill() {
	s.t.Helper()
	var last string
	defer func() { s.t.Log(last) }()
	s.Until("what is counted to be within 5 %", func(ctx context.Context) bool {
		is := s.truth(ctx)
		bytes, objects := s.number("sum(outrider_archive_bytes)"), s.number("sum(outrider_archive_objects)")
		puts, gets := s.number(`sum(outrider_oss_billed_requests_total{type="put"})`), s.number(`sum(outrider_oss_billed_requests_total{type="get"})`)
		last = fmt.Sprintf("bytes %.0f of %.0f, objects %.0f of %.0f, puts %.0f of %.0f, gets %.0f of %.0f", bytes, is.bytes, objects, is.objects, puts, is.puts, gets, is.gets)
		return near(bytes, is.bytes) && near(objects, is.objects) && near(puts, is.puts) && near(gets, is.gets)
	})
	s.t.Log(last)
	s.forecast(&last)
	s.Spend("0")
	s.Fires("OutriderOverBudget")
	s.Spend("1000")
	s.Resolves("OutriderOverBudget")
}

// forecast: storage is what the cloud holds, at 0.12 for each GB. Requests are those that it has answered in the last
// minute, which stands for a day here, thirty times, at 0.01 for 10 000. Of gets there are a few in a minute only: the
// cloud's count of all of them has to do.
func (s *scene) forecast(last *string) {
	s.t.Helper()
	var seen []truth
	s.Until("the forecast to be the price list's", func(ctx context.Context) bool {
		is := s.truth(ctx)
		seen = append(seen, is)
		for len(seen) > 1 && is.at.Sub(seen[1].at) >= time.Minute {
			seen = seen[1:]
		}
		storage, requests := s.number(`sum(outrider:cost_storage:month)`), s.number(`sum(outrider:cost_requests:month{type="put"})`)
		wantStorage, wantRequests := is.bytes/(1<<30)*0.12, (is.puts-seen[0].puts)*30/1e4*0.01
		*last = fmt.Sprintf("the forecast is %v for storage and %v for puts, by the price list it is %v and %v", storage, requests, wantStorage, wantRequests)
		return is.at.Sub(seen[0].at) >= time.Minute && near(storage, wantStorage) && near(requests, wantRequests)
	})
	if got := s.number(`sum(outrider:cost_requests:month{type="get"}) / sum(outrider:requests:day{type="get"})`); math.Abs(got-30/1e4*0.01) > 1e-9 {
		s.t.Errorf("a get a day is forecast to cost %v a month", got)
	}
}

// costsOnce: the archive is counted by two sidecars, and is paid for once.
func (s *scene) costsOnce() {
	s.t.Helper()
	const both = `count(count by (pod) (outrider_archive_bytes{pod=~"orders-."}))`
	var last string
	defer func() { s.t.Log(last) }()
	s.Until("what two count to cost once", func(ctx context.Context) bool {
		is := s.truth(ctx)
		counted, once := s.number("sum(outrider_archive_bytes)"), s.number("sum(outrider:archive_bytes)")
		last = fmt.Sprintf("counted are %.0f, to be paid for %.0f, the cloud holds %.0f", counted, once, is.bytes)
		return s.number(both) == 2 && counted > 1.5*is.bytes && near(once, is.bytes)
	})
}
