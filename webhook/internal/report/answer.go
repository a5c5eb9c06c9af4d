package report

import (
	"fmt"
	"net/http"
)

// Path is where reports are sent.
const Path = "/v1/reports"

// Outcome is what became of a report, from a closed list.
type Outcome string

// The outcomes.
const (
	Noted           Outcome = "noted"
	Unauthenticated Outcome = "unauthenticated" // no token, or one that is invalid, expired or for somebody else
	NoPod           Outcome = "no_pod"          // the token is good and names no pod that is there
	NotOurs         Outcome = "not_ours"        // the pod has no sidecar of ours
	BadRequest      Outcome = "bad_request"
	TooMany         Outcome = "too_many"
	Unknown         Outcome = "unknown" // the API server could not be asked
)

// Outcomes are all of them.
func Outcomes() []Outcome {
	return []Outcome{Noted, Unauthenticated, NoPod, NotOurs, BadRequest, TooMany, Unknown}
}

func (o Outcome) status() int {
	switch o {
	case Noted:
		return http.StatusOK
	case Unauthenticated:
		return http.StatusUnauthorized
	case NoPod, NotOurs:
		return http.StatusForbidden
	case BadRequest:
		return http.StatusBadRequest
	case TooMany:
		return http.StatusTooManyRequests
	default:
		return http.StatusServiceUnavailable
	}
}

// Answer is the body of every answer.
type Answer struct {
	Outcome Outcome `json:"outcome"`
	Message string  `json:"message"` // for people
}

// refusal is an error that is said to whoever reported.
type refusal struct {
	outcome Outcome
	text    string
}

func (r *refusal) Error() string { return r.text }

func refuse(o Outcome, format string, args ...any) error {
	return &refusal{outcome: o, text: fmt.Sprintf(format, args...)}
}
