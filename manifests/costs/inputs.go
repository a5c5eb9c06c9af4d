package main

import (
	"encoding/csv"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
)

// input is one line of inputs.csv.
type input struct {
	name    string
	value   float64
	text    string // value as it was written
	unit    string
	from    string // yours, list, assumed, measured, default; empty for what is no matter of opinion
	meaning string
}

// inputs are all of them by name and in the order of the file.
type inputs struct {
	all    []input
	byName map[string]float64
}

var columns = []string{"name", "value", "unit", "from", "meaning"} //nolint:gochecknoglobals // a constant, if Go had such

// read takes inputs.csv apart. Every name that the calculation knows must be there once, and no other: a misspelled one would
// otherwise leave its default in force unseen.
func read(r io.Reader, known []string) (inputs, error) {
	in := inputs{byName: map[string]float64{}}
	records, err := csv.NewReader(r).ReadAll()
	if err != nil {
		return in, fmt.Errorf("reading the inputs: %w", err)
	}
	if len(records) == 0 || !slices.Equal(records[0], columns) {
		return in, fmt.Errorf("the first line of the inputs is not %s", strings.Join(columns, ","))
	}
	for i, rec := range records[1:] {
		value, err := strconv.ParseFloat(rec[1], 64)
		if err != nil || math.IsNaN(value) || math.IsInf(value, 0) || value < 0 {
			return in, fmt.Errorf("record %d, %s: %q is no number of 0 or more", i+2, rec[0], rec[1])
		}
		if _, twice := in.byName[rec[0]]; twice {
			return in, fmt.Errorf("record %d: %s is there twice", i+2, rec[0])
		}
		if !slices.Contains(known, rec[0]) {
			return in, fmt.Errorf("record %d: nothing is called %q here; there are %s", i+2, rec[0], strings.Join(known, ", "))
		}
		in.byName[rec[0]] = value
		in.all = append(in.all, input{name: rec[0], value: value, text: rec[1], unit: rec[2], from: rec[3], meaning: rec[4]})
	}
	for _, name := range known {
		if _, ok := in.byName[name]; !ok {
			return in, fmt.Errorf("%s is missing in the inputs", name)
		}
	}
	return in, nil
}

// markdown is the table of the inputs.
func (in inputs) markdown() string {
	var b strings.Builder
	b.WriteString("| input | value | from | meaning |\n|---|---|---|---|\n")
	for _, i := range in.all {
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", i.name, strings.TrimSpace(i.text+" "+i.unit), i.from, i.meaning)
	}
	return b.String()
}
