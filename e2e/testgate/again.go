package main

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// A machine that has two cores for hundreds of servers is late at times, and a test that waits for something then fails.
// Such a test may show what it can once more, alone. It is named at the end, so that somebody mends it.

// unforgiven is what a slow machine does not do. Its words are those of the Go runtime, of the race detector, and of
// ledger.Report.
var unforgiven = regexp.MustCompile(`(?m)WARNING: DATA RACE|^panic: |^fatal error: |` +
	`acknowledged commits are lost and older than the RPO of 0s|lost commits precede present ones|rows were never announced|` +
	`rows are there more than once|have another content than|committed without being asked|primary key's index and the table`)

// failures are the tests that failed, by package and without their subtests.
type failures struct {
	tests map[string][]string
	count int
	final bool // at least one that a second try says nothing about
}

// remember takes the failures of a package that has ended.
func (f *failures) remember(p *pkg, name string) {
	if f.tests == nil {
		f.tests = map[string][]string{}
	}
	found := false
	for _, n := range p.order {
		t := p.tests[n]
		if t.verdict != "fail" && t.verdict != "" {
			continue
		}
		f.final = f.final || t.verdict == "" || unforgiven.MatchString(strings.Join(t.lines, ""))
		if !strings.Contains(n, "/") {
			found = true
			f.tests[name] = append(f.tests[name], n)
			f.count++
		}
	}
	// It did not build, or it ended outside a test.
	f.final = f.final || !found || unforgiven.MatchString(strings.Join(p.lines, ""))
}

// forgivable tells whether a second try of all of them would say something.
func (f *failures) forgivable(limit int) bool { return !f.final && f.count > 0 && f.count <= limit }

// commands are the arguments of "go test" that play the failed tests again, one package after the other.
func (f *failures) commands(args []string) [][]string {
	flags := flagsOf(args)
	var all [][]string
	for _, name := range f.packages() {
		all = append(all, append(slices.Clone(flags), "-count=1", "-run", "^("+strings.Join(f.tests[name], "|")+")$", name))
	}
	return all
}

func (f *failures) packages() []string {
	var all []string
	for name := range f.tests {
		all = append(all, name)
	}
	slices.Sort(all)
	return all
}

// say names them.
func (f *failures) say(show func(...string)) {
	for _, name := range f.packages() {
		for _, test := range f.tests[name] {
			show(fmt.Sprintf("FLAKY\t%s %s: it failed beside others, see above, and passed alone\n", name, test))
		}
	}
}

// flagsOf leaves packages and the selection by name out of the arguments of "go test". The value of every flag but -run
// has to be in one argument with it.
func flagsOf(args []string) []string {
	var flags []string
	for i := 0; i < len(args); i++ {
		switch {
		case args[i] == "-run" || args[i] == "--run":
			i++
		case strings.HasPrefix(args[i], "-") && !has(args[i:i+1], "run"):
			flags = append(flags, args[i])
		}
	}
	return flags
}
