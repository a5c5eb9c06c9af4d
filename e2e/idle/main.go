// Command idle measures what protecting a database costs while nobody uses it: requests to OSS, questions to the server,
// CPU time and memory, on a real PostgreSQL server for five real minutes. Beside it, a second database is idle too but
// for the checkpoints of its own server, and its snapshots are due each minute: none may be taken.
//
// It fails if there are more requests than README.md documents, if WAL comes into being, or if a snapshot is taken for
// nothing. Its last line is one JSON object.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
)

// documentedPerMinute is what README.md promises for an idle database: one request asks whether somebody has taken over,
// one is the heartbeat.
const documentedPerMinute = 2

func main() {
	bin := flag.String("bin", "bin", "directory of the programs outrider and devcloud")
	long := flag.Duration("for", 5*time.Minute, "how long to watch")
	keep := flag.Bool("keep", false, "leave the directories with all logs behind")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx, os.Stdout, *bin, watching{long: *long, keep: *keep})
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "idle:", err)
		os.Exit(1)
	}
}

// watching is how to watch.
type watching struct {
	long time.Duration
	keep bool
}

// result is the last line.
type result struct {
	Quiet       figures `json:"idle"`
	Checkpoints figures `json:"idle_with_checkpoints"`
}

func run(ctx context.Context, out io.Writer, bin string, w watching) error {
	bin, err := filepath.Abs(bin)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "Two idle databases, each with outrider run beside it, are watched for %v.\n", w.long)
	var r result
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() (err error) {
		r.Quiet, err = watch(ctx, bin, w, scene{name: "idle"})
		return err
	})
	group.Go(func() (err error) {
		// Hourly snapshots of an hour, in the time of a few minutes.
		r.Checkpoints, err = watch(ctx, bin, w, scene{name: "checkpoints", schedule: "* * * * *", checkpoint: 25 * time.Second})
		return err
	})
	if err := group.Wait(); err != nil {
		return err
	}
	r.Quiet.show(out, "idle database")
	r.Checkpoints.show(out, "idle database whose server writes checkpoints; snapshots are due each minute")
	line, err := json.Marshal(r)
	if err != nil {
		return err
	}
	verdict := r.verdict()
	if verdict != nil {
		fmt.Fprintln(out, "\nNot as promised:", verdict)
	}
	fmt.Fprintln(out, string(line))
	return verdict
}

// verdict holds the figures against what is documented.
func (r result) verdict() error {
	var errs []error
	q := r.Quiet
	// The minute in which the counting began may hold the requests of two beats.
	if allowed := documentedPerMinute * (int(q.Seconds/60) + 1); q.Requests > allowed {
		errs = append(errs, fmt.Errorf("%d requests to OSS in %.0f s, documented are %d a minute: %v", q.Requests, q.Seconds, documentedPerMinute, q.Operations))
	}
	if q.Requests == 0 {
		errs = append(errs, errors.New("not one request was counted: the heartbeat is missing, or the counting is broken"))
	}
	if q.WALBytes != 0 {
		errs = append(errs, fmt.Errorf("%d bytes of WAL were written although nobody wrote anything", q.WALBytes))
	}
	c := r.Checkpoints
	if c.WALBytes == 0 || c.Checkpoints == 0 {
		errs = append(errs, errors.New("the server that was to write checkpoints wrote none"))
	}
	for name, f := range map[string]figures{"idle": q, "with checkpoints": c} {
		if f.SnapshotsAfter != f.SnapshotsBefore || f.SnapshotsBefore == 0 {
			errs = append(errs, fmt.Errorf("%s: %d snapshots before, %d after: nothing had changed", name, f.SnapshotsBefore, f.SnapshotsAfter))
		}
	}
	return errors.Join(errs...)
}
