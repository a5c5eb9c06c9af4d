package inject

import (
	"path"
	"slices"
	"strings"
)

// longestScript is more than people write into a pod.
const longestScript = 16 << 10

// script looks at the text that a shell is given: for the server, or for another script, wherever the name of a program
// may be. args are what "$@" runs.
func script(text string, args guess) guess {
	if len(text) > longestScript {
		return server
	}
	found := client
	for _, words := range commandsIn(text) {
		found = max(found, command(words, args))
	}
	return found
}

// command is about one simple command of a script.
func command(words []string, args guess) guess {
	words = afterKeywords(words)
	if len(words) == 0 {
		return client
	}
	name := path.Base(words[0])
	switch {
	case words[0] == "$@" || words[0] == "$*":
		return args
	case slices.Contains(wrappers(), name):
		return command(words[1+argumentsOf(words[1:]):], args)
	case strings.HasPrefix(words[0], "$"), strings.HasSuffix(name, ".sh"), slices.Contains(servers(), name):
		return program(words)
	case slices.Contains([]string{"sh", "bash", "ash", "dash", "gosu", "su-exec", "su", "runuser", "sudo", "doas"}, name), strings.HasSuffix(name, "entrypoint"):
		return program(words)
	case slices.Contains(clients(), name), slices.Contains(harmless(), name):
		return client
	}
	return unclear
}

// servers are programs that are the server, or start it.
func servers() []string { return []string{"postgres", "postmaster", "pg_ctl", "pg_autoctl", "patroni"} }

// harmless are what else is found in scripts: builtins of shells, and tools that start nothing.
func harmless() []string {
	return strings.Fields(`: [ [[ alias awk basename break cd chgrp chmod chown continue cp curl cut date declare df dirname du exit export false
		find function grep gunzip gzip head hostname id install kill let ln local ls mkdir mktemp mv popd printenv printf pushd pwd read readonly
		return rm rmdir sed set shift shopt sort stat sync tar tee test touch tr trap type ulimit umask uname unset until wait wc wget which whoami
		xargs zstd`)
}

// afterKeywords leaves of a command what stands behind the words of the shell's grammar, assignments and redirections.
func afterKeywords(words []string) []string {
	for len(words) > 0 {
		w := words[0]
		name, _, assigns := strings.Cut(w, "=")
		switch {
		case slices.Contains([]string{"for", "case", "select", "in", "done", "fi", "esac"}, w):
			return nil // what follows are values, or redirections
		case slices.Contains([]string{"if", "then", "elif", "else", "while", "until", "do", "!"}, w):
			words = words[1:]
		case assigns && name != "" && strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+") == "":
			words = words[1:]
		case strings.Trim(w, "0123456789&<>|-") == "" && strings.ContainsAny(w, "<>"):
			words = words[min(2, len(words)):] // and where it goes
		case strings.IndexAny(strings.TrimLeft(w, "0123456789&"), "<>") == 0:
			words = words[1:]
		default:
			return words
		}
	}
	return nil
}
