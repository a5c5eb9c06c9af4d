package oss

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
)

// Kind says how a fault shows.
type Kind string

// The kinds of faults. Delay, Throttle, WrongCRC, Corrupt, Truncate and ClockSkew disturb a request which is served
// otherwise, and may meet in one; of the others the first that fires decides.
const (
	Status      Kind = "status"       // answer with Status and Code without doing anything
	ResetBefore Kind = "reset_before" // cut the connection without doing anything
	ResetAfter  Kind = "reset_after"  // do it, durably, and cut the connection instead of answering
	Hang        Kind = "hang"         // never answer; ends when the client or the server goes away
	Delay       Kind = "delay"        // wait for Delay first
	Throttle    Kind = "throttle"     // move the bodies at Rate bytes per second
	Truncate    Kind = "truncate"     // cut the connection after At bytes of the answer's body
	WrongCRC    Kind = "wrong_crc"    // answer with a wrong x-oss-hash-crc64ecma
	Corrupt     Kind = "corrupt"      // flip a bit in byte At of the answer's body
	ClockSkew   Kind = "clock_skew"   // the server's clock is off by Skew
)

// Fault disturbs requests. All conditions have to hold for a request to match; of those that match, Skip, Count and
// Probability select.
type Fault struct {
	Op          string  // put, get, head, list, delete, append, initiate, part, complete, abort, copy, bucket, * or an operation's name; "" is *
	Bucket      string  // "" is any
	Prefix      string  // of the key; for a listing of the prefix asked for
	Regexp      string  // somewhere in the key
	AccessKeyID string  // only requests that name this key
	Skip        int     // let so many pass first
	Count       int     // then fire so often; 0 is without end
	Probability float64 // and only with this probability; 0 is always
	Seed        uint64  // of the probability's generator

	Kind Kind

	Status  int               // for Status; 0 is 503
	Code    string            // for Status; "" is derived from Status
	Message string            // for Status
	NoBody  bool              // for Status: neither body nor x-oss-err, as a proxy in between would answer
	Header  map[string]string // for Status: further headers

	Delay time.Duration // for Delay
	Rate  int64         // for Throttle, bytes per second
	At    int64         // for Truncate and Corrupt; 0 is the middle of the body, negative counts from its end
	Skew  time.Duration // for ClockSkew: positive is a server that is ahead
}

// faultJSON is how a Fault looks in the control API: durations as text.
type faultJSON struct {
	Op          string            `json:"op,omitempty"`
	Bucket      string            `json:"bucket,omitempty"`
	Prefix      string            `json:"prefix,omitempty"`
	Regexp      string            `json:"regexp,omitempty"`
	AccessKeyID string            `json:"access_key_id,omitempty"`
	Skip        int               `json:"skip,omitempty"`
	Count       int               `json:"count,omitempty"`
	Probability float64           `json:"probability,omitempty"`
	Seed        uint64            `json:"seed,omitempty"`
	Kind        Kind              `json:"kind"`
	Status      int               `json:"status,omitempty"`
	Code        string            `json:"code,omitempty"`
	Message     string            `json:"message,omitempty"`
	NoBody      bool              `json:"no_body,omitempty"`
	Header      map[string]string `json:"header,omitempty"`
	Delay       string            `json:"delay,omitempty"`
	Rate        int64             `json:"rate,omitempty"`
	At          int64             `json:"at,omitempty"`
	Skew        string            `json:"skew,omitempty"`
}

// MarshalJSON writes the form of the control API.
func (f Fault) MarshalJSON() ([]byte, error) {
	v := faultJSON{
		f.Op, f.Bucket, f.Prefix, f.Regexp, f.AccessKeyID, f.Skip, f.Count, f.Probability, f.Seed, f.Kind,
		f.Status, f.Code, f.Message, f.NoBody, f.Header, "", f.Rate, f.At, "",
	}
	if f.Delay != 0 {
		v.Delay = f.Delay.String()
	}
	if f.Skew != 0 {
		v.Skew = f.Skew.String()
	}
	return json.Marshal(v)
}

// UnmarshalJSON reads the form of the control API and refuses unknown fields.
func (f *Fault) UnmarshalJSON(data []byte) error {
	var v faultJSON
	dec := json.NewDecoder(strings.NewReader(string(data)))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&v); err != nil {
		return err
	}
	*f = Fault{
		Op: v.Op, Bucket: v.Bucket, Prefix: v.Prefix, Regexp: v.Regexp, AccessKeyID: v.AccessKeyID, Skip: v.Skip, Count: v.Count,
		Probability: v.Probability, Seed: v.Seed, Kind: v.Kind, Status: v.Status, Code: v.Code, Message: v.Message,
		NoBody: v.NoBody, Header: v.Header, Rate: v.Rate, At: v.At,
	}
	for _, d := range []struct {
		name, text string
		to         *time.Duration
	}{{"delay", v.Delay, &f.Delay}, {"skew", v.Skew, &f.Skew}} {
		if d.text == "" {
			continue
		}
		var err error
		if *d.to, err = time.ParseDuration(d.text); err != nil {
			return fmt.Errorf("%s: %w", d.name, err)
		}
	}
	return nil
}

