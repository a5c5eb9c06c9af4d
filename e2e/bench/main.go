// Command bench measures what Outrider costs and how fast it is, as processes on a real PostgreSQL server and the
// stand-in cloud, beside pgBackRest on the same data in the same run where that is installed. Wall times depend on what
// else the machine does; CPU seconds do so much less and come first. Its last line is one JSON object.
//
// Nothing here is a test: it reports, and a target that was missed is said to be, but does not fail.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"outrider.dev/e2e/stage"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == reapVerb {
		os.Exit(reap(os.Args[2:]))
	}
	var c config
	var only string
	flag.StringVar(&c.bin, "bin", "bin", "directory of the programs outrider and devcloud")
	flag.StringVar(&only, "only", strings.Join(partNames(), ","), "parts to run")
	flag.IntVar(&c.rounds, "rounds", 3, "how often everything that is compared is done, interleaved; medians are reported")
	flag.DurationVar(&c.load, "load", time.Minute, "how long to ship a load while memory and age are watched")
	flag.IntVar(&c.segments, "segments", 64, "how many WAL segments of 16 MiB are shipped as a backlog")
	flag.IntVar(&c.scale, "scale", 130, "pgbench scale of the database of which snapshots are taken: 15 MB each")
	flag.IntVar(&c.transactions, "transactions", 80000, "how many transactions the server is given with and without Outrider")
	flag.BoolVar(&c.keep, "keep", false, "leave the directories with all logs behind")
	flag.Parse()
	c.parts = strings.Split(only, ",")
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx, c)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// config says what to measure.
type config struct {
	bin          string
	parts        []string
	rounds       int
	load         time.Duration
	segments     int
	scale        int
	transactions int
	keep         bool
}

// part is one scene of its own, on a stage of its own.
type part struct {
	name string
	run  func(context.Context, *bench) error
}

func parts() []part {
	return []part{{"shipping", shipping}, {"backlog", backlog}, {"snapshot", snapshots}, {"server", serverCost}}
}

func partNames() []string {
	var names []string
	for _, p := range parts() {
		names = append(names, p.name)
	}
	return names
}

// bench is a running part.
type bench struct {
	config
	stage  *stage.Stage
	report *report
	self   string // path of this program
}

func run(ctx context.Context, c config) error {
	for _, name := range c.parts {
		if !slices.Contains(partNames(), name) {
			return fmt.Errorf("-only %q: there are %s", name, strings.Join(partNames(), ", "))
		}
	}
	if c.rounds < 1 || c.segments < 1 || c.scale < 1 || c.transactions < 1 {
		return errors.New("-rounds, -segments, -scale and -transactions have to be at least 1")
	}
	var err error
	if c.bin, err = filepath.Abs(c.bin); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	r := &report{Machine: machine(), Began: time.Now().UTC(), Rounds: c.rounds, LoadBefore: loadAverage()}
	say("%s\nLoad average %s; medians of %d rounds.\n", r.Machine, r.LoadBefore, c.rounds)
	for _, p := range parts() {
		if !slices.Contains(c.parts, p.name) {
			continue
		}
		say("== %s ==", p.name)
		if err := perform(ctx, &bench{config: c, report: r, self: self}, p); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
	}
	r.LoadAfter = loadAverage()
	r.show(os.Stdout)
	line, err := json.Marshal(r)
	if err != nil {
		return err
	}
	say("%s", line)
	return nil
}

func perform(ctx context.Context, b *bench, p part) (err error) {
	if b.stage, err = stage.New(b.bin); err != nil {
		return err
	}
	err = p.run(ctx, b)
	if b.keep || err != nil {
		b.stage.Stop()
		say("The logs are in %s.", b.stage.Dir)
		return err
	}
	return b.stage.Close()
}

func say(format string, args ...any) { fmt.Fprintf(os.Stdout, format+"\n", args...) }
