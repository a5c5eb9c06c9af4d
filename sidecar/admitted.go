package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"time"

	"outrider.dev/sidecar/internal/restore"
	"outrider.dev/sidecar/internal/wal"
)

// A pod whose sandbox is made anew, as after a reboot of its node, runs its init containers again. Its disk was judged
// when the pod came up, and it is the same one. So when the archive cannot be asked then, that judgement holds: an
// outage of the store must not keep a database from starting on a disk that was its own all the time. It is kept in the
// spool, a volume that lives exactly as long as the pod.
const admittedFile = "ADMITTED"

// trustAfter is how long the archive is asked all the same. Somebody else may have taken over since.
const trustAfter = 30 * time.Second

// admitted says that a pod's disk was judged, and that its server was allowed to start.
type admitted struct {
	Pod              string `json:"pod"` // its uid
	SystemIdentifier uint64 `json:"system_identifier"`
}

// judgement remembers what was decided for this pod.
type judgement struct {
	app   *app
	dir   string
	spool string
	pod   string
	since time.Time // of the first answer that could not be had
}

func (a *app) newJudgement() *judgement {
	j := &judgement{app: a, dir: a.setting(envPGData), spool: a.setting(envSpool)}
	j.pod, _ = a.env("OUTRIDER_POD_UID")
	return j
}

// settle turns the outcome of a decision into what is to happen: a decision is remembered, and one that could not be
// made is replaced by the one that was made for the same pod and the same database.
func (j *judgement) settle(err error) error {
	if j.pod == "" || j.spool == "" || j.dir == "" {
		return err
	}
	if err == nil {
		j.remember()
		return nil
	}
	if !healing(err) {
		return err
	}
	if j.since.IsZero() {
		j.since = time.Now()
	}
	if time.Since(j.since) < trustAfter || !j.known() {
		return err
	}
	j.app.log.Warn("the archive cannot be asked, but this pod's disk was judged before and is the same: the server may start on it, and what it writes is archived when the archive is back",
		"error", err, "pgdata", j.dir)
	return nil
}

// remember notes the judgement. A spool that cannot be written to costs only the memory.
func (j *judgement) remember() {
	m := admitted{Pod: j.pod}
	if c, err := wal.ReadControl(j.dir); err == nil {
		m.SystemIdentifier = c.SystemIdentifier
	}
	b, err := json.Marshal(m)
	if err == nil {
		path := filepath.Join(j.spool, admittedFile)
		if err = os.WriteFile(path+".tmp", b, 0o644); err == nil {
			err = os.Rename(path+".tmp", path)
		}
	}
	if err != nil {
		j.app.log.Warn("that this pod's disk was judged cannot be noted: if the pod's containers are made anew while the archive is away, they wait for it", "error", err)
	}
}

// known tells whether the disk holds the database that this very pod was let through with. One that initdb had yet to
// make was not known by then, but no other pod's disk is in this pod.
func (j *judgement) known() bool {
	b, err := os.ReadFile(filepath.Join(j.spool, admittedFile))
	if err != nil {
		return false
	}
	var m admitted
	if json.Unmarshal(b, &m) != nil || m.Pod != j.pod {
		return false
	}
	state, err := restore.Inspect(j.dir)
	if err != nil || state != restore.Data {
		return false
	}
	c, err := wal.ReadControl(j.dir)
	return err == nil && (m.SystemIdentifier == 0 || m.SystemIdentifier == c.SystemIdentifier)
}
