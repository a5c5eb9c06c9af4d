package policy

import (
	"fmt"
	"slices"
	"strconv"
	"time"
)

// fields is the table of all keys, in the order in which they are documented.
func fields() []field {
	return slices.Concat(placeFields(), identityFields(), promiseFields(), drillFields(), restoreFields(), storageFields(), processFields())
}

// placeFields say where the archive is.
func placeFields() []field {
	return []field{
		choice(Key{
			Name: "protect", Env: "OUTRIDER_PROTECT", PodOnly: true, Unset: "the images decide",
			Doc: "protect this pod, or leave it alone, whatever its images suggest",
		},
			func(p *Policy) *Protect { return &p.Protect }, ProtectEnabled, ProtectDisabled),
		text(Key{
			Name: "archive", Env: "OUTRIDER_ARCHIVE", Unset: "required", Form: "`oss://bucket/prefix`",
			Doc: "where the archives are; below it each database has the root `namespace/cluster`, and on the command line and in the sidecar's environment it is that root itself",
		},
			func(p *Policy) *string { return &p.Archive }, checkLocation),
		text(Key{
			Name: "oss-endpoint", Env: "OSS_ENDPOINT", Unset: "the region's public endpoint", Form: "a host, or its URL",
			Doc: "where the bucket is reached; inside a VPC `oss-REGION-internal.aliyuncs.com`, where OSS takes nothing for traffic",
		},
			func(p *Policy) *string { return &p.OSSEndpoint }, checkEndpoint),
		text(Key{
			Name: "oss-region", Env: "OSS_REGION", Unset: "from the endpoint", Form: "the id of a region, such as `cn-hangzhou`",
			Doc: "the region of the bucket",
		},
			func(p *Policy) *string { return &p.OSSRegion }, checkRegion),
		value(Key{
			Name: "credentials", Env: "OUTRIDER_CREDENTIALS", Unset: "whatever the environment offers",
			Form: "`secret:NAME`, `rrsa:ROLE`, `ram-role:NAME`",
			Doc:  "where the access to OSS comes from; the Secret is in the pod's namespace and has the keys `OSS_ACCESS_KEY_ID`, `OSS_ACCESS_KEY_SECRET` and, if they are temporary, `OSS_SESSION_TOKEN`",
		},
			func(p *Policy) *Credentials { return &p.Credentials }, parseCredentials),
	}
}

// identityFields say which database it is.
func identityFields() []field {
	return []field{
		text(Key{
			Name: "cluster", Env: "OUTRIDER_CLUSTER", PodOnly: true, Unset: "the name of the pod or of its Deployment",
			Form: "a lower-case name", Doc: "the identity of the database in the archive; two pods with the same one are the same database",
		},
			func(p *Policy) *string { return &p.Cluster },
			matching(subdomainPattern, maxSubdomain, "lower-case letters, digits, - and .")),
		text(Key{
			Name: "container", Env: "OUTRIDER_CONTAINER", Unset: "detected", Form: "the name of a container",
			Doc: "which container runs PostgreSQL",
		},
			func(p *Policy) *string { return &p.Container },
			matching(labelPattern, maxLabel, "the name of a container")),
		text(Key{
			Name: "pgdata", Env: "PGDATA", Unset: "detected", Form: "an absolute path",
			Doc: "the data directory",
		},
			func(p *Policy) *string { return &p.PGData }, checkPath),
	}
}

// promiseFields say what is promised, and how snapshots serve it.
func promiseFields() []field {
	return []field{
		duration(Key{
			Name: "rpo", Env: "OUTRIDER_RPO", Default: "1s",
			Doc: "target age of commits that are not yet in the archive",
		},
			func(p *Policy) *time.Duration { return &p.RPO }, 100*time.Millisecond, 10*time.Minute),
		duration(Key{
			Name: "rto", Env: "OUTRIDER_RTO", Default: "5m",
			Doc: "target for the time that a recovery takes; a snapshot is brought forward to hold it",
		},
			func(p *Policy) *time.Duration { return &p.RTO }, 10*time.Second, Day),
		requestBudget(),
		text(Key{
			Name: "backup-schedule", Env: "OUTRIDER_BACKUP_SCHEDULE", Default: "0 * * * *", Form: "five fields of cron, UTC",
			Doc: "when snapshots are taken",
		},
			func(p *Policy) *string { return &p.BackupSchedule }, checkSchedule),
		duration(Key{
			Name: "retention", Env: "OUTRIDER_RETENTION", Default: "7d",
			Doc: "the recovery window: every moment in it can be restored; what is older is deleted after each snapshot if the role may delete, else by a janitor (`outrider expire`)",
		},
			func(p *Policy) *time.Duration { return &p.Retention }, time.Hour, 3650*Day),
		minBackups(),
	}
}

