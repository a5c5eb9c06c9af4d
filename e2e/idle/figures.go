package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strings"

	"outrider.dev/e2e/stage"
)

// figures are what one scene has cost.
type figures struct {
	Seconds         float64        `json:"seconds"`
	Requests        int            `json:"oss_requests"`
	PerMinute       float64        `json:"oss_requests_per_minute"`
	Operations      map[string]int `json:"oss_operations"`
	Metadata        int            `json:"metadata_requests"`
	Queries         map[string]int `json:"queries"`
	QueriesAMinute  float64        `json:"queries_per_minute"`
	CPUSeconds      float64        `json:"outrider_cpu_seconds"`
	ServerSeconds   float64        `json:"server_cpu_seconds"`
	ResidentBytes   int64          `json:"outrider_resident_bytes"`
	AnonymousBytes  int64          `json:"outrider_anonymous_bytes"`
	WALBytes        int64          `json:"wal_bytes"`
	Checkpoints     int            `json:"checkpoints"`
	SnapshotsBefore int            `json:"snapshots_before"`
	SnapshotsAfter  int            `json:"snapshots_after"`
}

func difference(first, last reading) figures {
	f := figures{
		Seconds: round(last.at.Sub(first.at).Seconds()), CPUSeconds: round((last.cpu - first.cpu).Seconds()),
		ServerSeconds: round((last.tree - first.tree).Seconds()), WALBytes: last.wal - first.wal,
		ResidentBytes: last.memory.Resident, AnonymousBytes: last.memory.Anonymous, Queries: map[string]int{},
	}
	total := 0
	for q, n := range last.queries {
		if n -= first.queries[q]; n > 0 {
			f.Queries[q] = n
			total += n
		}
	}
	f.QueriesAMinute = round(float64(total) / (f.Seconds / 60))
	return f
}

// count adds what the cloud was asked since it was told to count anew.
func (f *figures) count(ctx context.Context, c *stage.Cloud) error {
	b, err := c.Control(ctx, "GET", "requests", "")
	if err != nil {
		return err
	}
	var said struct {
		Operations map[string]map[string]int `json:"operations"`
		Metadata   map[string]map[string]int `json:"metadata"`
	}
	if err := json.Unmarshal(b, &said); err != nil {
		return fmt.Errorf("reading what devcloud has counted: %w: %s", err, b)
	}
	f.Operations = map[string]int{}
	for name, results := range said.Operations {
		for _, n := range results {
			f.Operations[name] += n
			f.Requests += n
		}
	}
	for _, results := range said.Metadata {
		for _, n := range results {
			f.Metadata += n
		}
	}
	f.PerMinute = round(float64(f.Requests) / (f.Seconds / 60))
	return nil
}

func (f figures) show(out io.Writer, title string) {
	fmt.Fprintf(out, "\n%s, %.0f s:\n", title, f.Seconds)
	fmt.Fprintf(out, "  requests to OSS       %d, %.2f a minute %v\n", f.Requests, f.PerMinute, f.Operations)
	fmt.Fprintf(out, "  metadata service      %d (a request each 5 s waits for a termination notice)\n", f.Metadata)
	fmt.Fprintf(out, "  CPU of outrider       %.2f s, %.3f %% of one core\n", f.CPUSeconds, 100*f.CPUSeconds/f.Seconds)
	fmt.Fprintf(out, "  CPU of the server     %.2f s\n", f.ServerSeconds)
	fmt.Fprintf(out, "  memory of outrider    %.1f MiB resident, %.1f MiB of that anonymous\n", mib(f.ResidentBytes), mib(f.AnonymousBytes))
	fmt.Fprintf(out, "  WAL                   %d bytes, %d checkpoints were asked for\n", f.WALBytes, f.Checkpoints)
	fmt.Fprintf(out, "  snapshots             %d before, %d after\n", f.SnapshotsBefore, f.SnapshotsAfter)
	fmt.Fprintf(out, "  statements of outrider's sessions: %.1f a minute\n", f.QueriesAMinute)
	for _, q := range slices.Sorted(maps.Keys(f.Queries)) {
		fmt.Fprintf(out, "    %4d  %s\n", f.Queries[q], q)
	}
}

func mib(n int64) float64 { return float64(n) / (1 << 20) }

func round(x float64) float64 { return math.Round(x*1000) / 1000 }

// queryLength is how much of a statement is shown.
const queryLength = 100

// queriesOf counts the statements of sessions with this application name in a log that was written with
// log_line_prefix '%a|' and log_statement all.
func queriesOf(application, log string) map[string]int {
	counts := map[string]int{}
	statement := ""
	end := func() {
		if statement != "" {
			text := strings.Join(strings.Fields(statement), " ")
			counts[text[:min(len(text), queryLength)]]++
		}
		statement = ""
	}
	for line := range strings.Lines(log) {
		if strings.HasPrefix(line, "\t") { // goes on
			if statement != "" {
				statement += line
			}
			continue
		}
		end()
		rest, ours := strings.CutPrefix(line, application+"|LOG:")
		if !ours {
			continue
		}
		head, text, found := strings.Cut(rest, ":")
		if head = strings.TrimSpace(head); found && (head == "statement" || strings.HasPrefix(head, "execute ")) {
			statement = text
		}
	}
	end()
	return counts
}
