package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"outrider.dev/sidecar/policy"
	"outrider.dev/webhook/internal/inject"
)

// injectFlags are those of `outrider-webhook inject`.
type injectFlags struct {
	file, config, namespace, output string
	annotations                     []string
	explain                         bool
}

func newInjectCommand(a *app) *cobra.Command {
	var f injectFlags
	cmd := &cobra.Command{
		Use:   "inject -f FILE",
		Short: "Show what the webhook would change in pods and workloads, and why not",
		Long: "Reads YAML with Pods, StatefulSets, Deployments, Jobs, CronJobs and Namespaces and prints the pods as the webhook would make\n" +
			"them, the first of a StatefulSet and one of each other workload. What the API server adds before and after is not there. No cluster\n" +
			"is asked. Exits with 7 if something would be refused.",
		Args: noArgs,
		RunE: func(*cobra.Command, []string) error { return a.inject(f) },
	}
	fs := cmd.Flags()
	fs.StringVarP(&f.file, "filename", "f", "", "file to read, - for standard input")
	fs.StringVar(&f.config, "config", "", "configuration file of the webhook")
	fs.StringVarP(&f.namespace, "namespace", "n", "default", "namespace of objects that name none")
	fs.StringArrayVar(&f.annotations, "namespace-annotations", nil, "KEY=VALUE: annotation of that namespace; may be repeated")
	fs.StringVarP(&f.output, "output", "o", "yaml", "yaml for the changed pods, patch for what the webhook would answer")
	fs.BoolVar(&f.explain, "explain", false, "say where each value of the policy comes from")
	return cmd
}

// inject prints what would become of each object of a file.
func (a *app) inject(f injectFlags) error {
	if f.file == "" {
		return fmt.Errorf("%w: name the file to read with -f, - for standard input", errUsage)
	}
	if f.output != "yaml" && f.output != "patch" {
		return fmt.Errorf("%w: output %q: expected yaml or patch", errUsage, f.output)
	}
	c, err := readConfig(f.config)
	if err != nil {
		return err
	}
	namespaces, err := f.namespaceAnnotations()
	if err != nil {
		return err
	}
	raw, err := a.read(f.file)
	if err != nil {
		return err
	}
	objects, err := parse(raw, f.namespace)
	if err != nil {
		return fmt.Errorf("%w: reading %s: %w", errUsage, f.file, err)
	}
	for _, o := range objects {
		if o.annotations != nil && namespaces[o.name] == nil {
			namespaces[o.name] = o.annotations
		}
	}
	var refused bool
	for _, o := range objects {
		if o.annotations != nil {
			continue
		}
		d, err := o.decide(c.input(o.namespace, namespaces[o.namespace]))
		refused = refused || err != nil
		if perr := a.report(o, d, err, f); perr != nil {
			return perr
		}
	}
	if refused {
		return errRefused
	}
	return nil
}

// namespaceAnnotations are the annotations given on the command line, by namespace.
func (f injectFlags) namespaceAnnotations() (map[string]map[string]string, error) {
	all := map[string]map[string]string{}
	for _, s := range f.annotations {
		key, value, ok := strings.Cut(s, "=")
		if !ok {
			return nil, fmt.Errorf("%w: --namespace-annotations %q: expected KEY=VALUE", errUsage, s)
		}
		if all[f.namespace] == nil {
			all[f.namespace] = map[string]string{}
		}
		all[f.namespace][key] = value
	}
	return all, nil
}

func (a *app) read(file string) ([]byte, error) {
	if file == "-" {
		b, err := io.ReadAll(a.stdin)
		if err != nil {
			return nil, fmt.Errorf("reading standard input: %w", err)
		}
		return b, nil
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("%w: reading the objects: %w", errUsage, err)
	}
	return b, nil
}

// report prints one object: comments that say what was decided, then what was asked for.
func (a *app) report(o object, d inject.Decision, refusal error, f injectFlags) error {
	var b bytes.Buffer
	fmt.Fprintf(&b, "---\n# %s %s/%s: %s\n", o.kind, o.namespace, o.name, d.Reason)
	if refusal != nil {
		comment(&b, "", refusal.Error())
	}
	for _, w := range d.Warnings {
		comment(&b, "warning: ", w)
	}
	if f.explain && d.Reason == inject.Injected {
		comment(&b, "", policy.Explain(d.Policy, d.Sources))
	}
	if d.Pod != nil {
		out, err := render(o.pod, d.Pod, f.output)
		if err != nil {
			return err
		}
		b.Write(out)
	}
	if _, err := a.stdout.Write(b.Bytes()); err != nil {
		return fmt.Errorf("writing the answer: %w", err)
	}
	return nil
}

func comment(b *bytes.Buffer, prefix, text string) {
	for line := range strings.SplitSeq(strings.TrimSpace(text), "\n") {
		fmt.Fprintf(b, "# %s%s\n", prefix, line)
	}
}

func render(before, after *corev1.Pod, output string) ([]byte, error) {
	if output == "yaml" {
		b, err := yaml.Marshal(after)
		if err != nil {
			return nil, fmt.Errorf("encoding pod %s: %w", after.Name, err)
		}
		return b, nil
	}
	ops, err := inject.Patch(before, after)
	if err != nil {
		return nil, err
	}
	b, err := json.MarshalIndent(ops, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encoding the patch of pod %s: %w", before.Name, err)
	}
	return append(b, '\n'), nil
}
