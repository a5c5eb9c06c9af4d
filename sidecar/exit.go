package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/drain"
	"outrider.dev/sidecar/internal/epoch"
	"outrider.dev/sidecar/internal/oss"
	"outrider.dev/sidecar/internal/restore"
	"outrider.dev/sidecar/internal/retention"
	"outrider.dev/sidecar/internal/ship"
	"outrider.dev/sidecar/policy"
)

// exitCode is what the program ends with. The numbers are stable.
type exitCode int

const (
	exitOK          exitCode = 0
	exitOther       exitCode = 1
	exitUsage       exitCode = 2
	exitUnknown     exitCode = 3
	exitDenied      exitCode = 4
	exitNothing     exitCode = 5
	exitDamaged     exitCode = 6
	exitRefused     exitCode = 7
	exitSuperseded  exitCode = 8
	exitNotAllSaved exitCode = 9
	exitDrill       exitCode = 10
)

// exitMeaning documents a code.
type exitMeaning struct {
	Code    exitCode
	Meaning string
}

// exitMeanings is the table of all codes, as README and `outrider help exit-codes` show it.
func exitMeanings() []exitMeaning {
	return []exitMeaning{
		{exitOK, "done"},
		{exitOther, "anything else, such as an interruption or an error of this machine"},
		{exitUsage, "the command, its flags, the environment or the target ask for what cannot be done as asked"},
		{exitUnknown, "the archive could not be asked: the store is unreachable, or its answers make no sense"},
		{exitDenied, "the store refuses: credentials, permissions, no such bucket, a bucket that keeps versions"},
		{exitNothing, "what was asked for is proven not to be there, such as an archive or a snapshot"},
		{exitDamaged, "the archive is damaged or incomplete"},
		{exitRefused, "refused to protect data: a directory that is not empty, a disk that is older than its archive or foreign to it, other content under the same name"},
		{exitSuperseded, "another writer has taken over"},
		{exitNotAllSaved, "not everything that was committed could be shipped"},
		{exitDrill, "a restore drill was held and not passed: the archive, or what is restored from it, is not good"},
	}
}

func exitTable() string {
	var b strings.Builder
	b.WriteString("| code | meaning |\n|---|---|\n")
	for _, m := range exitMeanings() {
		fmt.Fprintf(&b, "| %d | %s |\n", m.Code, m.Meaning)
	}
	return b.String()
}

// exitHelp is the text of `outrider help exit-codes`.
func exitHelp() string {
	var b strings.Builder
	b.WriteString("Outrider ends with:\n\n")
	for _, m := range exitMeanings() {
		fmt.Fprintf(&b, "  %d  %s\n", m.Code, m.Meaning)
	}
	return b.String()
}

// Errors that carry nothing but what they mean for the exit code.
var (
	errUsage       = errors.New("usage")
	errStore       = errors.New("the archive could not be asked") // see tellingBucket
	errNothing     = errors.New("nothing there")
	errProblems    = errors.New("the archive is damaged or incomplete")
	errInterrupted = errors.New("interrupted")
	// errSupersededStatus is what another process says of itself, as opposed to what happened to this one.
	errSupersededStatus = errors.New("superseded")
)

// coded gives an error one of the meanings above without changing its text.
type coded struct {
	error
	meaning error
}

func (c coded) Unwrap() []error { return []error{c.error, c.meaning} }

// usagef is an error in what was asked for. Its text says what to do.
func usagef(format string, args ...any) error {
	return coded{fmt.Errorf(format, args...), errUsage}
}

// exitOf finds the code of an error. The order matters: what endangers data comes before why it happened, and a
// missing part of a snapshot, which is "not there" too, is damage.
func exitOf(err error) exitCode {
	var badPolicy *policy.Error
	var local *fs.PathError
	table := []struct {
		code exitCode
		is   []error
	}{
		{exitSuperseded, []error{epoch.ErrSuperseded, ship.ErrNotOwner, errSupersededStatus}},
		{exitNotAllSaved, []error{drain.ErrNotAll}},
		{exitDrill, []error{errDrill}},
		{exitRefused, []error{restore.ErrNotEmpty, errRefused, ship.ErrStale, epoch.ErrForeign, archive.ErrConflict, retention.ErrBusy}},
		{exitDamaged, []error{archive.ErrCorrupt, errProblems, restore.ErrHole, restore.ErrNoSnapshot}},
		{exitUsage, []error{errUsage, restore.ErrTargetTooEarly, restore.ErrAmbiguous, restore.ErrNoTimeline}},
		{exitDenied, []error{oss.ErrConfiguration}},
		{exitNothing, []error{errNothing, restore.ErrNothing, archive.ErrNoBranch}},
	}
	if err == nil {
		return exitOK
	}
	for _, row := range table {
		for _, e := range row.is {
			if errors.Is(err, e) {
				return row.code
			}
		}
	}
	switch {
	case errors.As(err, &badPolicy):
		return exitUsage
	case errors.As(err, &local):
		// A file of this machine, not an object: what was asked for cannot be done with it.
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
			return exitUsage
		}
		return exitOther
	case errors.Is(err, fs.ErrPermission):
		return exitDenied
	case errors.Is(err, errStore):
		return exitUnknown
	case errors.Is(err, fs.ErrNotExist):
		return exitNothing
	}
	return exitOther
}

// sayError writes an error for people, a line for each of several.
func (a *app) sayError(ctx context.Context, err error) {
	if cause := context.Cause(ctx); errors.Is(err, context.Canceled) && errors.Is(cause, errInterrupted) {
		err = cause
	}
	for line := range strings.SplitSeq(err.Error(), "\n") {
		if line != "" {
			fmt.Fprintf(a.stderr, "outrider: %s\n", line)
		}
	}
}
