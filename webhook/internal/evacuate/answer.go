package evacuate

import (
	"net/http"
	"time"
)

// Path is where evacuations are asked for.
const Path = "/v1/evacuations"

// Outcome is what became of a call, from a closed list.
type Outcome string

// The pod is being seen to.
const (
	Evicted      Outcome = "evicted"       // now
	Deleted      Outcome = "deleted"       // now, past a disruption budget
	Terminating  Outcome = "terminating"   // already
	PreparedOnly Outcome = "prepared_only" // it has no controller: nobody would make it anew, so it stays
	Waiting      Outcome = "waiting"       // for a disruption budget; ask again
)

// Nothing was changed.
const (
	Unauthenticated Outcome = "unauthenticated" // no token, or one that is invalid, expired or for somebody else
	NoPod           Outcome = "no_pod"          // the token is good and names no pod that is there
	NotProtected    Outcome = "not_protected"
	NotSpot         Outcome = "not_spot" // the pod is on no node that is reclaimed
	Finished        Outcome = "finished"
	BadRequest      Outcome = "bad_request"
	BadTime         Outcome = "bad_time"
	TooMany         Outcome = "too_many"
)

// Unknown says that the API server could not be asked, or refused: nothing is known to be done. Ask again.
const Unknown Outcome = "unknown"

// Outcomes are all of them.
func Outcomes() []Outcome {
	return []Outcome{
		Evicted, Deleted, Terminating, PreparedOnly, Waiting,
		Unauthenticated, NoPod, NotProtected, NotSpot, Finished, BadRequest, BadTime, TooMany, Unknown,
	}
}

func (o Outcome) status() int {
	switch o {
	case Evicted, Deleted, Terminating, PreparedOnly:
		return http.StatusOK
	case Waiting:
		return http.StatusAccepted
	case Unauthenticated:
		return http.StatusUnauthorized
	case NoPod, NotProtected, NotSpot, Finished:
		return http.StatusForbidden
	case BadRequest:
		return http.StatusBadRequest
	case BadTime:
		return http.StatusUnprocessableEntity
	case TooMany:
		return http.StatusTooManyRequests
	default:
		return http.StatusServiceUnavailable
	}
}

// Request is the body of a call. Fields that are not known are passed over.
type Request struct {
	ReleaseAt time.Time `json:"release_at"` // when the node will be released, RFC 3339
	Instance  string    `json:"instance"`   // as its metadata service calls it; for people only
}

// Answer is the body of every answer.
type Answer struct {
	Outcome Outcome `json:"outcome"`
	Message string  `json:"message"` // for people
	Node    string  `json:"node,omitempty"`
	Tainted bool    `json:"tainted"` // whether the node has the taint now
	// GraceSeconds is how long the pod is given to stop.
	GraceSeconds int64 `json:"grace_seconds,omitempty"`
	// ForcedAt is from when on a disruption budget is not waited for any more; of Waiting.
	ForcedAt *time.Time `json:"forced_at,omitempty"`
}
