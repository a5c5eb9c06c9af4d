package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"
)

// The forms of output.
const (
	outputText = "text"
	outputJSON = "json"
)

// outputFlag adds -o to a command whose output a machine may want to read.
func (a *app) outputFlag(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&a.output, "output", "o", outputText, "text for people, json for machines")
	cmd.PreRunE = func(*cobra.Command, []string) error {
		if a.output != outputText && a.output != outputJSON {
			return usagef("-o %s: expected text or json", a.output)
		}
		return nil
	}
}

// show writes v as JSON, or what text writes, as -o asks for.
func (a *app) show(v any, text func(w io.Writer)) error {
	if a.output == outputJSON {
		e := json.NewEncoder(a.stdout)
		e.SetIndent("", "  ")
		return e.Encode(v)
	}
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	text(w)
	if err := w.Flush(); err != nil {
		return err
	}
	// The writer pads the last column as well.
	for line := range strings.Lines(b.String()) {
		if _, err := fmt.Fprintln(a.stdout, strings.TrimRight(line, " \n")); err != nil {
			return err
		}
	}
	return nil
}

// row writes one row of a table.
func row(w io.Writer, cells ...any) {
	for i, c := range cells {
		if i > 0 {
			fmt.Fprint(w, "\t")
		}
		fmt.Fprint(w, c)
	}
	fmt.Fprintln(w)
}

// bytesText is a size for people; a dash if it is not known.
func bytesText(n int64) string {
	if n <= 0 {
		return "-"
	}
	return humanize.IBytes(uint64(n))
}

// timeText is a time for people, in UTC; a dash if it is not known.
func timeText(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format("2006-01-02 15:04:05Z")
}
