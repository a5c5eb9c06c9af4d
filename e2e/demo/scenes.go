package main

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"syscall"
	"time"

	"outrider.dev/e2e/ledger"
	"outrider.dev/e2e/stage"
)

// rpo is what outrider is asked for, and what the crash is judged by.
const rpo = time.Second

type demo struct {
	stage  *stage.Stage
	cloud  *stage.Cloud
	root   string
	load   time.Duration
	ledger *ledger.Ledger
	book   string
	result result
}

func (d *demo) play(ctx context.Context) error {
	say("Outrider, shown on a real PostgreSQL server. Nothing here is simulated but Alibaba Cloud itself:")
	say("a stand-in answers as OSS and as the metadata service of the machine.")
	var err error
	if d.cloud, err = d.stage.StartCloud(ctx); err != nil {
		return err
	}
	d.book = filepath.Join(d.stage.Dir, "ledger.journal")
	if d.ledger, err = ledger.Open(d.book); err != nil {
		return err
	}
	defer d.ledger.Close()
	d.result.PromisedRPOSeconds = rpo.Seconds()
	first, err := d.newDatabase(ctx)
	if err != nil {
		return err
	}
	second, err := d.notice(ctx, first)
	if err != nil {
		return fmt.Errorf("scene 1: %w", err)
	}
	if err := d.crash(ctx, second); err != nil {
		return fmt.Errorf("scene 2: %w", err)
	}
	return d.stock(ctx)
}

func (d *demo) newDatabase(ctx context.Context) (*stage.Server, error) {
	p, err := d.stage.NewServer("node-1")
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := p.Init(ctx, "max_prepared_transactions = 10"); err != nil {
		return nil, err
	}
	if err := p.Start(); err != nil {
		return nil, err
	}
	if err := p.Ready(ctx); err != nil {
		return nil, err
	}
	if _, err := p.Pgbench(ctx, "-i", "-q", "-s", "10"); err != nil {
		return nil, err
	}
	say("\nA new database on node-1, filled by pgbench. archive_command is not set; nothing in it knows of Outrider.")
	return p, nil
}

// protect runs outrider beside p until it says that the database is protected.
func (d *demo) protect(ctx context.Context, p *stage.Server) (*stage.Outrider, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	started := time.Now()
	o, err := d.stage.Run(d.cloud, d.root, p, "--rpo", rpo.String())
	if err != nil {
		return nil, err
	}
	if err := o.Protected(ctx); err != nil {
		return nil, err
	}
	st, err := o.Status(ctx)
	if err != nil {
		return nil, err
	}
	if st.LastSnapshot != nil {
		d.result.SnapshotRawBytes = st.LastSnapshot.Raw
	}
	say("outrider run started beside it: protected after %.1f s (epoch %d, timeline %d, snapshot %s).", time.Since(started).Seconds(), st.Epoch, st.Timeline, snapshotOf(st))
	return o, nil
}

func snapshotOf(st stage.Status) string {
	if st.LastSnapshot == nil {
		return "from before"
	}
	return fmt.Sprintf("%s, %.1f MB for %.0f MB of data", st.LastSnapshot.Name, float64(st.LastSnapshot.Stored)/1e6, float64(st.LastSnapshot.Raw)/1e6)
}

// notice is the scene in which the cloud says that it will take the machine.
func (d *demo) notice(ctx context.Context, p *stage.Server) (*stage.Server, error) {
	say("\n== Scene 1: a termination notice ==")
	o, err := d.protect(ctx, p)
	if err != nil {
		return nil, err
	}
	load := d.startLoad(ctx, p)
	if err := d.watch(ctx, o, d.load); err != nil {
		return nil, err
	}
	asked := time.Now()
	if _, err := d.cloud.Control(ctx, "PUT", "spot-termination", "in 120s"); err != nil {
		return nil, err
	}
	say("The metadata service announces: this machine is released in 120 s. Clients go on committing.")
	ctx1, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var st stage.Status
	err = stage.Until(ctx1, "the answer to the notice", func() (bool, error) {
		st, err = o.Status(ctx1)
		return err == nil && st.Prepared != nil, err
	})
	if err != nil {
		return nil, err
	}
	d.result.GracefulNoticeToDurable = round(time.Since(asked).Seconds())
	say("  noticed, checkpoint written and everything durable up to %s: %.2f s after the announcement (the notice is polled every 5 s; the work took %.2f s).",
		st.Prepared.Durable.LSN, d.result.GracefulNoticeToDurable, st.Prepared.TookSeconds)
	if err := d.orderlyStop(ctx1, p, o, load); err != nil {
		return nil, err
	}
	if _, err := d.cloud.Control(ctx, "DELETE", "spot-termination", ""); err != nil {
		return nil, err
	}
	if err := p.Remove(); err != nil {
		return nil, err
	}
	say("  node-1 is gone, its disk with it.")
	q, took, report, err := d.comeBack(ctx, "node-2", ledger.Options{})
	if err != nil {
		return nil, err
	}
	d.result.GracefulLostRows, d.result.GracefulRestoreSeconds = report.Lost, round(took.Seconds())
	say("  the ledger's verdict: %d commits acknowledged, %d lost.", report.Acknowledged, report.Lost)
	return q, report.Err()
}

