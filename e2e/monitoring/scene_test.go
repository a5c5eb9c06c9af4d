package monitoring_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"outrider.dev/e2e/monitoring/watch"
	"outrider.dev/e2e/stage"
)

// scene is a database that everything happens to while a real Prometheus looks on.
type scene struct {
	*watch.Prometheus
	t        *testing.T
	stage    *stage.Stage
	cloud    *stage.Cloud
	server   *stage.Server
	outrider *stage.Outrider
	root     string
}

// provoked are the queries of panels and what has to happen before they have an answer. In a healthy system they have
// none, and that is what they are to show.
func provoked() map[string]string {
	return map[string]string{
		"outrider_not_protected_since": "another database on the same archive",
		"outrider_spot_release":        "a notice",
		"outrider_stop_phase":          "a notice",
		"outrider_restore_phase":       "a restore",
		"outrider_oss_retries":         "an outage of the store",
		"outrider_drill_last":          "a restore drill",
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (s *scene) deadline() context.Context {
	ctx, cancel := context.WithTimeout(s.t.Context(), watch.Patience)
	s.t.Cleanup(cancel)
	return ctx
}

// newScene builds the programs and starts a cloud, a database with some load on it, outrider beside it, and Prometheus.
func newScene(t *testing.T) *scene {
	t.Helper()
	bin := t.TempDir()
	must(t, os.Chmod(bin, 0o755))
	must(t, os.Chmod(filepath.Dir(bin), 0o755))
	for name, pkg := range map[string]string{"outrider": "outrider.dev/sidecar", "devcloud": "outrider.dev/e2e/devcloud"} {
		if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", filepath.Join(bin, name), pkg).CombinedOutput(); err != nil {
			t.Fatalf("building %s: %v: %s", name, err, out)
		}
	}
	st, err := stage.New(bin)
	must(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			st.Stop()
			t.Logf("logs are left in %s", st.Dir)
			return
		}
		must(t, st.Close())
	})
	s := &scene{Prometheus: watch.Start(t), t: t, stage: st, root: stage.Root("orders")}
	s.cloud, err = st.StartCloud(s.deadline())
	must(t, err)
	s.server = s.database("orders")
	s.damage()
	s.load(s.server)
	s.outrider = s.protect(s.server, "orders-0", "--rto", "10s", "--max-wal-backlog", "10Gi:keep", "--backup-schedule", "* * * * *", "--drill-max-age", "36h")
	return s
}

func (s *scene) database(name string) *stage.Server {
	s.t.Helper()
	p, err := s.stage.NewServer(name)
	must(s.t, err)
	must(s.t, p.Init(s.deadline(), "shared_buffers = 16MB"))
	must(s.t, p.Start())
	must(s.t, p.Ready(s.deadline()))
	return p
}

// damage flips a bit in a page on the disk.
func (s *scene) damage() {
	s.t.Helper()
	ctx := s.deadline()
	must(s.t, s.server.Exec(ctx, "create table damaged as select generate_series(1, 1000) as n", "checkpoint"))
	path, err := s.server.Ask(ctx, "select pg_relation_filepath('damaged')")
	must(s.t, err)
	must(s.t, s.server.Stop(ctx, syscall.SIGINT))
	f, err := os.OpenFile(filepath.Join(s.server.Data, path), os.O_RDWR, 0)
	must(s.t, err)
	var b [1]byte
	_, err = f.ReadAt(b[:], 8000)
	must(s.t, err)
	b[0] ^= 1
	_, err = f.WriteAt(b[:], 8000)
	must(s.t, err)
	must(s.t, f.Close())
	must(s.t, s.server.Start())
	must(s.t, s.server.Ready(ctx))
}

// load writes a little all the time.
func (s *scene) load(p *stage.Server) {
	s.t.Helper()
	_, err := p.Pgbench(s.deadline(), "-i", "-q", "-s", "1")
	must(s.t, err)
	ctx, cancel := context.WithCancel(s.t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		// It ends with its server, or with the test.
		_, _ = p.Pgbench(ctx, "-n", "-c", "1", "-R", "20", "-T", "3600")
	}()
	s.t.Cleanup(func() { cancel(); <-done })
}

func (s *scene) protect(p *stage.Server, pod string, args ...string) *stage.Outrider {
	s.t.Helper()
	return s.protectAs(s.root, p, pod, args...)
}

// protectAs is protect with another root.
func (s *scene) protectAs(root string, p *stage.Server, pod string, args ...string) *stage.Outrider {
	s.t.Helper()
	o, err := s.stage.Run(s.cloud, root, p, args...)
	must(s.t, err)
	s.Scrape("shop/"+pod, o.URL)
	return o
}

// unanswered tells which queries of the dashboard have no answer.
func (s *scene) unanswered(ask func(string) []watch.Series, which func(expr string) bool) []string {
	s.t.Helper()
	var none []string
	for _, q := range readDashboard(s.t).queries(s.t) {
		if which(q.expr) && len(ask(q.expr)) == 0 {
			none = append(none, q.panel+": "+q.expr)
		}
	}
	return none
}

func needsEvent(expr string) bool {
	for part := range provoked() {
		if strings.Contains(expr, part) {
			return true
		}
	}
	return false
}

