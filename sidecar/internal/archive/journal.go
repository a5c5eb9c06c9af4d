package archive

import (
	"context"
	"fmt"
	"strings"
)

// journalTime sorts as text and holds no run of digits that looks like a segment's name.
const journalTime = "20060102t150405.000000z"

// Record writes one entry of the flight recorder.
func (a *Archive) Record(ctx context.Context, e Entry) error {
	e.Time = utc(e.Time)
	key := fmt.Sprintf("%s%s/%s-%s.json", journalDir, number(e.Epoch), e.Time.Format(journalTime), e.Event)
	return a.createJSON(ctx, key, e)
}

// Noted is what the key of a journal's entry tells of it. A journal of months has thousands of entries, each an object of
// its own: who wants few of them chooses by this.
type Noted struct {
	Event string // "" if the key does not say it
	key   string
}

// JournalIndex lists the entries of epoch n in the order in which they happened, and reads none.
func (a *Archive) JournalIndex(ctx context.Context, n uint64) ([]Noted, error) {
	var list []Noted
	dir := journalDir + number(n) + "/"
	for o, err := range a.bucket.List(ctx, dir, "") {
		if err != nil {
			return nil, fmt.Errorf("listing the journal of epoch %d: %w", n, err)
		}
		name, ok := strings.CutSuffix(strings.TrimPrefix(o.Key, dir), ".json")
		if !ok {
			continue
		}
		// The time has no dash in it, an event neither.
		_, event, _ := strings.Cut(name, "-")
		list = append(list, Noted{Event: event, key: o.Key})
	}
	return list, nil
}

// Journal reads all entries of epoch n in the order in which they happened.
func (a *Archive) Journal(ctx context.Context, n uint64) ([]Entry, error) {
	list, err := a.JournalIndex(ctx, n)
	if err != nil {
		return nil, err
	}
	return a.JournalEntries(ctx, list)
}

// JournalEntries reads the entries of a list, and returns them in its order.
func (a *Archive) JournalEntries(ctx context.Context, list []Noted) ([]Entry, error) {
	return readEach(ctx, list, func(ctx context.Context, n Noted) (e Entry, err error) {
		_, err = a.readJSON(ctx, n.key, &e)
		return e, err
	})
}
