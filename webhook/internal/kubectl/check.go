package kubectl

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Outcome is what came of a check.
type Outcome string

// The outcomes. Only Failed and Unknown keep a report from being well.
const (
	OK      Outcome = "ok"
	Warning Outcome = "warning"
	Failed  Outcome = "failed"
	Unknown Outcome = "unknown" // could not be told, and may be wrong
)

// Finding is one check.
type Finding struct {
	Section string  `json:"section"`
	About   string  `json:"about"` // what was looked at
	Outcome Outcome `json:"outcome"`
	Text    string  `json:"text,omitempty"`   // what is so
	Remedy  string  `json:"remedy,omitempty"` // what to do about it
}

// Checkup is what Check found, in the order in which it was looked at.
type Checkup struct {
	Findings []Finding `json:"findings"`
}

// Well tells whether nothing failed and everything could be seen.
func (c Checkup) Well() bool {
	for _, f := range c.Findings {
		if f.Outcome == Failed || f.Outcome == Unknown {
			return false
		}
	}
	return true
}

// section collects the findings of one.
type section struct {
	name     string
	findings []Finding
}

func (s *section) add(o Outcome, about, text, remedy string) {
	s.findings = append(s.findings, Finding{Section: s.name, About: about, Outcome: o, Text: text, Remedy: remedy})
}

func (s *section) ok(about, text string) { s.add(OK, about, text, "") }

// unknown notes what could not be told. right is what it takes to tell, such as "get secrets in namespace shop".
func (s *section) unknown(about, right string, err error) {
	remedy := "try again; it takes the right to " + right
	if apierrors.IsForbidden(err) {
		remedy = "ask for the right to " + right + ", or somebody who has it"
	}
	s.add(Unknown, about, "could not be told: "+err.Error(), remedy)
}

// Check looks at the installation and at a namespace, or with "" at all. It changes nothing: what it creates is created
// with a dry run. An error means that nothing could be looked at.
func (c *Cluster) Check(ctx context.Context, namespace string) (Checkup, error) {
	version, err := c.client.Discovery().ServerVersion()
	if err != nil {
		return Checkup{}, fmt.Errorf("asking the API server %s for its version: %w", c.config.Host, err)
	}
	var all Checkup
	add := func(f []Finding) { all.Findings = append(all.Findings, f...) }
	s := &section{name: "kubernetes"}
	judgeVersion(s, version.Major, version.Minor)
	judgeMachine(s, c.clock)
	add(s.findings)
	add(c.checkWebhook(ctx, time.Now()))
	places, err := c.places(ctx, namespace)
	if err != nil {
		return all, err
	}
	conf := c.configuration(ctx)
	add(c.checkPlaces(ctx, places, conf))
	pods, err := c.client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return all, fmt.Errorf("listing pods: %w", err)
	}
	found := databases(places, pods.Items, conf)
	c.ask(ctx, found)
	add(c.checkCredentials(ctx, places, found, conf))
	add(checkDatabases(found, places, conf, time.Now()))
	add(c.checkBudgets(ctx, namespace, found))
	return all, ctx.Err()
}

// Marks of the outcomes on a terminal.
func mark(o Outcome) string {
	switch o {
	case OK:
		return "√"
	case Warning:
		return "‼"
	case Unknown:
		return "?"
	default:
		return "×"
	}
}

// Text writes a checkup for people: by sections, each finding with its remedy, and the sum at the end.
func (c Checkup) Text(w io.Writer) error {
	var b strings.Builder
	last := ""
	counts := map[Outcome]int{}
	for _, f := range c.Findings {
		if f.Section != last {
			if last != "" {
				b.WriteByte('\n')
			}
			fmt.Fprintf(&b, "%s\n%s\n", f.Section, strings.Repeat("-", len(f.Section)))
			last = f.Section
		}
		counts[f.Outcome]++
		line := f.About
		if f.Text != "" {
			line += ": " + f.Text
		}
		fmt.Fprintf(&b, "%s %s\n", mark(f.Outcome), strings.ReplaceAll(line, "\n", "\n    "))
		if f.Remedy != "" {
			fmt.Fprintf(&b, "    → %s\n", strings.ReplaceAll(f.Remedy, "\n", "\n      "))
		}
	}
	fmt.Fprintf(&b, "\n%d checked: %d ok, %d with a warning, %d failed, %d unknown\n",
		len(c.Findings), counts[OK], counts[Warning], counts[Failed], counts[Unknown])
	_, err := io.WriteString(w, b.String())
	return err
}
