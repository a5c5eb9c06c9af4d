package metadata

import (
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"
)

// Kind says how a fault shows.
type Kind string

// The kinds of faults.
const (
	Status Kind = "status" // answer with Status and Body; 200 with a Body of one's own is garbage from a foreign host
	Reset  Kind = "reset"  // cut the connection
	Hang   Kind = "hang"   // answer nothing until the client gives up
	Delay  Kind = "delay"  // answer rightly after Seconds
)

// Fault disturbs requests whose path begins with Prefix.
type Fault struct {
	Prefix  string  `json:"prefix,omitempty"` // such as /latest/meta-data/instance/spot; "" is any
	Method  string  `json:"method,omitempty"` // "" is any
	Skip    int     `json:"skip,omitempty"`   // let so many pass first
	Count   int     `json:"count,omitempty"`  // then fire so often; 0 is without end
	Kind    Kind    `json:"kind"`
	Status  int     `json:"status,omitempty"` // 0 is 500
	Body    string  `json:"body,omitempty"`
	Seconds float64 `json:"seconds,omitempty"` // for Delay
}

type armedFault struct {
	Fault
	matched, fired int
}

// SetFaults replaces all faults; without arguments there are none. Nothing changes if one of them is not valid.
func (s *Server) SetFaults(faults ...Fault) error {
	var armed []*armedFault
	for i, f := range faults {
		switch {
		case f.Kind != Status && f.Kind != Reset && f.Kind != Hang && f.Kind != Delay:
			return fmt.Errorf("metadata fault %d: unknown kind %q: allowed are status, reset, hang and delay", i, f.Kind)
		case f.Kind == Delay && f.Seconds <= 0:
			return fmt.Errorf("metadata fault %d: kind delay needs seconds", i)
		case f.Status != 0 && (f.Status < 200 || f.Status > 599):
			return fmt.Errorf("metadata fault %d: status %d is out of 200…599", i, f.Status)
		}
		armed = append(armed, &armedFault{Fault: f})
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = armed
	return nil
}

// Faults returns what is armed.
func (s *Server) Faults() []Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := []Fault{}
	for _, a := range s.faults {
		out = append(out, a.Fault)
	}
	return out
}

// findFault picks the first fault that fires for the request.
func (s *Server) findFault(r *http.Request) *Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.faults {
		if !strings.HasPrefix(r.URL.Path, a.Prefix) || a.Method != "" && a.Method != r.Method {
			continue
		}
		a.matched++
		if a.matched <= a.Skip || a.Count > 0 && a.fired >= a.Count {
			continue
		}
		a.fired++
		f := a.Fault
		return &f
	}
	return nil
}

// apply does what the fault says and tells whether the request is over.
func (f *Fault) apply(w http.ResponseWriter, r *http.Request) (done bool) {
	switch f.Kind {
	case Delay:
		t := time.NewTimer(time.Duration(f.Seconds * float64(time.Second)))
		defer t.Stop()
		select {
		case <-t.C:
		case <-r.Context().Done():
		}
		return false
	case Hang:
		<-r.Context().Done() // of a GET without a body: ends with the connection
	case Reset:
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		if tcp, ok := conn.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0) // RST instead of FIN
		}
		_ = conn.Close()
	case Status:
		status := f.Status
		if status == 0 {
			status = http.StatusInternalServerError
		}
		w.WriteHeader(status)
		_, _ = w.Write([]byte(f.Body))
	}
	return true
}