// check refuses a fault that could never fire or would do nothing.
func (f Fault) check() error {
	switch f.Kind {
	case Status, ResetBefore, ResetAfter, Hang, Truncate, WrongCRC, Corrupt:
	case Delay:
		if f.Delay <= 0 {
			return fmt.Errorf("kind delay needs a positive delay")
		}
	case Throttle:
		if f.Rate <= 0 {
			return fmt.Errorf("kind throttle needs a positive rate in bytes per second")
		}
	case ClockSkew:
		if f.Skew == 0 {
			return fmt.Errorf("kind clock_skew needs a skew")
		}
	default:
		return fmt.Errorf("unknown kind %q", f.Kind)
	}
	if f.Probability < 0 || f.Probability > 1 || f.Skip < 0 || f.Count < 0 {
		return fmt.Errorf("probability has to be in 0…1, skip and count not negative")
	}
	if f.Status != 0 && (f.Status < 300 || f.Status > 599) {
		return fmt.Errorf("status %d is no error", f.Status)
	}
	return nil
}

type armedFault struct {
	Fault
	pattern *regexp.Regexp
	random  *rand.Rand
	matched int
	fired   int
}

type faultSet struct {
	mu    sync.Mutex
	armed []*armedFault
}

// FaultState is a fault and how often it has matched and fired.
type FaultState struct {
	Fault   Fault `json:"fault"`
	Matched int   `json:"matched"`
	Fired   int   `json:"fired"`
}

// SetFaults replaces all faults; without arguments there are none. It takes effect with the next request. Nothing
// changes if one of them is not valid.
func (s *Server) SetFaults(faults ...Fault) error {
	classes := s.rules.names()
	armed := make([]*armedFault, 0, len(faults))
	for i, f := range faults {
		if err := f.check(); err != nil {
			return fmt.Errorf("fault %d: %w", i, err)
		}
		if f.Op != "" && f.Op != "*" && !slices.Contains(classes, f.Op) {
			return fmt.Errorf("fault %d: unknown op %q: allowed are *, %s", i, f.Op, strings.Join(classes, ", "))
		}
		pattern, err := regexp.Compile(f.Regexp)
		if err != nil {
			return fmt.Errorf("fault %d: %w", i, err)
		}
		armed = append(armed, &armedFault{Fault: f, pattern: pattern, random: rand.New(rand.NewPCG(f.Seed, f.Seed))})
	}
	s.faults.mu.Lock()
	defer s.faults.mu.Unlock()
	s.faults.armed = armed
	return nil
}

// Faults tells what is armed and how often it has fired.
func (s *Server) Faults() []FaultState {
	s.faults.mu.Lock()
	defer s.faults.mu.Unlock()
	out := make([]FaultState, 0, len(s.faults.armed))
	for _, a := range s.faults.armed {
		out = append(out, FaultState{a.Fault, a.matched, a.fired})
	}
	return out
}

// names lists the classes and names of all operations.
func (r ruleSet) names() []string {
	var out []string
	for _, rules := range [][]rule{r.service, r.bucket, r.object} {
		for _, x := range rules {
			out = append(out, x.class, x.name)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func (a *armedFault) matches(c *call) bool {
	if a.Op != "" && a.Op != "*" && a.Op != c.op.class && a.Op != c.op.name {
		return false
	}
	key := c.key
	if key == "" {
		key = c.query.get("prefix")
	}
	return (a.Bucket == "" || a.Bucket == c.bucket) && strings.HasPrefix(key, a.Prefix) && a.pattern.MatchString(key) &&
		(a.AccessKeyID == "" || a.AccessKeyID == c.claimedKeyID())
}

// fires counts a match and decides.
func (a *armedFault) fires() bool {
	a.matched++
	if a.matched <= a.Skip || a.Count > 0 && a.fired >= a.Count || a.Probability > 0 && a.random.Float64() >= a.Probability {
		return false
	}
	a.fired++
	return true
}

// claimedKeyID is the access key that the request names; nothing is verified yet.
func (c *call) claimedKeyID() string {
	authorization := c.http.Header.Get("Authorization")
	if text, ok := strings.CutPrefix(authorization, "OSS "); ok {
		id, _, _ := strings.Cut(text, ":")
		return id
	}
	if text, ok := strings.CutPrefix(authorization, algorithmV4+" "); ok {
		a, _ := parseAuthorizationV4(text)
		return a.accessKeyID
	}
	if id, ok := c.query.lookup("OSSAccessKeyId"); ok {
		return id
	}
	id, _, _ := strings.Cut(c.query.get("x-oss-credential"), "/")
	return id
}
