package kubectl

import (
	"fmt"
	"time"

	"outrider.dev/sidecar/policy"
)

// From when on a difference of clocks is worth a word, and from when on OSS refuses what is signed by such a clock.
const (
	clockOff     = time.Minute
	clockRefused = 15 * time.Minute
)

// judgeMachine compares the clock of this machine, by which ages and certificates are judged here, with the cluster's.
func judgeMachine(s *section, c *clock) {
	const about = "clock of this machine"
	ahead := c.ahead.Load()
	switch {
	case ahead == nil:
		s.add(Unknown, about, "could not be told: the API server's answers bear no date", "compare it with another clock; a proxy on the way may take the header Date away")
	case ahead.Abs() > clockOff:
		s.add(Warning, about, "it is "+off(*ahead)+" the API server's: ages and expiry are wrong by that here", "set it by NTP")
	default:
		s.ok(about, "it agrees with the API server's")
	}
}

// off says how a clock differs from another one's.
func off(ahead time.Duration) string {
	if ahead < 0 {
		return ahead.Abs().Round(time.Second).String() + " behind"
	}
	return ahead.Round(time.Second).String() + " ahead of"
}

// judgeSidecar is about what a sidecar knows of what it depends on. One that could not be asked is unknown as a whole.
func judgeSidecar(s *section, about string, d Database, now time.Time) {
	r := d.Sidecar
	if r == nil || r.State == "not_archived" { // a clone has none of it
		return
	}
	judgeBucket(s, about, r)
	judgeClock(s, about, r.Store)
	judgeSlot(s, about, d)
	judgeDrills(s, about, d, now)
}

// ships tells whether a sidecar in this state has reached archive and server, and so has to know both.
func (r *Report) ships() bool {
	return r.State == "protected" || r.State == "lagging" || r.State == "no_snapshot"
}

// silent notes what a sidecar that has to know does not tell.
func silent(s *section, about, what string, r *Report) {
	s.add(Unknown, about, what+" could not be told: its sidecar, version "+or(r.Version)+", does not say", "ask again in a minute; an older sidecar comes up to date when its pod is made anew")
}

// judgeBucket is about versioning: OSS does not refuse to overwrite in a bucket that keeps versions, and then nothing
// fences a second writer.
func judgeBucket(s *section, about string, r *Report) {
	st := r.Store
	switch {
	case st == nil:
		if r.ships() {
			silent(s, about, "whether its bucket keeps versions", r)
		}
	case st.Versioning == "enabled", st.Versioning == "suspended":
		s.add(Failed, about, "versioning of its bucket is "+st.Versioning+": a second writer could not be fenced there",
			"versioning cannot be taken away again: name a bucket that never had it in "+policy.Prefix+"archive")
	case st.ProvenAt == nil:
		s.add(Unknown, about, "whether its bucket keeps versions could not be told: it was not proven yet", "mend what its state says")
	case st.Versioning == "never":
		s.ok(about, "its bucket never had versioning, and lets an object be created only once, as was seen at "+stamp(*st.ProvenAt))
	default:
		s.ok(about, "its bucket lets an object be created only once, as was seen at "+stamp(*st.ProvenAt)+", so it keeps no versions; its credentials may not ask for that (oss:GetBucketVersioning)")
	}
}

// judgeClock is about the clock of a sidecar's machine.
func judgeClock(s *section, about string, st *Store) {
	if st == nil || st.ClockAhead == nil {
		return // no answer of the store yet, which the bucket's line says
	}
	const remedy = "set the clock of its node by NTP"
	switch ahead := time.Duration(*st.ClockAhead * float64(time.Second)); {
	case ahead.Abs() > clockRefused:
		s.add(Failed, about, "the clock of its node is "+off(ahead)+" the store's, which refuses what is signed by it: the sidecar signs with the store's time, and nothing else there does", remedy)
	case ahead.Abs() > clockOff:
		s.add(Warning, about, "the clock of its node is "+off(ahead)+" the store's: from 15 minutes on the store refuses what is signed by it, and times to restore to are wrong by that", remedy)
	default:
		s.ok(about, "the clock of its node agrees with the store's")
	}
}

// Slots are touched once a minute; one that may lie idle for less than some of that is lost by a pause.
const idleEnough = 5 * time.Minute

// judgeSlot is about settings of the server under which the slot loses WAL that is not in the archive yet.
func judgeSlot(s *section, about string, d Database) {
	slot := d.Sidecar.Slot
	if slot == nil {
		if d.Sidecar.ships() {
			silent(s, about, "its replication slot", d.Sidecar)
		}
		return
	}
	before := len(s.findings)
	const reload = "; SELECT pg_reload_conf();"
	p, known := policyOf(d.pod)
	bound := p.MaxWALBacklog.Bytes
	idle := time.Duration(slot.IdleTimeout * float64(time.Second))
	switch slot.Status {
	case "lost", "unreserved":
		s.add(Failed, about, "the wal_status of its replication slot is "+slot.Status+": WAL goes before it was shipped",
			"see to the archive, and to max_slot_wal_keep_size; what is missing is mended by a new snapshot: kubectl outrider backup "+d.Pod)
	}
	if slot.WALLevel == "minimal" {
		s.add(Failed, about, "wal_level is minimal, which leaves out what a restore needs", "ALTER SYSTEM SET wal_level = replica; and restart PostgreSQL")
	}
	if slot.MaxKeep >= 0 && (!known || bound <= 0 || bound > slot.MaxKeep) {
		s.add(Warning, about, "max_slot_wal_keep_size is "+policy.FormatSize(slot.MaxKeep)+": when the archive is away for longer than that lasts, WAL goes before it was shipped",
			"ALTER SYSTEM SET max_slot_wal_keep_size = -1"+reload+" where the disk has a bound, "+policy.Prefix+"max-wal-backlog knows what to do there")
	}
	if idle > 0 && idle < idleEnough {
		s.add(Warning, about, "idle_replication_slot_timeout is "+span(idle)+", and the sidecar uses its slot once a minute: a pause loses it", "ALTER SYSTEM SET idle_replication_slot_timeout = 0"+reload)
	}
	if len(s.findings) == before {
		s.ok(about, fmt.Sprintf("its replication slot is %s, with wal_level %s and max_replication_slots %d", or(slot.Status), slot.WALLevel, slot.MaxSlots))
	}
}

func judgeDrills(s *section, about string, d Database, now time.Time) {
	drills := d.Sidecar.Drills
	text := drills.trouble(now)
	switch {
	case drills.failed():
		s.add(Failed, about, text, "what is in the archive may not come back as it was: kubectl outrider backup --full "+d.Pod+" takes a snapshot that depends on no other, and outrider verify finds what is damaged; then hold a drill again")
	case text != "":
		s.add(Warning, about, text, "see how its CronJob and its last pod went: kubectl -n "+d.Namespace+" get cronjobs,jobs,pods")
	case drills != nil && drills.Passed != nil:
		s.ok(about, "a restore drill was passed at "+stamp(drills.Passed.VerifiedAt)+", up to "+or(drills.Passed.LSN))
	case drills != nil:
		s.ok(about, "a restore drill is due by "+stamp(drills.Due))
	}
}
