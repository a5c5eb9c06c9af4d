package main

import (
	"bytes"
	"flag"
	"io"
	"maps"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the tables into README.md instead of comparing them")

func defaultInputs(t *testing.T) inputs {
	t.Helper()
	in, err := read(strings.NewReader(defaults), known())
	if err != nil {
		t.Fatal(err)
	}
	return in
}

// The tables of README.md are what the program makes of inputs.csv.
func TestReadmeIsCurrent(t *testing.T) {
	in := defaultInputs(t)
	b, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	for name, table := range map[string]string{"inputs": in.markdown(), "bill": compute(in.byName).markdown()} {
		begin, end := "<!-- "+name+": generated -->\n", "<!-- /"+name+" -->"
		before, rest, ok := strings.Cut(text, begin)
		old, after, closed := strings.Cut(rest, end)
		if !ok || !closed {
			t.Fatalf("README.md has no place for the %s", name)
		}
		want := "\n" + table + "\n"
		if old != want && !*update {
			t.Errorf("the table of %s is not current: go test ./manifests/costs -update", name)
		}
		text = before + begin + want + end + after
	}
	if *update {
		if err := os.WriteFile("README.md", []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// One price list: the prices of OSS are those from which Prometheus makes the forecast.
func TestPricesAreThoseOfMonitoring(t *testing.T) {
	in := defaultInputs(t)
	rules, err := os.ReadFile("../monitoring/costs.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for name, pattern := range map[string]string{
		"oss_storage": `storage_gb_month, expr: vector\(([0-9.]+)\), labels: \{storage_class: Standard,`,
		"oss_put":     `requests_10k, expr: vector\(([0-9.]+)\), labels: \{type: put, storage_class: Standard,`,
		"oss_get":     `requests_10k, expr: vector\(([0-9.]+)\), labels: \{type: get, storage_class: Standard,`,
	} {
		m := regexp.MustCompile(pattern).FindSubmatch(rules)
		if m == nil {
			t.Errorf("manifests/monitoring/costs.yaml has no price for %s", name)
			continue
		}
		if want, err := strconv.ParseFloat(string(m[1]), 64); err != nil || want != in.byName[name] {
			t.Errorf("%s is %v here and %s in manifests/monitoring/costs.yaml", name, in.byName[name], m[1])
		}
	}
}

// Reckoned by hand: one database of 100 GiB, 20 GiB of WAL a day, a week of WAL, four snapshots of 200 GiB kept.
func TestArchiveByHand(t *testing.T) {
	in := zeros()
	maps.Copy(in, map[string]float64{
		"databases": 1, "database": 500, "snapshot": 0.4, "fulls_kept": 4, "fulls_month": 4, "wal": 20, "retention": 7, "hours": 720,
		"oss_storage": 0.12, "oss_put": 0.01, "segment": 5.12, "part": 64,
	})
	lines := archive(in)
	if got := lines[0].cost[spot]; math.Abs(got-112.8) > 1e-9 {
		t.Errorf("940 GiB at 0.12 cost %v, not 112.8", got)
	}
	// 600 GiB in segments of 5.12 MiB are 120 000; 800 GiB in parts of 64 MiB are 12 800.
	if got := lines[1].cost[spot]; math.Abs(got-0.1328) > 1e-9 {
		t.Errorf("132 800 requests cost %v, not 0.1328", got)
	}
	if len(lines) != 2 {
		t.Errorf("%d lines without a replica", len(lines))
	}
	in["replica"], in["replica_traffic"] = 1, 0.5
	// The same storage again, 1400 GiB of traffic, and the same requests.
	if got := archive(in)[2].cost[spot]; math.Abs(got-(112.8+700+0.1328)) > 1e-9 {
		t.Errorf("the copy costs %v, not 812.9328", got)
	}
}

func TestNodesByHand(t *testing.T) {
	in := zeros()
	maps.Copy(in, map[string]float64{
		"nodes": 2, "hours": 100, "node_payg": 3, "node_subscription": 0.5, "node_spot": 0.2, "spot_sold_out": 0.1,
		"interruptions": 6, "overlap": 10, "move": 4, "databases": 4, "database": 10, "volume_room": 2, "disk": 1, "node_disk": 50,
		"segment": 1, "part": 1,
	})
	b := compute(in)
	// 600 in full; half; and 540 x 0.2 = 108, 60 sold out, 2 h beside at 0.6 = 1.2. Disks 100, volumes 80.
	want := [ways]float64{subscription: 300 + 180, payAsYouGo: 600 + 180, spot: 108 + 60 + 1.2 + 100}
	for w, got := range sum(b.nodes) {
		if math.Abs(got-want[w]) > 1e-9 {
			t.Errorf("way %d costs %v, not %v", w, got, want[w])
		}
	}
	if b.away != 24 {
		t.Errorf("a database is away for %v minutes, not 6 x 4", b.away)
	}
}

// Each input matters: one that changes nothing would be there for show.
func TestEachInputCounts(t *testing.T) {
	in := defaultInputs(t)
	in.byName["replica"] = 1
	before := compute(in.byName)
	for _, name := range known() {
		changed := maps.Clone(in.byName)
		changed[name] *= 3
		after := compute(changed)
		if sum(after.nodes) == sum(before.nodes) && sum(after.store) == sum(before.store) && after.away == before.away {
			t.Errorf("%s has no effect", name)
		}
	}
}

func TestWrongInputsAreRefused(t *testing.T) {
	for name, text := range map[string]string{
		"no number":   strings.Replace(defaults, "nodes,3,", "nodes,three,", 1),
		"negative":    strings.Replace(defaults, "nodes,3,", "nodes,-3,", 1),
		"not finite":  strings.Replace(defaults, "nodes,3,", "nodes,NaN,", 1),
		"misspelled":  strings.Replace(defaults, "\nwal,", "\nwall,", 1),
		"twice":       defaults + "nodes,3,,yours,again\n",
		"missing":     strings.Replace(defaults, "nodes,3,,yours,nodes that the databases need\n", "", 1),
		"other form":  strings.Replace(defaults, "name,value", "value,name", 1),
		"empty":       "",
		"division":    strings.Replace(defaults, "\npart,64,", "\npart,0,", 1),
		"fewer cells": defaults + "nodes,3\n",
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "inputs.csv")
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			var out bytes.Buffer
			if err := run([]string{"-inputs", path}, &out, io.Discard); err == nil || out.Len() > 0 {
				t.Errorf("error %v, and a table of %d bytes", err, out.Len())
			}
		})
	}
	if err := run([]string{"-inputs", filepath.Join(t.TempDir(), "none.csv")}, io.Discard, io.Discard); err == nil {
		t.Error("a file that is not there was no error")
	}
}

func zeros() map[string]float64 {
	in := map[string]float64{}
	for _, name := range known() {
		in[name] = 0
	}
	return in
}
