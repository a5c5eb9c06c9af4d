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

// Journal reads the entries of epoch n in the order in which they happened.
func (a *Archive) Journal(ctx context.Context, n uint64) ([]Entry, error) {
	var keys []string
	for o, err := range a.bucket.List(ctx, journalDir+number(n)+"/", "") {
		if err != nil {
			return nil, fmt.Errorf("listing the journal of epoch %d: %w", n, err)
		}
		if strings.HasSuffix(o.Key, ".json") {
			keys = append(keys, o.Key)
		}
	}
	return readEach(ctx, keys, func(ctx context.Context, key string) (e Entry, err error) {
		_, err = a.readJSON(ctx, key, &e)
		return e, err
	})
}
