package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// event is a line of "go test -json" (see "go doc test2json").
type event struct {
	Action     string
	Package    string
	ImportPath string // of build output
	Test       string
	Output     string
}

// gate counts and shows what the go command reports.
type gate struct {
	out      io.Writer
	strict   bool
	selected bool // tests were chosen by name
	verbose  bool // show what passes, too, as it does

	packages map[string]*pkg
	passed   int
	failed   int
	skipped  []string // tests with their reasons
	problems []string // reasons to fail that the go command does not see
	bad      failures
	flaky    bool // what failed has passed since
}

// pkg collects one package until its verdict comes.
type pkg struct {
	tests map[string]*test
	order []string
	lines []string // output that belongs to no test
}

type test struct {
	verdict string // pass, fail, skip, or "" if it never ended
	lines   []string
	parent  bool // it has subtests
}

// read takes all events. A line that is no event is shown as it is.
func (g *gate) read(r io.Reader) error {
	g.packages = map[string]*pkg{}
	br := bufio.NewReader(r)
	for {
		line, err := br.ReadBytes('\n')
		var e event
		switch {
		case len(line) == 0:
		case json.Unmarshal(line, &e) != nil || e.Action == "":
			g.print(string(line))
		default:
			g.take(e)
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading the events of go test: %w", err)
		}
	}
}

func (g *gate) take(e event) {
	if e.Action == "build-output" {
		g.print(e.Output)
		return
	}
	if e.Package == "" {
		return
	}
	p := g.packages[e.Package]
	if p == nil {
		p = &pkg{tests: map[string]*test{}}
		g.packages[e.Package] = p
	}
	if e.Test == "" {
		g.takePackage(p, e)
		return
	}
	t := p.test(e.Test)
	switch e.Action {
	case "output":
		if !isNoise(e.Output) {
			t.lines = append(t.lines, e.Output)
		}
	case "pass", "fail", "skip":
		t.verdict = e.Action
		if g.verbose && !strings.Contains(e.Test, "/") {
			g.print(t.last())
		}
	}
}

// last is the line with its verdict that a test ends with.
func (t *test) last() string {
	if len(t.lines) == 0 {
		return ""
	}
	return t.lines[len(t.lines)-1]
}

// test finds or adds a test, and tells those above it that they have subtests.
func (p *pkg) test(name string) *test {
	t := p.tests[name]
	if t == nil {
		t = &test{}
		p.tests[name] = t
		p.order = append(p.order, name)
	}
	if i := strings.LastIndexByte(name, '/'); i > 0 {
		p.test(name[:i]).parent = true
	}
	return t
}

// takePackage handles what belongs to the package as a whole. Its last event is the verdict.
func (g *gate) takePackage(p *pkg, e event) {
	switch e.Action {
	case "output":
		p.lines = append(p.lines, e.Output)
		if g.verbose {
			g.print(e.Output) // a person watches
		}
	case "skip": // no test files
	case "pass":
		g.count(p, e.Package)
		if !g.verbose {
			g.print(p.lines[max(0, len(p.lines)-1):]...) // ok, package, time
		}
		if len(p.tests) == 0 && !g.selected {
			g.problem("%s has test files and ran no test", e.Package)
		}
		delete(g.packages, e.Package)
	case "fail":
		before := g.failed
		g.count(p, e.Package)
		if g.failed == before {
			g.failed++ // it did not build, or ended outside a test
		}
		g.bad.remember(p, e.Package)
		g.showFailures(p)
		delete(g.packages, e.Package)
	}
}

// count counts the tests that have no subtests, and those that failed although none of their subtests did.
func (g *gate) count(p *pkg, name string) {
	for _, n := range p.order {
		t := p.tests[n]
		switch {
		case t.verdict == "skip":
			g.skipped = append(g.skipped, fmt.Sprintf("%s %s: %s", name, n, reason(t.lines)))
		case t.verdict == "pass" && !t.parent:
			g.passed++
		case t.verdict == "fail" && (!t.parent || !p.subtestFailed(n)), t.verdict == "" && !t.parent:
			g.failed++
		}
	}
}

func (p *pkg) subtestFailed(name string) bool {
	return slices.ContainsFunc(p.order, func(n string) bool {
		return strings.HasPrefix(n, name+"/") && p.tests[n].verdict == "fail"
	})
}

// showFailures prints everything that the failed tests and the package said.
func (g *gate) showFailures(p *pkg) {
	for _, n := range p.order {
		if t := p.tests[n]; t.verdict == "fail" || t.verdict == "" {
			g.print(t.lines...)
		}
	}
	if !g.verbose {
		g.print(p.lines...)
	}
}

// summarize prints what is wrong and the last line; it says whether all is well. goPassed is the go command's view.
func (g *gate) summarize(goPassed bool) bool {
	if g.passed == 0 && g.failed == 0 && goPassed {
		g.problem("no test ran at all")
	}
	slices.Sort(g.skipped)
	for _, s := range g.skipped {
		g.print("SKIP\t", s, "\n")
	}
	if g.strict && len(g.skipped) > 0 {
		g.problem("skipped tests count as failed (CI or STRICT is set)")
	}
	if g.flaky {
		g.bad.say(g.print)
	}
	for _, s := range g.problems {
		g.print("FAIL\t", s, "\n")
	}
	g.print(fmt.Sprintf("%d passed, %d failed, %d skipped\n", g.passed, g.failed, len(g.skipped)))
	return g.failed == 0 && len(g.problems) == 0
}

func (g *gate) problem(format string, args ...any) {
	g.problems = append(g.problems, fmt.Sprintf(format, args...))
}

func (g *gate) print(parts ...string) {
	for _, s := range parts {
		_, _ = io.WriteString(g.out, s) // there is nobody to tell
	}
}

// isNoise recognises the progress lines of verbose mode, which -json implies.
func isNoise(line string) bool {
	for _, prefix := range []string{"=== RUN ", "=== PAUSE ", "=== CONT ", "=== NAME "} {
		if strings.HasPrefix(strings.TrimLeft(line, " "), prefix) {
			return true
		}
	}
	return false
}

// reason is what a skipped test said.
func reason(lines []string) string {
	var said []string
	for _, l := range lines {
		if l = strings.TrimSpace(l); l != "" && !strings.HasPrefix(l, "--- SKIP") {
			said = append(said, l)
		}
	}
	return strings.Join(said, " ")
}
