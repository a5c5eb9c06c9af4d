package inject

import (
	"path"
	"regexp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// runsServer tells whether a container with a PostgreSQL image runs the server rather than one of its clients. What
// cannot be told counts as a server: one that is protected for nothing does no harm.
func runsServer(c *corev1.Container) bool {
	words := slices.Concat(c.Command, c.Args)
	if len(words) == 0 || len(c.Command) == 0 && strings.HasPrefix(words[0], "-") {
		return true
	}
	return program(words)
}

func program(words []string) bool {
	if len(words) == 0 {
		return true
	}
	name, rest := path.Base(words[0]), words[1:]
	switch name {
	case "sh", "bash", "ash", "dash":
		return shell(rest)
	case "gosu", "su-exec":
		return program(rest[min(1, len(rest)):])
	case "env", "exec", "nice", "tini", "dumb-init", "catatonit":
		return program(slices.DeleteFunc(slices.Clone(rest), func(s string) bool { return strings.HasPrefix(s, "-") || strings.Contains(s, "=") }))
	}
	if strings.HasSuffix(name, "entrypoint.sh") {
		return len(rest) == 0 || strings.HasPrefix(rest[0], "-") || program(rest)
	}
	return !slices.Contains(clients(), name)
}

// clients are programs in PostgreSQL images that people start in place of the server.
func clients() []string {
	return []string{
		"psql", "pg_dump", "pg_dumpall", "pg_restore", "pg_basebackup", "pg_receivewal", "pg_isready", "pgbench", "pg_verifybackup",
		"createdb", "dropdb", "createuser", "dropuser", "vacuumdb", "reindexdb", "clusterdb", "sleep", "tail", "cat", "true", "echo",
	}
}

// shell looks at what a shell is told to do.
func shell(words []string) bool {
	for i, w := range words {
		if !strings.HasPrefix(w, "-") {
			return true // a script in a file
		}
		if strings.Contains(w, "c") && !strings.HasPrefix(w, "--") && i+1 < len(words) {
			return script(words[i+1])
		}
	}
	return false // waiting for a person to type
}

// script looks for the server, or for another script, where the name of a program may be.
func script(s string) bool {
	return regexp.MustCompile(`(?m)(?:^|[;&|({]|\bexec|\b(?:gosu|su-exec)\s+\S+)\s*"?(?:\S*/)?(?:\S+\.sh|postgres|postmaster|pg_ctl|pg_autoctl|patroni)"?(?:\s|[;&|)]|$)`).MatchString(s)
}

// serverFlags are settings on the server's command line that say where it is.
type serverFlags struct {
	port string
	data string // -D or data_directory; "?" if it is there and cannot be told
}

// flagsOf reads the command line. A flag in a shell's script is found as well if it is written plainly.
func flagsOf(c *corev1.Container) serverFlags {
	var words []string
	for _, w := range slices.Concat(c.Command, c.Args) {
		if strings.ContainsAny(w, " \n") {
			words = append(words, strings.Fields(w)...)
			continue
		}
		words = append(words, w)
	}
	var f serverFlags
	for i, w := range words {
		next := ""
		if i+1 < len(words) {
			next = words[i+1]
		}
		switch {
		case w == "-p":
			f.set("port", next)
		case w == "-D":
			f.set("data_directory", next)
		case w == "-c":
			f.assign(next)
		case strings.HasPrefix(w, "--"):
			f.assign(w[2:])
		case strings.HasPrefix(w, "-D"):
			f.set("data_directory", w[2:])
		case strings.HasPrefix(w, "-p"):
			f.set("port", w[2:])
		case strings.HasPrefix(w, "-c"):
			f.assign(w[2:])
		}
	}
	return f
}

func (f *serverFlags) assign(s string) {
	if name, value, ok := strings.Cut(strings.Trim(s, `"'`), "="); ok {
		f.set(strings.ReplaceAll(name, "-", "_"), value)
	}
}

func (f *serverFlags) set(name, value string) {
	value = strings.Trim(value, `"'`)
	switch name {
	case "port":
		if value != "" && strings.Trim(value, "0123456789") == "" {
			f.port = value
		}
	case "data_directory", "pgdata":
		switch value {
		case "", "$PGDATA", "${PGDATA}", "$(PGDATA)":
			// What the variable says, which is looked at anyway.
		default:
			f.data = value
			if strings.Contains(value, "$") || !path.IsAbs(value) {
				f.data = "?"
			}
		}
	}
}
