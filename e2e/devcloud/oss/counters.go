package oss

import (
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"outrider.dev/e2e/devcloud/oss/internal/disk"
)

// OK is the result under which requests that succeeded are counted.
const OK = "ok"

// recentLimit bounds how many requests Recent remembers.
const recentLimit = 20000

// Requests counts what the server was asked since the last reset.
type Requests struct {
	// Operations counts by operation (as PutObject) and result: OK, an error code (as FileAlreadyExists), or what a
	// fault did (Hang, ResetBefore, ResetAfter, Truncated). Broken is a connection that the client cut.
	Operations map[string]map[string]int `json:"operations"`
	Folders    map[string]int            `json:"folders"`   // by what the key, or of a listing the prefix, has before its first slash
	BytesIn    int64                     `json:"bytes_in"`  // bodies of requests
	BytesOut   int64                     `json:"bytes_out"` // bodies of answers
	Buckets    map[string]Usage          `json:"buckets"`   // what they hold now
}

// Usage is what a bucket holds; unfinished uploads are not in its bytes.
type Usage = disk.Usage

// Total counts requests of the operations whatever became of them; without arguments of all.
func (r Requests) Total(operations ...string) int {
	n := 0
	for name, results := range r.Operations {
		if len(operations) > 0 && !slices.Contains(operations, name) {
			continue
		}
		for _, k := range results {
			n += k
		}
	}
	return n
}

// Request is one request as it was served.
type Request struct {
	Time        time.Time     `json:"time"`
	Operation   string        `json:"operation"`
	Bucket      string        `json:"bucket,omitempty"`
	Key         string        `json:"key,omitempty"` // of a listing the prefix
	AccessKeyID string        `json:"access_key_id,omitempty"`
	Status      int           `json:"status"` // 0 if there was no answer
	Result      string        `json:"result"`
	BytesIn     int64         `json:"bytes_in"`
	BytesOut    int64         `json:"bytes_out"`
	Duration    time.Duration `json:"duration_ns"`
}

type counters struct {
	mu     sync.Mutex
	sums   Requests
	recent []Request
}

func (k *counters) reset() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.sums = Requests{Operations: map[string]map[string]int{}, Folders: map[string]int{}}
	k.recent = nil
}

func (k *counters) count(c *call) {
	r := Request{
		Time: c.start, Operation: c.op.name, Bucket: c.bucket, Key: c.policyKey().Key, AccessKeyID: c.claimedKeyID(),
		Status: c.w.status, Result: or(c.code, OK), BytesIn: c.body.n, BytesOut: c.w.n, Duration: time.Since(c.start),
	}
	if c.w.discard {
		r.Status, r.BytesOut = 0, 0
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	results := k.sums.Operations[r.Operation]
	if results == nil {
		results = map[string]int{}
		k.sums.Operations[r.Operation] = results
	}
	results[r.Result]++
	if folder, _, below := strings.Cut(r.Key, "/"); below {
		k.sums.Folders[folder]++
	}
	k.sums.BytesIn += r.BytesIn
	k.sums.BytesOut += r.BytesOut
	if len(k.recent) >= 2*recentLimit {
		k.recent = append([]Request(nil), k.recent[recentLimit:]...)
	}
	k.recent = append(k.recent, r)
	c.server.log.Debug("request", "operation", r.Operation, "bucket", r.Bucket, "key", r.Key, "status", r.Status,
		"result", r.Result, "duration", r.Duration)
}

// Requests returns the counts since the last reset and what the buckets hold now.
func (s *Server) Requests() Requests {
	s.counters.mu.Lock()
	out := s.counters.sums
	out.Operations = make(map[string]map[string]int, len(s.counters.sums.Operations))
	for name, results := range s.counters.sums.Operations {
		out.Operations[name] = maps.Clone(results)
	}
	out.Folders = maps.Clone(out.Folders)
	s.counters.mu.Unlock()
	out.Buckets = map[string]Usage{}
	for _, b := range s.store.Buckets() {
		if u, err := s.store.Usage(b.Name); err == nil {
			out.Buckets[b.Name] = u
		}
	}
	return out
}

// ResetRequests sets all counts to zero and forgets the recent requests.
func (s *Server) ResetRequests() { s.counters.reset() }

// Recent returns the latest requests in the order in which they ended, at most n of them (and at least 20,000 are
// remembered); 0 is all.
func (s *Server) Recent(n int) []Request {
	s.counters.mu.Lock()
	defer s.counters.mu.Unlock()
	r := s.counters.recent
	if n > 0 && len(r) > n {
		r = r[len(r)-n:]
	}
	return append([]Request(nil), r...)
}
