package restore

import (
	"fmt"

	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/wal"
)

// histories are the .history files that recovery on timeline t finds, by name: those of its own ancestry, which it
// needs, and those of all other timelines that the archive knows, which keep PostgreSQL from taking their numbers for
// the one that it promotes to.
//
// Where a file is missing, for a timeline that was claimed and not shipped, it is made up from the claim. PostgreSQL
// reads only those of its own ancestry.
func histories(inv *archive.Inventory, t wal.Timeline) (map[string][]byte, error) {
	own, err := inv.Branch(t)
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{}
	for _, k := range inv.Timelines() {
		if k <= 1 {
			continue // the first timeline has no history, and no server ever takes its number
		}
		files[wal.HistoryName(k)] = historyOf(inv, k)
	}
	for _, g := range own.Legs {
		if g.Timeline > 1 {
			files[wal.HistoryName(g.Timeline)] = historyOf(inv, g.Timeline)
		}
	}
	return files, nil
}

func historyOf(inv *archive.Inventory, t wal.Timeline) []byte {
	if raw, ok := inv.RawHistories[t]; ok {
		return raw
	}
	b, err := inv.Branch(t)
	if err != nil || len(b.Legs) < 2 {
		return fmt.Appendf(nil, "# timeline %d is taken\n", t)
	}
	var h wal.History
	for _, g := range b.Legs[:len(b.Legs)-1] {
		h = append(h, wal.Switch{Parent: g.Timeline, LSN: g.To, Reason: "as claimed in the archive"})
	}
	return []byte(h.Format())
}
