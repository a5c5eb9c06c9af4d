// Costs compares what a month costs: databases on nodes by subscription, as pay-as-you-go, and on spot nodes with their archive
// in OSS.
//
//	go run ./manifests/costs -inputs my.csv
package main

import (
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
)

//go:embed inputs.csv
var defaults string

func main() {
	if err := run(os.Args[1:], os.Stdout, os.Stderr); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "costs:", err)
		os.Exit(1)
	}
}

func run(args []string, out, messages io.Writer) error {
	flags := flag.NewFlagSet("costs", flag.ContinueOnError)
	flags.SetOutput(messages)
	path := flags.String("inputs", "", "a file in the form of manifests/costs/inputs.csv, which is taken without it")
	if err := flags.Parse(args); err != nil {
		return err
	}
	var source io.Reader = strings.NewReader(defaults)
	if *path != "" {
		f, err := os.Open(*path)
		if err != nil {
			return fmt.Errorf("opening the inputs: %w", err)
		}
		defer f.Close()
		source = f
	}
	in, err := read(source, known())
	if err != nil {
		return err
	}
	if in.byName["segment"] <= 0 || in.byName["part"] <= 0 {
		return errors.New("segment and part are divided by: more than 0")
	}
	_, err = io.WriteString(out, compute(in.byName).markdown())
	return err
}
