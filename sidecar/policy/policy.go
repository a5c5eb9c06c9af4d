// Package policy is what a user asks of Outrider, in one struct, and its three spellings: annotations of a pod or a
// namespace, the webhook's configuration, and the environment of the sidecar. The webhook reads annotations and writes
// the environment, the sidecar reads the environment; both through the one parser here, so they cannot disagree.
//
// An unknown key or a bad value is an error, never ignored: a misspelt retention is a lost database.
package policy

import "time"

// Prefix begins the name of every annotation of ours.
const Prefix = "outrider.dev/"

// Status is the annotation that Outrider itself writes on a pod. It is no part of a policy: where it is found, it is
// passed over.
const Status = Prefix + "status"

// Policy is what is wanted for one database. It is comparable; the zero value of a field means that nothing was asked
// for and the reader decides (Key.Unset says how). Resolve and FromEnv fill in the defaults.
type Policy struct {
	Protect Protect // whether a pod is protected against what its images suggest

	Archive     string // oss://bucket/prefix; in the environment of a sidecar the root of its own database
	OSSEndpoint string // host[:port] or URL
	OSSRegion   string // such as cn-hangzhou
	Credentials Credentials

	Cluster   string // identity of the database in the archive
	Container string // name of the PostgreSQL container
	PGData    string // absolute path of the data directory

	RPO            time.Duration // target age of commits that are not yet in the archive
	RTO            time.Duration // target for the time from a loss to the first accepted write
	RequestBudget  int64         // requests to OSS a day that flushes are grouped for; 0: none
	BackupSchedule string        // cron with five fields, UTC
	Retention      time.Duration // length of the recovery window
	MinBackups     int           // verified snapshots that are kept whatever their age
	DrillMaxAge    time.Duration // by when after the last one a restore drill has to be passed; 0: no drills are expected

	Drill      string // the database that this pod holds a restore drill of, instead of being one
	DrillQuery string // what the restored database is asked in that drill

	Restore       RestoreMode
	RestoreFrom   string // root of another cluster to restore from, or empty
	RestoreTarget Target
	Archiving     Switch    // off for a throw-away clone
	StaleDisk     StaleDisk // what to do with a disk that is older than the archive, or foreign to it
	Adopt         bool      // after pg_upgrade: open the next root

	MaxWALBacklog WALBacklog
	StorageClass  string // of the objects that are written
	Encryption    string // none, AES256, KMS or KMS:id

	Grace      time.Duration // time for an orderly stop
	RunAs      RunAs
	CPU        Resource // of the sidecar, in thousandths of a CPU
	Memory     Resource // of the sidecar, in bytes
	Superseded Superseded
	TakeOver   string // id of the Kubernetes cluster whose epochs may be continued here
}

// Protect is the value of the annotation protect.
type Protect string

// The values of Protect; unset means that the images decide.
const (
	ProtectEnabled  Protect = "enabled"
	ProtectDisabled Protect = "disabled"
)

// RestoreMode says what happens before PostgreSQL starts.
type RestoreMode string

// The values of RestoreMode.
const (
	RestoreAuto     RestoreMode = "auto"     // an empty disk is restored; an archive that is proven empty lets initdb run
	RestoreRequired RestoreMode = "required" // as auto, but never initdb
	RestoreNever    RestoreMode = "never"    // the disk stays as it is
)

// Switch is on or off.
type Switch string

// The values of Switch.
const (
	On  Switch = "on"
	Off Switch = "off"
)

// StaleDisk says what happens with a disk that is older than the archive or foreign to it.
type StaleDisk string

// The values of StaleDisk.
const (
	StaleRefuse StaleDisk = "refuse"
	StaleFork   StaleDisk = "fork"
)

// Superseded says what a writer does to its database once another one has taken its place.
type Superseded string

// The values of Superseded.
const (
	SupersededReadOnly Superseded = "read-only"
	SupersededReport   Superseded = "report"
)

// Root is the root of one database in the archive. It is what a sidecar gets as Archive.
func (p Policy) Root(namespace, cluster string) string {
	return p.Archive + "/" + namespace + "/" + cluster
}
