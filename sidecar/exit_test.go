package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"
	"testing"

	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/drain"
	"outrider.dev/sidecar/internal/epoch"
	"outrider.dev/sidecar/internal/oss"
	"outrider.dev/sidecar/internal/restore"
	"outrider.dev/sidecar/internal/ship"
	"outrider.dev/sidecar/policy"
)

func TestExitCodes(t *testing.T) {
	refused := &fs.PathError{Op: "open", Path: "/data/PG_VERSION", Err: syscall.EACCES}
	cases := []struct {
		err  error
		want exitCode
	}{
		{nil, exitOK},
		{errors.New("anything"), exitOther},
		{context.Canceled, exitOther},
		{&fs.PathError{Op: "write", Path: "/data/x", Err: syscall.ENOSPC}, exitOther},
		{usagef("a flag"), exitUsage},
		{&policy.Error{Key: "rpo"}, exitUsage},
		{restore.ErrTargetTooEarly, exitUsage},
		{refused, exitUsage},
		{coded{errors.New("no route to host"), errStore}, exitUnknown},
		{coded{context.DeadlineExceeded, errStore}, exitUnknown},
		{fs.ErrPermission, exitDenied},
		{oss.ErrConfiguration, exitDenied},
		{fs.ErrNotExist, exitNothing},
		{restore.ErrNothing, exitNothing},
		{archive.ErrCorrupt, exitDamaged},
		{fmt.Errorf("part_003: %w: %w", archive.ErrCorrupt, fs.ErrNotExist), exitDamaged},
		{restore.ErrHole, exitDamaged},
		{archive.ErrConflict, exitRefused},
		{restore.ErrNotEmpty, exitRefused},
		{ship.ErrStale, exitRefused},
		{epoch.ErrForeign, exitRefused},
		{epoch.ErrSuperseded, exitSuperseded},
		{errors.Join(archive.ErrConflict, ship.ErrNotOwner), exitSuperseded},
		{drain.ErrNotAll, exitNotAllSaved},
		{errors.Join(drain.ErrNotAll, coded{errors.New("no route to host"), errStore}), exitNotAllSaved},
	}
	for _, c := range cases {
		err := c.err
		if err != nil {
			err = fmt.Errorf("doing something: %w", err)
		}
		if got := exitOf(err); got != c.want {
			t.Errorf("%v: exit code %d, want %d", c.err, got, c.want)
		}
	}
}

func TestEveryExitCodeHasAMeaning(t *testing.T) {
	for i, m := range exitMeanings() {
		if int(m.Code) != i || m.Meaning == "" || !strings.Contains(exitTable(), m.Meaning) {
			t.Errorf("code %d is number %d in the table: %q", m.Code, i, m.Meaning)
		}
	}
}
