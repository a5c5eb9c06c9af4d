package main

import (
	"fmt"
	"strings"
)

// ways are the ones that are compared, in the order of a bill's figures.
const (
	subscription = iota
	payAsYouGo
	spot
	ways
)

// line is one line of the bill, in CNY a month.
type line struct {
	what string
	cost [ways]float64
}

func same(what string, cost float64) line { return line{what, [ways]float64{cost, cost, cost}} }

// bill is what a month costs in each way.
type bill struct {
	nodes []line // what differs
	store []line // the archive, which is the same
	// away is for how many minutes in a month a database is not there because its node was taken away.
	away float64
}

// known are the names that compute asks for.
func known() []string {
	return strings.Fields(`nodes databases database wal busy hours node_payg node_subscription node_spot spot_sold_out
		interruptions overlap move disk node_disk volume_room snapshot delta fulls_month fulls_kept retention oss_storage
		oss_put oss_get segment flushes idle part replica replica_traffic`)
}

const (
	day      = 24.0          // hours
	perGiB   = 1024.0        // MiB
	tenK     = 10e3          // requests that a price of OSS is for
	deletes  = 1000.0        // chunks that one request deletes at most (OSS, DeleteMultipleObjects)
	inMinute = 60.0          // seconds, or minutes of an hour
	inHour   = inMinute * 60 // seconds
)

// compute makes the bill.
func compute(in map[string]float64) bill {
	full := in["nodes"] * in["hours"] * in["node_payg"]
	// A spot node is paid for its part of the time, and its replacement a while beside it.
	beside := in["nodes"] * in["interruptions"] * in["overlap"] / inMinute * in["node_payg"] * in["node_spot"]
	nodeDisks := in["nodes"] * in["node_disk"] * in["disk"]
	volumes := in["databases"] * in["database"] * in["volume_room"] * in["disk"]
	b := bill{
		nodes: []line{
			{"nodes", [ways]float64{full * in["node_subscription"], full, full * (1 - in["spot_sold_out"]) * in["node_spot"]}},
			{"pay-as-you-go while spot is sold out", [ways]float64{spot: full * in["spot_sold_out"]}},
			{"replacements beside nodes that go", [ways]float64{spot: beside}},
			same("system disks", nodeDisks),
			{"volumes of the databases", [ways]float64{volumes, volumes, 0}},
		},
		store: archive(in),
	}
	if in["databases"] > 0 {
		b.away = in["interruptions"] * in["move"]
	}
	return b
}

// archive is what OSS costs: the same wherever the databases run.
func archive(in map[string]float64) []line {
	days := in["hours"] / day
	full := in["database"] * in["snapshot"]
	hourly := full * in["delta"]
	kept := in["databases"] * (full*in["fulls_kept"] + hourly*day*in["retention"] + in["wal"]*in["retention"])
	made := in["databases"] * (full*in["fulls_month"] + hourly*in["hours"] + in["wal"]*days)

	chunks := in["flushes"] * in["busy"] * inHour * days
	puts := in["databases"] * (chunks + chunks/deletes + // growing WAL, and its removal
		in["wal"]*days*perGiB/in["segment"] + // whole segments
		(full*in["fulls_month"]+hourly*in["hours"])*perGiB/in["part"] + // snapshots
		in["idle"]/2*inMinute*in["hours"]) // heartbeats
	gets := in["databases"] * in["idle"] / 2 * inMinute * in["hours"]

	lines := []line{
		same("archive: storage", kept*in["oss_storage"]),
		same("archive: requests", puts/tenK*in["oss_put"]+gets/tenK*in["oss_get"]),
	}
	if in["replica"] > 0 {
		// Chunks are copied too, and stay until a retention in the other region removes them.
		lines = append(lines, same("copy in a second region", in["replica"]*(kept*in["oss_storage"]+made*in["replica_traffic"]+puts/tenK*in["oss_put"])))
	}
	return lines
}

func sum(lines []line) (total [ways]float64) {
	for _, l := range lines {
		for w, c := range l.cost {
			total[w] += c
		}
	}
	return total
}

// markdown is the table of the bill.
func (b bill) markdown() string {
	var t strings.Builder
	t.WriteString("| CNY a month | subscription | pay-as-you-go | spot |\n|---|---:|---:|---:|\n")
	row := func(what string, cost [ways]float64) {
		fmt.Fprintf(&t, "| %s | %.0f | %.0f | %.0f |\n", what, cost[subscription], cost[payAsYouGo], cost[spot])
	}
	for _, l := range b.nodes {
		row(l.what, l.cost)
	}
	for _, l := range b.store {
		row(l.what, l.cost)
	}
	total := sum(append(b.nodes[:len(b.nodes):len(b.nodes)], b.store...))
	row("**all together**", total)
	t.WriteString("| in relation to subscription |")
	for _, c := range total {
		if total[subscription] > 0 {
			fmt.Fprintf(&t, " %.0f %% |", 100*c/total[subscription])
		} else {
			t.WriteString(" |")
		}
	}
	fmt.Fprintf(&t, "\n| minutes that a database is away, because nodes are | 0 | 0 | %.0f |\n", b.away)
	return t.String()
}
