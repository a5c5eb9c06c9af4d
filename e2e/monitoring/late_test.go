package monitoring_test

import (
	"context"
	"path/filepath"
	"syscall"

	"outrider.dev/e2e/stage"
)

// late is a database of its own whose server comes up late, is a standby for a while, and has no snapshot for long. Then
// its restore drills fail. Its sidecar goes on until the end.
func (s *scene) late() {
	s.t.Helper()
	p, err := s.stage.NewServer("late")
	must(s.t, err)
	must(s.t, p.Init(s.deadline(), "shared_buffers = 16MB"))
	must(s.t, s.cloud.Faults(s.deadline(), `{"op": "put", "prefix": "stage/late/basebackups_005/", "kind": "status", "status": 403}`))
	root := stage.Root("late")
	o := s.protectAs(root, p, "late-0", "--drill-max-age", "1h", "--storage-class", "IA")
	s.Fires("OutriderNotShipping", `severity="critical"`, `pod="late-0"`)

	_, err = stage.Run(s.deadline(), s.stage.Command("touch", filepath.Join(p.Data, "standby.signal")))
	must(s.t, err)
	must(s.t, p.Start())
	must(s.t, p.Accepting(s.deadline()))
	s.Fires("OutriderNotShipping", `severity="warning"`, `pod="late-0"`)
	must(s.t, p.Exec(s.deadline(), "select pg_promote()"))
	must(s.t, p.Ready(s.deadline()))
	s.Resolves("OutriderNotShipping")

	s.Fires("OutriderNotProtected", `severity="warning"`, `pod="late-0"`)
	must(s.t, s.cloud.Faults(s.deadline()))
	must(s.t, o.Protected(s.deadline()))
	s.Resolves("OutriderNotProtected")
	// In IA it is ten times the price: 30/1e4*0.01 would be that of Standard alone.
	s.Until("requests on objects in IA to have their price", func(context.Context) bool {
		return s.number(`sum(outrider:cost_requests:month{pod="late-0",type="put"}) / sum(outrider:requests:day{pod="late-0",type="put"})`) > 3.01e-5
	})
	s.drills(root, p)
}

// drills: one fails, the next is passed. The sidecar looks four times an hour, and when it begins to ship.
func (s *scene) drills(root string, p *stage.Server) {
	s.t.Helper()
	drill := func(query string, code int) {
		s.t.Helper()
		out, err := s.stage.Do(s.deadline(), s.cloud, root, "drill", "--dir", s.stage.Dir, "--bindir", s.stage.BinDir(), "--query", query)
		if got := stage.ExitCode(err); got != code {
			s.t.Fatalf("the drill ended with exit code %d: %v\n%s", got, err, out)
		}
		must(s.t, p.Stop(s.deadline(), syscall.SIGINT))
		must(s.t, p.Start())
		must(s.t, p.Ready(s.deadline()))
	}
	drill("select false", 10)
	s.Fires("OutriderDrillFailed")
	s.Fires("OutriderDrillOverdue")
	drill("select true", 0)
	s.Resolves("OutriderDrillFailed", "OutriderDrillOverdue")
}
