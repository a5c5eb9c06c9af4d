package basebackup

import "testing"

func TestExclusionIsByPlace(t *testing.T) {
	for name, want := range map[string]verdict{
		"PG_VERSION": keep, "postgresql.conf": keep, "log": keep, "log/postgresql.log": keep,
		"pg_wal": empty, "pg_replslot": empty, "pg_notify": empty, "pg_stat_tmp": empty, "pg_subtrans": empty,
		"pg_dynshmem": empty, "pg_serial": empty, "pg_snapshots": empty,
		"pg_xact": keep, "pg_multixact/offsets/0000": keep, "pg_logical/replorigin_checkpoint": keep, "pg_stat": keep,
		"postmaster.pid": skip, "postmaster.opts": skip, "recovery.signal": skip, "standby.signal": skip,
		"backup_label": skip, "backup_label.old": skip, "tablespace_map": skip, "tablespace_map.old": skip,
		"backup_manifest": skip, "current_logfiles.tmp": skip, "current_logfiles": keep,
		"postgresql.auto.conf": keep, "postgresql.auto.conf.tmp": skip, "outrider": skip, "lost+found": skip,
		"global/pg_internal.init": skip, "global/pg_internal.init.123": skip, "global/pg_filenode.map": keep,
		"base/5/pg_internal.init": skip, "base/5/pg_internal.init.77": skip, "base/pgsql_tmp": skip,
		"pg_tblspc/16384/PG_15_202209061/pgsql_tmp":          skip,
		"pg_tblspc/16384/PG_15_202209061/5/pg_internal.init": skip,
		"pg_tblspc/16384/PG_15_202209061/5/16385":            keep,
		// The same names elsewhere are somebody's files.
		"conf.d/postmaster.pid": keep, "conf.d/pg_wal": keep, "conf.d/pg_internal.init": keep, "conf.d/backup_label": keep,
		"base/5/pg_wal": keep, "base/5/outrider": keep, "base/5/pgsql_tmp": keep, "conf.d/x.signal": keep, "pgsql_tmp": keep,
	} {
		if got := judge(name); got != want {
			t.Errorf("%s: %d, want %d", name, got, want)
		}
	}
}

func TestRelationFiles(t *testing.T) {
	r := newRelationNames().in([]string{"100", "100_init", "100.1", "200", "300_init", "PG_VERSION"})
	for name, want := range map[string]bool{
		"100": true, "100.1": true, "100_fsm": true, "100_vm": true, "100_init": false, "300_init": false,
		"200": false, "200_vm": false, "1000": false,
		"t3_100": true, "t3_100_fsm": true, "t3_100.2": true, "t12_5_init": true, "t_100": false, "table": false, "t3_x": false,
		"PG_VERSION": false, "pg_filenode.map": false, "100_other": false, "100.": false,
	} {
		if got := r.skips(name); got != want {
			t.Errorf("%s is left out: %v, want %v", name, got, want)
		}
	}
	for name, want := range map[string]int32{
		"200": 0, "200.7": 7, "200_vm": 0, "200_fsm.1": 1, "100_init": 0,
		"PG_VERSION": noRelation, "pg_filenode.map": noRelation, "pg_control": noRelation, "200.x": noRelation,
	} {
		if got := r.segment(name); got != want {
			t.Errorf("%s is segment %d, want %d", name, got, want)
		}
	}
}