// Everything that alerts and panels are about happens once to a real database, and the real Prometheus is asked: each
// alert fires and resolves, and each query of the dashboard has an answer.
func TestPeopleSeeWhatHappens(t *testing.T) {
	s := newScene(t)
	s.Scrape("outrider-system/outrider-webhook-a", playWebhook(t))
	s.healthy()
	s.pages(s.bill)
	s.late()
	s.outage()
	s.snapshots(func() {
		s.notice()
		s.foreign()
	})
	s.succession()
	s.Resolves("OutriderSnapshotsFail")
	s.AllHaveFired("outrider", "outrider-costs")
	for _, q := range s.unanswered(s.Ever, func(string) bool { return true }) {
		t.Errorf("no answer at any time to %s", q)
	}
}

// healthy: all but the provoked queries have an answer, and those have none.
func (s *scene) healthy() {
	s.t.Helper()
	var none []string
	defer func() {
		if s.t.Failed() {
			s.t.Logf("unanswered: %s\n%s", strings.Join(none, "\n"), s.outrider.Tail(20))
		}
	}()
	must(s.t, s.outrider.Protected(s.deadline()))
	s.Until("the dashboard of a healthy database has answers", func(context.Context) bool {
		none = s.unanswered(s.Now, func(expr string) bool { return !needsEvent(expr) })
		return len(none) == 0
	})
	for _, q := range readDashboard(s.t).queries(s.t) {
		if needsEvent(q.expr) && len(s.Now(q.expr)) > 0 {
			s.t.Errorf("%s has an answer in a healthy system: it is not one that must be provoked", q.expr)
		}
	}
	if b, err := s.metrics(); err != nil {
		s.t.Error(err)
	} else if unknown := watch.Undocumented(s.t, b); len(unknown) > 0 {
		s.t.Errorf("outrider has metrics that README.md has not: %v", unknown)
	}
}

func (s *scene) metrics() (string, error) {
	var b strings.Builder
	for _, x := range s.Now(`{__name__=~"outrider_.+",pod="orders-0"}`) {
		if !strings.HasPrefix(x.Labels["__name__"], "outrider:") {
			b.WriteString(x.Labels["__name__"] + "\n")
		}
	}
	if b.Len() == 0 {
		return "", fmt.Errorf("nothing was scraped")
	}
	return b.String(), nil
}

// pages: the first snapshot has found the damaged page, the next one, within a minute, finds its table gone.
func (s *scene) pages(meanwhile func()) {
	s.t.Helper()
	s.Fires("OutriderBadPages")
	s.Fires("OutriderRestoreTooSlow") // nothing is restored within ten seconds
	must(s.t, s.server.Exec(s.deadline(), "drop table damaged", "checkpoint"))
	meanwhile()
	s.Resolves("OutriderBadPages")
}

// outage takes the store away, and the metadata service with it.
func (s *scene) outage() {
	s.t.Helper()
	s.cloud.Kill()
	s.Fires("OutriderCommitsNotDurable")
	s.Fires("OutriderDiskFillsUp")
	s.Fires("OutriderNoticesUnseen")
	must(s.t, s.cloud.Restart(s.deadline()))
	s.Resolves("OutriderCommitsNotDurable", "OutriderDiskFillsUp", "OutriderNoticesUnseen")
}

// snapshots: the store refuses the next one and takes WAL.
func (s *scene) snapshots(meanwhile func()) {
	s.t.Helper()
	must(s.t, s.cloud.Faults(s.deadline(), `{"op": "put", "prefix": "stage/orders/basebackups_005/", "kind": "status", "status": 403}`))
	meanwhile()
	s.Fires("OutriderSnapshotsFail")
	must(s.t, s.cloud.Faults(s.deadline()))
}

func (s *scene) notice() {
	s.t.Helper()
	_, err := s.cloud.Control(s.deadline(), http.MethodPut, "spot-termination", "in 300s")
	must(s.t, err)
	s.Until("the notice is seen", func(context.Context) bool { return len(s.Now("outrider_spot_notice_timestamp_seconds")) == 1 })
	s.Until("it is prepared for", func(context.Context) bool { return len(s.Now("outrider_stop_phase_duration_seconds")) == 2 })
	_, err = s.cloud.Control(s.deadline(), http.MethodDelete, "spot-termination", "")
	must(s.t, err)
	s.Until("the notice is gone", func(context.Context) bool { return len(s.Now("outrider_spot_notice_timestamp_seconds")) == 0 })
}

// foreign is another database that is given the same archive.
func (s *scene) foreign() {
	s.t.Helper()
	p := s.database("foreign")
	o := s.protect(p, "foreign-0")
	s.Fires("OutriderNotProtected", `severity="critical"`)
	o.Kill()
	s.Resolves("OutriderNotProtected")
	must(s.t, p.Stop(s.deadline(), syscall.SIGINT))
}

// succession: the database is restored elsewhere while the old one still lives, which is superseded; and then it is gone
// for a while.
func (s *scene) succession() {
	s.t.Helper()
	p, err := s.stage.NewServer("successor")
	must(s.t, err)
	_, err = s.stage.Restore(s.deadline(), s.cloud, s.root, p)
	must(s.t, err)
	must(s.t, p.Start())
	o := s.protect(p, "orders-1")
	s.Fires("OutriderSuperseded")
	s.costsOnce()
	s.outrider.Kill()
	s.Resolves("OutriderSuperseded", "OutriderRestoreTooSlow")
	must(s.t, o.Protected(s.deadline()))
	s.Until("the restore is accounted for", func(context.Context) bool {
		return len(s.Now(`outrider_restore_phase_duration_seconds{pod="orders-1"}`)) == 3
	})
	o.Kill()
	s.Fires("OutriderDatabaseGone")
	s.protect(p, "orders-1")
	s.Resolves("OutriderDatabaseGone")
}
