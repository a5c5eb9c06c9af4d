package inject

import (
	"time"

	corev1 "k8s.io/api/core/v1"

	"outrider.dev/sidecar/policy"
)

// completePolicy fills in what was found out, so that the sidecar need not find it again.
func (w *work) completePolicy() error {
	p := &w.policy
	p.Cluster, p.Container, p.PGData = w.cluster, w.pg().Name, w.data.dir
	if p.Archive != "" {
		root := p.Root(w.in.Namespace, w.cluster)
		checked, err := policy.ParseRoot(root)
		if err != nil {
			return refuse(BadPolicy, "the root of this database in the archive: %w", err)
		}
		p.Archive = checked
	}
	if w.user.uid > 0 {
		// Where the restore runs as root, it is who shall own what it writes.
		p.RunAs = policy.RunAs{UID: w.user.uid, GID: w.user.gid}
	}
	// The sidecar divides the time that there is, which may be more than was asked for. The policy ends at an hour.
	p.Grace = min(time.Duration(w.graceSeconds())*time.Second, time.Hour)
	w.boundBacklog()
	for _, key := range []string{"cluster", "container", "pgdata", "run-as"} {
		if w.sources[key] == "" && (key != "run-as" || w.user.uid > 0) {
			w.sources[key] = Detected
		}
	}
	return nil
}

// Detected is the source of a value of the policy that was found in the pod.
const Detected = "detected"

// Bounds for the WAL that PostgreSQL may keep on a node's disk while the archive does not take it.
const (
	backlogShare   = 4 // a quarter of what the pod may have there
	backlogLeast   = 64 << 20
	backlogNoLimit = 8 << 30 // where nothing bounds the pod
)

// boundBacklog decides what the kind of volume decides. On an emptyDir a backlog without bound fills the node's disk,
// and the kubelet then evicts this pod and others: a gap in the archive is better, and is said.
func (w *work) boundBacklog() {
	b := &w.policy.MaxWALBacklog
	if b.Bytes == policy.Unlimited {
		return
	}
	v := w.walVolume()
	if v == nil || v.EmptyDir == nil {
		if b.Bytes > 0 && b.Then == "" {
			b.Then = policy.BacklogKeep
		}
		return
	}
	if b.Then == "" {
		b.Then = policy.BacklogDrop
	}
	if b.Bytes > 0 {
		return
	}
	w.sources["max-wal-backlog"] = Detected
	b.Bytes = backlogNoLimit
	if size := w.room(v); size > 0 {
		b.Bytes = max(size/backlogShare, backlogLeast)
	}
}

// walVolume is the volume that pg_wal is on.
func (w *work) walVolume() *corev1.Volume {
	dir := w.data.wal
	if dir == "" {
		dir = w.data.dir + "/pg_wal"
	}
	m := covering(w.pg().VolumeMounts, dir)
	if m == nil {
		return nil
	}
	return volumeNamed(w.pod, m.Name)
}

// room is how many bytes an emptyDir may hold, as far as the pod says so; 0 if it does not.
func (w *work) room(v *corev1.Volume) int64 {
	if v.EmptyDir.SizeLimit != nil {
		return v.EmptyDir.SizeLimit.Value()
	}
	pg := w.pg().Resources
	if inMemory(*v) {
		return pg.Limits.Memory().Value()
	}
	if q, ok := pg.Limits[corev1.ResourceEphemeralStorage]; ok {
		return q.Value()
	}
	if q, ok := pg.Requests[corev1.ResourceEphemeralStorage]; ok {
		return q.Value()
	}
	return 0
}
