package main

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// A database must not stay unshipped without anybody being told: each state but those that are as they should be has an
// alert. Nobody is called for a stop: it ends within the grace period, and then OutriderDatabaseGone sees that nobody came
// after it.
func TestEveryBadStateHasAnAlert(t *testing.T) {
	rules, err := os.ReadFile("../manifests/monitoring/rules.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var alerted []string
	for _, m := range regexp.MustCompile(`outrider_state\{state=~?"([a-z_|]+)"\}`).FindAllSubmatch(rules, -1) {
		alerted = append(alerted, strings.Split(string(m[1]), "|")...)
	}
	fine := []protection{stateProtected, stateClone, stateStopping, stateStopped}
	for _, s := range allStates() {
		if slices.Contains(alerted, string(s)) == slices.Contains(fine, s) {
			t.Errorf("state %s: an alert %v, as it should be %v", s, slices.Contains(alerted, string(s)), slices.Contains(fine, s))
		}
	}
	for _, s := range alerted {
		if !slices.Contains(allStates(), protection(s)) {
			t.Errorf("an alert waits for the state %s, which there is not", s)
		}
	}
}
