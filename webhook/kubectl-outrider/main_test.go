package main

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"

	"outrider.dev/webhook/internal/kubectl"
)

// run calls the program without any cluster.
func run(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	t.Setenv("KUBECONFIG", t.TempDir()+"/none")
	var out, errs strings.Builder
	code = execute(t.Context(), args, &out, &errs)
	return code, out.String(), errs.String()
}

func TestUsage(t *testing.T) {
	for _, test := range []struct {
		args string
		code int
		text string
	}{
		{"", exitOK, "Available Commands"},
		{"statsu", exitUsage, "statsu"},
		{"status extra", exitUsage, "takes no argument"},
		{"status -o text", exitUsage, "wide, json, yaml"},
		{"check -o wide", exitUsage, "json, yaml"},
		{"why a b", exitUsage, "one pod or workload"},
		{"list --full", exitUsage, "unknown flag"},
		{"status --kubeconfig /no/such/file", exitOther, "reading the kubeconfig"},
	} {
		code, stdout, stderr := run(t, strings.Fields(test.args)...)
		if code != test.code || !strings.Contains(stdout+stderr, test.text) {
			t.Errorf("%q: exit code %d, want %d, and %q in\n%s%s", test.args, code, test.code, test.text, stdout, stderr)
		}
	}
}

// TestForwardedFlags: what was given for the command goes to the pod, what says which cluster stays here.
func TestForwardedFlags(t *testing.T) {
	for args, want := range map[string][]string{
		"why -n shop --epoch 3 --context c orders-0 -o json": {"--epoch=3", "--output=json"},
		"why orders-0":           nil,
		"backup --full orders-0": {"--full=true"},
	} {
		fields := strings.Fields(args)
		var a app
		cmd := map[string]func(*app) *cobra.Command{"why": newWhyCommand, "backup": newBackupCommand}[fields[0]](&a)
		root := &cobra.Command{Use: "root"}
		root.PersistentFlags().StringP("namespace", "n", "", "")
		root.PersistentFlags().String("context", "", "")
		root.AddCommand(cmd)
		var got []string
		cmd.RunE = func(cmd *cobra.Command, _ []string) error {
			got = forwarded(cmd)
			return nil
		}
		root.SetArgs(fields)
		if err := root.ExecuteContext(t.Context()); err != nil {
			t.Fatal(err)
		}
		slices.Sort(got)
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s: -want +got\n%s", args, d)
		}
	}
}

// TestAPodThatCannotBeAsked: what a command in the pod has said stays as it is, and only one that did not run is explained.
func TestAPodThatCannotBeAsked(t *testing.T) {
	gone, ran := errors.New("container not found"), kubectl.ExitError{Code: 5}
	for _, test := range []struct {
		err  error
		hint string
		want string
	}{
		{nil, "it restores", ""},
		{gone, "", "container not found"},
		{gone, "it restores", "it restores: container not found"},
		{ran, "it restores", "it ended with exit code 5"},
	} {
		got := ""
		if err := explained(test.err, test.hint); err != nil {
			got = err.Error()
		}
		if got != test.want {
			t.Errorf("%v, explained by %q: %q, want %q", test.err, test.hint, got, test.want)
		}
	}
}
