package policy

import (
	"fmt"
	"strings"
	"text/tabwriter"
)

// Explain is a table for people: every key, its value, and where the value comes from.
func Explain(p Policy, sources Sources) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "KEY\tVALUE\tFROM")
	for _, f := range fields() {
		v, from := f.get(&p), sources[f.Name]
		if from == "" {
			v, from = "("+strings.ReplaceAll(f.Unset, "`", "")+")", "unset"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\n", f.Name, v, from)
	}
	// Neither the writer's flush nor a strings.Builder can err.
	_ = w.Flush()
	return b.String()
}

// Table is the documentation of all keys as a Markdown table.
func Table() string {
	var b strings.Builder
	b.WriteString("| key | variable | values | default | meaning |\n|---|---|---|---|---|\n")
	for _, k := range Keys() {
		fallback := k.Unset
		if k.Default != "" {
			fallback = "`" + k.Default + "`"
		}
		doc := k.Doc
		if k.PodOnly {
			doc += " (on pods only)"
		}
		fmt.Fprintf(&b, "| `%s` | `%s` | %s | %s | %s |\n", k.Name, k.Env, k.Form, fallback, doc)
	}
	return b.String()
}
