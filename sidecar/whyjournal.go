package main

import (
	"context"
	"slices"

	"outrider.dev/sidecar/internal/archive"
)

// How much of journals is read for a time line, at most.
const (
	mostOfStop = 100 // entries of the epoch that ended, the last ones
	mostEpochs = 10  // epochs after it; each restore that is given up is one
)

// readJournals reads the last entries of the epoch, and makes the time line of those that tell of its stop and of what
// came after it. Which entries these are their keys say, so a journal of months is listed and not read.
func (e *ending) readJournals(ctx context.Context, w *archive.WAL, later []archive.Epoch, entries int) error {
	index, err := w.JournalIndex(ctx, e.Epoch)
	if err != nil {
		return err
	}
	e.Older = max(0, len(index)-entries)
	recent, err := w.JournalEntries(ctx, index[e.Older:])
	if err != nil {
		return err
	}
	e.Journal = append(e.Journal, recent...)
	stop := only(index, stopEvents())
	stop = stop[max(0, len(stop)-mostOfStop):]
	told, err := w.JournalEntries(ctx, stop)
	if err != nil {
		return err
	}
	if err := e.readAfter(ctx, w, later); err != nil {
		return err
	}
	e.timeLine(lastStop(told))
	return nil
}

// readAfter reads how the database came up again.
func (e *ending) readAfter(ctx context.Context, w *archive.WAL, later []archive.Epoch) error {
	for _, next := range later[:min(len(later), mostEpochs)] {
		index, err := w.JournalIndex(ctx, next.Number)
		if err != nil {
			return err
		}
		index = firsts(only(index, afterEvents()))
		entries, err := w.JournalEntries(ctx, index)
		if err != nil {
			return err
		}
		e.later, e.After = append(e.later, next), append(e.After, entries...)
		if slices.ContainsFunc(index, func(n archive.Noted) bool { return n.Event == eventShipping }) {
			return nil
		}
	}
	return nil
}

// only are the entries of these events.
func only(index []archive.Noted, events []string) []archive.Noted {
	return slices.DeleteFunc(slices.Clone(index), func(n archive.Noted) bool { return !slices.Contains(events, n.Event) })
}

// firsts are the first entry of each event: how a writer began.
func firsts(index []archive.Noted) (first []archive.Noted) {
	for _, n := range index {
		if !slices.ContainsFunc(first, func(m archive.Noted) bool { return m.Event == n.Event }) {
			first = append(first, n)
		}
	}
	return first
}
