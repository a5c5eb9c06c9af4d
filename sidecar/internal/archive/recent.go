package archive

import (
	"context"
	"fmt"
	"strings"
)

// RecentJournal reads the last entries of epoch n, at most `most` of them, in the order in which they happened, and
// tells how many older ones there are. A journal of months has thousands of entries, each an object of its own.
func (a *Archive) RecentJournal(ctx context.Context, n uint64, most int) (entries []Entry, older int, err error) {
	var keys []string
	for o, err := range a.bucket.List(ctx, journalDir+number(n)+"/", "") {
		if err != nil {
			return nil, 0, fmt.Errorf("listing the journal of epoch %d: %w", n, err)
		}
		if strings.HasSuffix(o.Key, ".json") {
			keys = append(keys, o.Key)
		}
	}
	older = max(0, len(keys)-most)
	for _, key := range keys[older:] {
		var e Entry
		if _, err := a.readJSON(ctx, key, &e); err != nil {
			return nil, older, err
		}
		entries = append(entries, e)
	}
	return entries, older, nil
}
