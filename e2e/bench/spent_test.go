package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
)

// A daemon's time is its caller's: pgBackRest does its work in processes that leave it.
func TestReapCountsWhatLeavesItsParent(t *testing.T) {
	file := filepath.Join(t.TempDir(), "spent")
	burn := "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done"
	if code := reap([]string{file, "/bin/sh", "-c", "setsid sh -c '" + burn + "' >/dev/null 2>&1 &"}); code != 0 {
		t.Fatalf("exit code %d", code)
	}
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var s spent
	if err := json.Unmarshal(raw, &s); err != nil {
		t.Fatal(err)
	}
	if s.CPU < 0.02 || s.Wall < 0.02 || s.Peak < 100<<10 {
		t.Errorf("a loop in the background has cost %+v", s)
	}
	if code := reap([]string{file, "/bin/sh", "-c", "exit 3"}); code != 3 {
		t.Errorf("exit code %d instead of the command's 3", code)
	}
	if code := reap([]string{file, "/no/such/program"}); code == 0 {
		t.Error("a program that does not exist was run")
	}
}
