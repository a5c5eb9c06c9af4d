package restore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"outrider.dev/sidecar/internal/wal"
)

// jobsSetting keeps TimescaleDB's background jobs from running when it is 0: its retention policies would otherwise
// take away again, right after promotion, what a restore to a past point was made for. On servers without TimescaleDB
// it is an unknown setting with a prefix, which PostgreSQL keeps and ignores.
const jobsSetting = "timescaledb.max_background_workers"

// keepSetting makes the server keep its WAL from its promotion on. A replication slot can only be made once it accepts
// connections, and reserves no more than what follows the last checkpoint: a database that is written to at once would
// otherwise recycle what nobody has shipped yet. The value is one that nobody chooses, to be known again.
const (
	keepSetting = "wal_keep_size"
	keepValue   = "1031MB"
)

type setting struct{ name, value string }

// targetSettings are the names of the five targets.
func targetSettings() []string {
	return []string{"recovery_target", "recovery_target_lsn", "recovery_target_name", "recovery_target_time", "recovery_target_xid"}
}

// settings are those for the time of recovery. All targets are written, the unused ones empty: those of an earlier
// restore travel in the snapshot's postgresql.auto.conf, and two are an error.
func settings(p Plan, command string) []setting {
	all := []setting{
		// Clients must not read rows of the past as if they were the present ones; and a server with hot standby
		// refuses to start if max_connections and the like are lower than they were.
		{"hot_standby", "off"},
		{"recovery_min_apply_delay", "0"},
		{"recovery_target_action", "promote"}, // the default is to wait for ever
		{"recovery_target_inclusive", "on"},
		{"recovery_target_timeline", strconv.FormatUint(uint64(p.Timeline), 10)},
		{"restore_command", command},
	}
	target := setting{}
	switch {
	case p.StopLSN != 0:
		target = setting{"recovery_target_lsn", p.StopLSN.String()}
		all[3].value = "off" // inclusive would replay the record that begins at the target, too
	case !p.StopTime.IsZero():
		target = setting{"recovery_target_time", p.StopTime.UTC().Format("2006-01-02 15:04:05.999999+00")}
	}
	// An empty target that follows one with a value is taken for a second target.
	for _, name := range targetSettings() {
		if name != target.name {
			all = append(all, setting{name, ""})
		}
	}
	if target.name != "" {
		all = append(all, target)
	}
	if p.JobsOff && mayHaveJobs(p.Snapshot.Versions) {
		all = append(all, setting{jobsSetting, "0"})
	}
	return all
}

// mayHaveJobs tells whether the server may have TimescaleDB; without a record it may.
func mayHaveJobs(v Versions) bool {
	if v.Catalog == 0 || strings.Contains(v.Preload, "timescaledb") {
		return true
	}
	for name := range v.Extensions {
		if strings.HasSuffix(name, "/timescaledb") {
			return true
		}
	}
	return false
}

// RecoverySettings are the names of the settings that a restore leaves in postgresql.auto.conf for the time of recovery
// alone: they are to be reset after promotion.
func RecoverySettings() []string {
	var names []string
	for _, s := range settings(Plan{}, "") {
		names = append(names, s.name)
	}
	return names
}

// LeftSettings are the names of those settings that a restore has left, of all that postgresql.auto.conf holds.
func LeftSettings(all map[string]string) []string {
	var names []string
	for _, name := range RecoverySettings() {
		if _, there := all[name]; there {
			names = append(names, name)
		}
	}
	if all[keepSetting] == keepValue {
		names = append(names, keepSetting)
	}
	return names
}

// JobsSetting is the setting that a restore to a past point and a clone have left in postgresql.auto.conf to keep
// TimescaleDB's background jobs off. It stays until a person takes it out.
const JobsSetting = jobsSetting

// appendSettings adds the settings at the end of postgresql.auto.conf, where they win over all other files.
func appendSettings(dir string, all []setting) error {
	path := filepath.Join(dir, "postgresql.auto.conf")
	content, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("reading the settings: %w", err)
	}
	mode := fs.FileMode(0o600)
	if fi, err := os.Stat(path); err == nil {
		mode = fi.Mode().Perm()
	}
	var b bytes.Buffer
	b.Write(content)
	if len(content) > 0 && content[len(content)-1] != '\n' {
		b.WriteByte('\n')
	}
	if !keptBefore.Match(content) { // the user's own would be reset with ours
		all = append(all, setting{keepSetting, keepValue})
	}
	for _, s := range all {
		fmt.Fprintf(&b, "%s = %s\n", s.name, quoteSetting(s.value))
	}
	if err := replaceFile(path, b.Bytes(), mode); err != nil {
		return fmt.Errorf("writing the settings: %w", err)
	}
	return nil
}

var keptBefore = regexp.MustCompile(`(?im)^[ \t]*` + keepSetting + `\b`)

// quoteSetting writes a value as guc-file.l reads it.
func quoteSetting(s string) string {
	s = strings.ReplaceAll(s, `\`, `\\`)
	return "'" + strings.ReplaceAll(s, "'", "''") + "'"
}

func (r *restorer) configure() error {
	command, err := restoreCommand(r.marker.SpoolDir)
	if err != nil {
		return err
	}
	if err := appendSettings(r.opt.Dir, settings(r.plan, command)); err != nil {
		return err
	}
	return r.owner.givePath(filepath.Join(r.opt.Dir, "postgresql.auto.conf"))
}

// restoreFrom is where WAL must begin for a recovery in dir: at the start of the snapshot until the server has taken
// note of the label, afterwards where pg_control says.
func restoreFrom(dir string, p Plan) (wal.LSN, error) {
	label, err := exists(filepath.Join(dir, labelFile))
	if err != nil {
		return 0, err
	}
	if label {
		return p.Legs[0].From, nil
	}
	c, err := wal.ReadControl(dir)
	if err != nil {
		return 0, err
	}
	return c.SegmentSize.Floor(c.Redo), nil
}

// spool makes the directory from which the server will fetch WAL.
func (r *restorer) spool(ctx context.Context) error {
	inv := r.plan.inv
	if inv == nil {
		var err error
		if inv, err = r.src.WAL(r.plan.SegmentSize).Inventory(ctx); err != nil {
			return err
		}
	}
	hist, err := histories(inv, r.plan.Timeline)
	if err != nil {
		return err
	}
	s := spool{dir: r.opt.SpoolDir, id: r.plan.ID}
	if err := s.prepare(hist, r.opt.Patience); err != nil {
		return err
	}
	return r.owner.giveTree(s.dir)
}