// drillFields say how it is proven that a restore works.
func drillFields() []field {
	return []field{
		text(Key{
			Name: "drill", Env: "OUTRIDER_DRILL", PodOnly: true, Unset: "the pod is a database, not a drill", Form: "the `cluster` of a database in the same namespace",
			Doc: "on a pod of a Job: hold a restore drill of that database, record the verdict, and end",
		},
			func(p *Policy) *string { return &p.Drill },
			matching(subdomainPattern+`(@[1-9][0-9]*)?`, maxSubdomain, "the name of a database, such as orders-0")),
		text(Key{
			Name: "drill-query", Env: "OUTRIDER_DRILL_QUERY", PodOnly: true, Unset: "nothing is asked", Form: "a query that only reads",
			Doc: "must succeed in the restored database and answer with at least one row, whose first column is not false",
		},
			func(p *Policy) *string { return &p.DrillQuery }, checkQuery),
		duration(Key{
			Name: "drill-max-age", Env: "OUTRIDER_DRILL_MAX_AGE", Unset: "no drills are expected", Form: "36h",
			Doc: "how old the last restore drill that was passed may become; see `outrider drill`",
		},
			func(p *Policy) *time.Duration { return &p.DrillMaxAge }, time.Hour, 365*Day),
	}
}

// restoreFields say how a database begins.
func restoreFields() []field {
	return []field{
		choice(Key{
			Name: "restore", Env: "OUTRIDER_RESTORE", Default: string(RestoreAuto),
			Doc: "what happens to an empty disk: `auto` restores it, or leaves it to `initdb` when the archive is proven empty; `required` never leaves it to `initdb`",
		},
			func(p *Policy) *RestoreMode { return &p.Restore }, RestoreAuto, RestoreRequired, RestoreNever),
		text(Key{
			Name: "restore-from", Env: "OUTRIDER_RESTORE_FROM", Unset: "the own root", Form: "`oss://bucket/prefix/namespace/cluster`",
			Doc: "the root of another database to begin with",
		},
			func(p *Policy) *string { return &p.RestoreFrom }, ParseRoot),
		restoreTarget(),
		choice(Key{
			Name: "archiving", Env: "OUTRIDER_ARCHIVING", Default: string(On),
			Doc: "`off` for a throw-away clone that is restored and never archived",
		},
			func(p *Policy) *Switch { return &p.Archiving }, On, Off),
		choice(Key{
			Name: "stale-disk", Env: "OUTRIDER_STALE_DISK", Default: string(StaleRefuse),
			Doc: "what to do with a disk that is older than the archive or foreign to it: refuse to start, or fork it to a new timeline",
		},
			func(p *Policy) *StaleDisk { return &p.StaleDisk }, StaleRefuse, StaleFork),
		adopt(),
	}
}

// storageFields say what is stored, and how.
func storageFields() []field {
	return []field{
		value(Key{
			Name: "max-wal-backlog", Env: "OUTRIDER_MAX_WAL_BACKLOG",
			Unset: "on `emptyDir` a quarter of its room, or `8Gi`, then `drop`; elsewhere `unlimited`", Form: "`SIZE`, `SIZE:keep`, `SIZE:drop`, `unlimited`",
			Doc: "how much WAL PostgreSQL may keep while the archive cannot take it; beyond it `keep` says so in the log and keeps more, until the disk is full; `drop` gives it up, which makes a gap in the archive; a bare `SIZE` means `drop` on `emptyDir`, else `keep`",
		},
			func(p *Policy) *WALBacklog { return &p.MaxWALBacklog }, parseBacklog),
		text(Key{
			Name: "storage-class", Env: "OUTRIDER_STORAGE_CLASS", Default: "Standard", Form: "Standard, IA",
			Doc: "the class of the objects that are written",
		},
			func(p *Policy) *string { return &p.StorageClass }, checkStorageClass),
		text(Key{
			Name: "encryption", Env: "OUTRIDER_ENCRYPTION", Unset: "the bucket's default", Form: "`none`, `AES256`, `KMS[:KEY-ID]`",
			Doc: "encryption on the side of OSS",
		},
			func(p *Policy) *string { return &p.Encryption }, checkEncryption),
	}
}

