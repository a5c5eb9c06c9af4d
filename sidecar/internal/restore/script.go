package restore

import (
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// exitAbsent is how the script says that there is no such file. It is not 1 because shells exit with 1, 2, 126 or 127
// for reasons of their own, such as the script not being there: PostgreSQL takes all up to 125 for "no such file",
// ends recovery and promotes. RestoreArchivedFile, src/backend/access/transam/xlogarchive.c.
const exitAbsent = 42

// exitGiveUp makes PostgreSQL stop instead of going on without the file.
const exitGiveUp = 200

// fetchScript is run as `sh script NAME TARGET SERVER`, where SERVER is the process that asked.
const fetchScript = `# Written by outrider, run by PostgreSQL as restore_command while it recovers: hands over the WAL that outrider lays into
# this directory. It waits for a file that is yet to come.
# Exit status: 0 copied, 42 there is no such file, anything else means that recovery must not go on without it.

spool=${0%/*} name=$1 target=$2 server=$3
patience=@PATIENCE@ # seconds to wait while nobody is seen to fill this directory

say() { printf 'outrider: %s\n' "$*" >&2; }

# lists FILE: whether the file is there and does not list the name.
excluded_by() {
	[ -f "$spool/$1" ] || return 1
	while read -r line; do
		[ "$line" = "$name" ] && return 1
	done <"$spool/$1"
	return 0
}

case $name in
*/* | '') say "'$name' is not the name of a WAL file"; exit 200 ;;
*.history) list=HISTORIES ;;
*) list=END ;;
esac

polls=0 waited=0 seen=
while :; do
	# The file exists already, for everybody to write to: the server may be another user.
	[ "$list" = END ] && [ -w "$spool/ASKED" ] && printf '%s\n' "$name" >"$spool/ASKED"
	if [ -f "$spool/$name" ]; then
		cp "$spool/$name" "$target" && exit 0
		say "could not copy $spool/$name to $target"
		exit 200
	fi
	excluded_by "$list" && exit 42
	if [ -f "$spool/FAILED" ]; then
		while read -r line; do say "$line"; done <"$spool/FAILED"
		exit 200
	fi
	# The server may have been killed. Another one may want to write the same target by now.
	[ -z "$server" ] || kill -0 "$server" 2>/dev/null || exit 200
	alive=
	[ -f "$spool/ALIVE" ] && read -r alive <"$spool/ALIVE"
	if [ "$alive" != "$seen" ]; then
		seen=$alive waited=0
	elif [ "$waited" -ge "$patience" ]; then
		say "$name is not there, and nobody has been filling $spool for $waited s: is outrider running?"
		exit 200
	fi
	if [ "$polls" -lt 10 ]; then
		polls=$((polls + 1))
		sleep 0.1 2>/dev/null || { sleep 1; waited=$((waited + 1)); }
	else
		sleep 1
		waited=$((waited + 1))
	fi
done
`

func scriptText(patience time.Duration) string {
	seconds := max(1, int(patience.Round(time.Second)/time.Second))
	return strings.Replace(fetchScript, "@PATIENCE@", strconv.Itoa(seconds), 1)
}

// restoreCommand is the value of restore_command for a spool. The spool's path is what the server sees, or relative to
// its data directory, which is its working directory.
func restoreCommand(spool string) (string, error) {
	script := filepath.Join(spool, scriptFile)
	if strings.ContainsAny(script, "\n\r\x00") {
		return "", errors.New("the path of the spool contains a line break: choose another one")
	}
	if !filepath.IsAbs(script) && strings.HasPrefix(script, "-") {
		script = "./" + script
	}
	quoted := "'" + strings.ReplaceAll(script, "'", `'\''`) + "'"
	quoted = strings.ReplaceAll(quoted, "%", "%%") // PostgreSQL replaces %f and %p
	return fmt.Sprintf(`sh %s "%%f" "%%p" "$PPID"; r=$?; case $r in 0) exit 0;; %d) exit 1;; *) exit %d;; esac`,
		quoted, exitAbsent, exitGiveUp), nil
}
