package cluster_test

import (
	"os"
	"testing"

	"outrider.dev/e2e/cluster"
)

func TestMain(m *testing.M) { os.Exit(cluster.Isolated(nil, m.Run)) }
