package inject

import (
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// guess is what can be told of a command.
type guess int

const (
	client  guess = iota // it starts no server
	unclear              // a script with programs in it that nobody knows
	server
)

// runsServer tells whether a container with a PostgreSQL image runs the server rather than one of its clients. What
// cannot be told counts as a server: one that is protected for nothing does no harm. Only of a script that has nothing
// in it but programs of others one says that it is unclear.
func runsServer(c *corev1.Container) guess {
	words := slices.Concat(c.Command, c.Args)
	if len(words) == 0 || len(c.Command) == 0 && strings.HasPrefix(words[0], "-") {
		return server
	}
	return program(words)
}

// program is about a command with its arguments.
func program(words []string) guess {
	if len(words) == 0 {
		return server
	}
	name, rest := path.Base(words[0]), words[1:]
	switch {
	case slices.Contains([]string{"sh", "bash", "ash", "dash"}, name):
		return shell(rest)
	case name == "gosu", name == "su-exec":
		return program(rest[min(1, len(rest)):])
	case slices.Contains([]string{"su", "runuser", "sudo", "doas"}, name):
		return switcher(name, rest)
	case slices.Contains(wrappers(), name):
		return program(rest[argumentsOf(rest):])
	case strings.HasSuffix(name, "entrypoint.sh"), strings.HasSuffix(name, "entrypoint"):
		if len(rest) == 0 || strings.HasPrefix(rest[0], "-") {
			return server
		}
		return program(rest)
	case slices.Contains(clients(), name):
		return client
	}
	return server
}

// wrappers run what stands behind them, and their own options.
func wrappers() []string {
	return []string{
		"env", "exec", "nice", "ionice", "chrt", "taskset", "numactl", "nohup", "setsid", "timeout", "stdbuf", "time", "command", "builtin", "eval",
		"tini", "dumb-init", "catatonit", "setpriv", "chpst",
	}
}

// argumentsOf is how many words are a wrapper's own: flags, assignments, numbers.
func argumentsOf(words []string) (n int) {
	own := func(s string) bool {
		return strings.HasPrefix(s, "-") || strings.Contains(s, "=") || strings.Trim(s, "0123456789.,smhd") == ""
	}
	for n < len(words) && own(words[n]) {
		n++
	}
	return n
}

// switcher is about programs that run a command as another user, whom they name in several ways: su USER -c SCRIPT,
// runuser -u USER COMMAND, sudo -u USER COMMAND.
func switcher(name string, words []string) guess {
	named := name == "sudo" || name == "doas"
	for ; len(words) > 0; words = words[1:] {
		w := words[0]
		switch {
		case (w == "-c" || w == "--command") && name != "sudo" && name != "doas":
			return script(strings.Join(words[1:min(2, len(words))], ""), server)
		case slices.Contains([]string{"-u", "-g", "-G", "-s", "-w", "--user", "--group", "--shell"}, w):
			named = true
			words = words[min(1, len(words)-1):] // with its value
		case strings.HasPrefix(w, "-"), strings.Contains(w, "="):
		case !named:
			named = true
		default:
			return program(words)
		}
	}
	return client // waiting for a person to type
}

// clients are programs in PostgreSQL images that people start in place of the server.
func clients() []string {
	return []string{
		"psql", "pg_dump", "pg_dumpall", "pg_restore", "pg_basebackup", "pg_receivewal", "pg_isready", "pgbench", "pg_verifybackup",
		"createdb", "dropdb", "createuser", "dropuser", "vacuumdb", "reindexdb", "clusterdb", "sleep", "tail", "cat", "true", "echo",
	}
}

// shell looks at what a shell is told to do.
func shell(words []string) guess {
	for i, w := range words {
		if !strings.HasPrefix(w, "-") {
			return server // a script in a file
		}
		if strings.Contains(w, "c") && !strings.HasPrefix(w, "--") && i+1 < len(words) {
			return script(words[i+1], program(words[min(i+3, len(words)):])) // behind $0
		}
	}
	return client // waiting for a person to type
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