// orderlyStop does what a kubelet does to the pod: the preStop hook, the stop signal to Postgres, and SIGTERM to the
// sidecar after Postgres has exited.
func (d *demo) orderlyStop(ctx context.Context, p *stage.Server, o *stage.Outrider, load *load) error {
	started := time.Now()
	if err := o.PreStop(ctx); err != nil {
		return err
	}
	if err := p.Stop(ctx, syscall.SIGINT); err != nil {
		return err
	}
	down := time.Since(started)
	acked := load.stop()
	if err := o.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	if err := o.Wait(ctx); err != nil {
		return fmt.Errorf("outrider ended with %w: %s", err, o.Tail(5))
	}
	d.result.GracefulStopSeconds = round(time.Since(started).Seconds())
	say("  the pod is evicted: preStop, fast stop of Postgres, %.2f s; then SIGTERM to outrider: the rest shipped %.2f s later.",
		down.Seconds(), (time.Since(started) - down).Seconds())
	return d.receipt(ctx, acked)
}

func (d *demo) receipt(ctx context.Context, acked int64) error {
	out, err := d.stage.Do(ctx, d.cloud, d.root, "why", "-o", "json")
	if err != nil {
		return err
	}
	var why struct {
		Receipt *struct {
			Clean         bool   `json:"clean"`
			Reason        string `json:"reason"`
			Durable       string `json:"durable"`
			CheckpointEnd string `json:"checkpoint_end"`
		} `json:"receipt"`
	}
	if err := json.Unmarshal([]byte(out), &why); err != nil {
		return fmt.Errorf("reading what outrider why says: %w: %s", err, out)
	}
	if why.Receipt == nil {
		return fmt.Errorf("there is no receipt: %s", out)
	}
	d.result.GracefulReceiptClean = why.Receipt.Clean
	say("  receipt (outrider why): clean %t, durable up to %s, the shutdown checkpoint ended at %s. %d commits were acknowledged so far.",
		why.Receipt.Clean, why.Receipt.Durable, why.Receipt.CheckpointEnd, acked)
	return nil
}

// crash is the scene in which everything dies at once.
func (d *demo) crash(ctx context.Context, p *stage.Server) error {
	say("\n== Scene 2: a node is lost without warning ==")
	o, err := d.protect(ctx, p)
	if err != nil {
		return err
	}
	load := d.startLoad(ctx, p)
	if err := d.watch(ctx, o, d.load); err != nil {
		return err
	}
	o.Kill()
	p.Kill()
	kill, err := d.ledger.MarkKill()
	if err != nil {
		return err
	}
	acked := load.stop()
	if err := p.Remove(); err != nil {
		return err
	}
	say("  kill -9 of outrider and Postgres under load, the data directory deleted. %d commits were acknowledged so far.", acked)
	_, took, report, err := d.comeBack(ctx, "node-3", ledger.Options{Kill: kill, RPO: rpo})
	if err != nil {
		return err
	}
	d.result.RestoreSeconds, d.result.CommitsAcknowledged = round(took.Seconds()), report.Acknowledged
	d.result.CrashLostRows, d.result.CrashLostRowsOlderRPO = report.Lost, report.LostOlderThanRPO
	if report.OldestLostAge != nil {
		d.result.CrashRPOSeconds = round(*report.OldestLostAge)
	}
	say("  the ledger's verdict: %d commits acknowledged, %d lost; the oldest of them had been acknowledged %.3f s before the kill (promised: %s).",
		report.Acknowledged, report.Lost, d.result.CrashRPOSeconds, rpo)
	return report.Err()
}

// comeBack restores into an empty directory, starts Postgres there, waits for the first accepted write, and asks the
// ledger what is missing.
func (d *demo) comeBack(ctx context.Context, name string, o ledger.Options) (*stage.Server, time.Duration, ledger.Report, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	p, err := d.stage.NewServer(name)
	if err != nil {
		return nil, 0, ledger.Report{}, err
	}
	started := time.Now()
	if _, err := d.stage.Restore(ctx, d.cloud, d.root, p); err != nil {
		return nil, 0, ledger.Report{}, err
	}
	fetched := time.Since(started)
	if err := p.Start(); err != nil {
		return nil, 0, ledger.Report{}, err
	}
	if err := p.Ready(ctx); err != nil {
		return nil, 0, ledger.Report{}, err
	}
	took := time.Since(started)
	say("  %s starts with an empty disk: outrider restore %.2f s, Postgres replays and takes its first write %.2f s after the start.", name, fetched.Seconds(), took.Seconds())
	report, err := ledger.Verify(ctx, p.ConnString(), d.book, o)
	return p, took, report, err
}