// processFields say how the sidecar runs and stops.
func processFields() []field {
	return []field{
		duration(Key{
			Name: "grace", Env: "OUTRIDER_GRACE", Default: "120s",
			Doc: "time for an orderly stop; a shorter `terminationGracePeriodSeconds` is raised to it",
		},
			func(p *Policy) *time.Duration { return &p.Grace }, 10*time.Second, time.Hour),
		value(Key{
			Name: "run-as", Env: "OUTRIDER_RUN_AS", Unset: "detected", Form: "`UID[:GID]`",
			Doc: "the identity of the PostgreSQL process where the pod does not show it",
		},
			func(p *Policy) *RunAs { return &p.RunAs }, parseRunAs),
		cpu(),
		memory(),
		choice(Key{
			Name: "superseded", Env: "OUTRIDER_SUPERSEDED", Default: string(SupersededReadOnly),
			Doc: "what a writer that was replaced does to its database: make it read-only and end its sessions, or only report",
		},
			func(p *Policy) *Superseded { return &p.Superseded }, SupersededReadOnly, SupersededReport),
		text(Key{
			Name: "take-over", Env: "OUTRIDER_TAKE_OVER", Unset: "none", Form: "the uid of its `kube-system` namespace",
			Doc: "the Kubernetes cluster whose databases may be continued here",
		},
			func(p *Policy) *string { return &p.TakeOver },
			matching(`[0-9A-Za-z-]+`, maxLabel, "the uid of the other cluster's kube-system namespace")),
	}
}

func requestBudget() field {
	const least, most = 1000, 100_000_000
	return field{
		Key: Key{
			Name: "request-budget", Env: "OUTRIDER_REQUEST_BUDGET", Unset: "none", Form: fmt.Sprintf("%d to %d, a day", least, most),
			Doc: "billed requests to OSS in a day; as they run out more WAL goes into each flush, still within the `rpo`",
		},
		set: func(p *Policy, v string) error {
			n, err := strconv.ParseInt(v, 10, 64)
			if err != nil || n < least || n > most {
				return fmt.Errorf("%q is out of range: expected a whole number of requests a day from %d to %d", v, least, most)
			}
			p.RequestBudget = n
			return nil
		},
		get: func(p *Policy) string {
			if p.RequestBudget == 0 {
				return ""
			}
			return strconv.FormatInt(p.RequestBudget, 10)
		},
	}
}

func minBackups() field {
	const most = 1000
	return field{
		Key: Key{
			Name: "min-backups", Env: "OUTRIDER_MIN_BACKUPS", Default: "2", Form: fmt.Sprintf("1 to %d", most),
			Doc: "verified snapshots that are kept whatever their age",
		},
		set: func(p *Policy, v string) error {
			n, err := strconv.ParseUint(v, 10, 16)
			if err != nil || n < 1 || n > most {
				return fmt.Errorf("%q is out of range: expected a whole number from 1 to %d", v, most)
			}
			p.MinBackups = int(n)
			return nil
		},
		get: func(p *Policy) string {
			if p.MinBackups == 0 {
				return ""
			}
			return strconv.Itoa(p.MinBackups)
		},
	}
}

func restoreTarget() field {
	return field{
		Key: Key{
			Name: "restore-target", Env: "OUTRIDER_RESTORE_TARGET", Default: latest,
			Form: "`latest`, a time with zone, an LSN, each with or without `@TIMELINE`",
			Doc:  "the point that an empty disk is restored to",
		},
		set: func(p *Policy, v string) (err error) {
			p.RestoreTarget, err = ParseTarget(v)
			return err
		},
		get: func(p *Policy) string { return p.RestoreTarget.String() },
	}
}

func adopt() field {
	return field{
		Key: Key{
			Name: "adopt", Env: "OUTRIDER_ADOPT", Default: "false", Form: "true, false",
			Doc: "after `pg_upgrade`: open the next root `cluster@2` for the new system identifier",
		},
		set: func(p *Policy, v string) error {
			if v != "true" && v != "false" {
				return fmt.Errorf("%q is none of these: true, false", v)
			}
			p.Adopt = v == "true"
			return nil
		},
		get: func(p *Policy) string { return strconv.FormatBool(p.Adopt) },
	}
}

func cpu() field {
	return field{
		Key: Key{
			Name: "cpu", Env: "OUTRIDER_CPU", Default: "50m:1", Form: "`REQUEST[:LIMIT]`, 10m to 64, such as 100m:500m",
			Doc: "CPU of the sidecar; in a Guaranteed pod the request is raised to the limit",
		},
		set: func(p *Policy, v string) (err error) {
			p.CPU, err = parseResource(v, parseCPU, 10, 64_000)
			return err
		},
		get: func(p *Policy) string { return formatResource(p.CPU, formatCPU) },
	}
}

func memory() field {
	return field{
		Key: Key{
			Name: "memory", Env: "OUTRIDER_MEMORY", Default: "64Mi:384Mi", Form: "`REQUEST[:LIMIT]`, 64Mi to 64Gi",
			Doc: "memory of the sidecar; in a Guaranteed pod the request is raised to the limit",
		},
		set: func(p *Policy, v string) (err error) {
			p.Memory, err = parseResource(v, ParseSize, 64*mebibyte, 64*gibibyte)
			return err
		},
		get: func(p *Policy) string { return formatResource(p.Memory, FormatSize) },
	}
}
