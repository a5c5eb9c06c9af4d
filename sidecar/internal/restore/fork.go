package restore

import "outrider.dev/sidecar/internal/archive"

func forkHistories(dir string, inv *archive.Inventory, p Plan, fork bool) (map[string][]byte, error) {
	return histories(inv, p.Timeline)
}
