package inject

import (
	"errors"
	"fmt"
)

// Reason says what was decided about a pod. The list is closed: it is the text of a log line, the label of a metric and
// the first word of a denial.
type Reason string

// Injected means that the pod is protected.
const Injected Reason = "injected"

// Drill means that the pod holds a restore drill of a database and ends.
const Drill Reason = "drill"

// The pod is none of ours and is admitted as it is.
const (
	OptedOut   Reason = "opted_out"   // the annotation protect says disabled
	MirrorPod  Reason = "mirror_pod"  // a static pod's mirror, which nobody can change
	JobPod     Reason = "job"         // a pod of a Job ends by itself; a database does not
	NoPostgres Reason = "no_postgres" // no container runs PostgreSQL
)

// The pod must not start as it is: a database could start empty, unprotected, or in another one's place.
const (
	BadPolicy        Reason = "bad_policy"        // an annotation or the configuration is wrong
	NoContainer      Reason = "no_container"      // protection is asked for, and no container can be told to be PostgreSQL
	ManyContainers   Reason = "many_containers"   // more than one is
	NoIdentity       Reason = "no_identity"       // the pod's name is generated, so its archive would be a new one each time
	CopiedIdentity   Reason = "copied_identity"   // the pod is a copy of a protected one and names the same database
	SharedIdentity   Reason = "shared_identity"   // a workload whose pods would be the same database at the same time
	DataUnknown      Reason = "data_unknown"      // the data directory cannot be told
	DataUnreachable  Reason = "data_unreachable"  // the data directory or pg_wal is where a sidecar cannot be
	UserUnknown      Reason = "user_unknown"      // the pod may not run as root, and the uid of PostgreSQL cannot be told
	NameTaken        Reason = "name_taken"        // a name, path or port of ours is in use
	PostgresVanished Reason = "postgres_vanished" // a pod that was protected, and now nothing in it looks like PostgreSQL
)

// Reasons are all of them, in the order of their declaration.
func Reasons() []Reason {
	return []Reason{
		Injected, Drill, OptedOut, MirrorPod, JobPod, NoPostgres, BadPolicy, NoContainer, ManyContainers, NoIdentity, CopiedIdentity,
		SharedIdentity, DataUnknown, DataUnreachable, UserUnknown, NameTaken, PostgresVanished,
	}
}

// Refused tells whether a pod with this reason must not be admitted.
func (r Reason) Refused() bool {
	switch r {
	case Injected, Drill, OptedOut, MirrorPod, JobPod, NoPostgres:
		return false
	default:
		return true
	}
}

// refusal is the error of a pod that must not start. Its text says what to do.
type refusal struct {
	reason Reason
	cause  error
}

func (r *refusal) Error() string { return r.cause.Error() }
func (r *refusal) Unwrap() error { return r.cause }

func refuse(reason Reason, format string, args ...any) error {
	return &refusal{reason: reason, cause: fmt.Errorf(format, args...)}
}

// reasonOf is the reason of an error that refuse made, however it was wrapped.
func reasonOf(err error) (Reason, bool) {
	var r *refusal
	if errors.As(err, &r) {
		return r.reason, true
	}
	return "", false
}
