package inject

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// A script is looked through for the server, in whatever it is wrapped.
func TestScripts(t *testing.T) {
	for text, want := range map[string]guess{
		"exec env TZ=UTC docker-entrypoint.sh postgres":                                      server,
		"LD_PRELOAD=/usr/lib/libjemalloc.so.2 docker-entrypoint.sh postgres":                 server,
		"if [ -f /x ]; then docker-entrypoint.sh postgres; fi":                               server,
		"exec nice -n 5 postgres":                                                            server,
		"exec nice -n 5 ionice -c 2 -n 0 postgres -D /d":                                     server,
		`su postgres -c "postgres -D /var/lib/postgresql/data"`:                              server,
		`exec su -s /bin/sh postgres -c 'exec postgres'`:                                     server,
		"chown -R 999 /d && exec gosu postgres postgres":                                     server,
		"exec 2>&1\nPGOPTIONS='-c x=y' exec setpriv --reuid=999 postgres":                    server,
		"trap 'kill $!' TERM\ndocker-entrypoint.sh postgres & wait":                          server,
		"( umask 077; postgres ) > /log 2>&1":                                                server,
		"start() { postgres -D /d; }\nstart":                                                 server,
		"case $X in a) exec /usr/lib/postgresql/16/bin/postgres;; esac":                      server,
		"export PGDATA=$(cat /dir)\nexec \\\n  docker-entrypoint.sh postgres -c a=b":         server,
		`exec "$PROGRAM" -D /d`:                                                              server,
		"sh -c 'exec postgres'":                                                              server,
		"while true; do pg_dump -U postgres shop | gzip > /b/$(date +%F).gz; sleep 1d; done": client,
		`psql -U postgres -c "select 1; postgres; select 2"`:                                 client,
		"for db in postgres shop; do pg_dump $db; done":                                      client,
		"# postgres\nsleep infinity":                                                         client,
		"until pg_isready -h db >/dev/null 2>&1; do echo postgres; sleep 1; done":            client,
		"PGPASSWORD=x psql -l":                                                               client,
		"":                                                                                   client,
		"pg_dump shop | aws s3 cp - s3://x":                                                  unclear,
		"start-database":                                                                     unclear,
		". /opt/functions; run":                                                              unclear,
		"pg_dump shop | aws s3 cp - s3://x; postgres":                                        server,
	} {
		if got := runsServer(&corev1.Container{Command: []string{"sh", "-ec", text}}); got != want {
			t.Errorf("%q is taken for %v, want %v\n%q", text, got, want, commandsIn(text))
		}
	}
}

// A known image behind a script that cannot be judged is at least spoken of.
func TestUnclearScriptIsSpokenOf(t *testing.T) {
	for text, want := range map[string]int{"start-database": 1, "postgres-launcher && x": 1, "psql -l": 0} {
		pod := simple("db", "postgres:16")
		pod.Spec.Containers[0].Command = []string{"bash", "-c", text}
		d, err := Pod(pod, testInput())
		if err != nil || d.Reason != NoPostgres || len(d.Warnings) != want {
			t.Errorf("%q is %s, %v, with the warnings %q", text, d.Reason, err, d.Warnings)
		}
	}
	pod := simple("db", "registry.example.com/corp/postgres-custom:1")
	pod.Spec.Containers[0].Command = []string{"sh", "-c", "exec nice -n 5 postgres"}
	if d, err := Pod(pod, testInput()); err != nil || len(d.Warnings) != 1 {
		t.Errorf("an unknown image: %v, %q", err, d.Warnings)
	}
}

// Anybody may send a pod, and one must not take the time of others.
func TestLongCommandsAreJudgedInTime(t *testing.T) {
	for _, part := range []string{"su ", "sudo -u x ", "env ", "a$(b)", "$(", "sh -c ", "for ", "x=1 ", "$@;", "gosu x "} {
		begun := time.Now()
		text := strings.Repeat(part, 1_000_000/len(part))
		_ = program(strings.Fields(text))
		_ = script(text[:longestScript], server)
		if took := time.Since(begun); took > 5*time.Second {
			t.Errorf("%q again and again takes %s", part, took)
		}
	}
}

// Whatever somebody writes there ends in an answer, and the server by itself is found behind it.
func FuzzScript(f *testing.F) {
	for _, s := range []string{"", "1", `"" x`, "5>", "\\", "$(", "a$(b)c)", "'", `"$(x`, "for", "exec", "su", "sudo -u", "env A=b", "{", "#", "2>&1", "&>", "while true; do x; done"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got := script(text, client)
		if got < client || got > server {
			t.Fatalf("%q is taken for %v", text, got)
		}
		if len(text) < 1000 && script("postgres\n"+text, client) != server {
			t.Fatalf("the server is not found before %q", text)
		}
	})
}
