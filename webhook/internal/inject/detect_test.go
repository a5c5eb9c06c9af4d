package inject

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"outrider.dev/sidecar/policy"
)

func TestImagesAreKnownWhateverTheRegistry(t *testing.T) {
	library := func(major int, start, uid int64) layout {
		l := layout{family: libraryImage, major: major, start: start, uid: uid, gid: uid, pgdata: "/var/lib/postgresql/data", volume: "/var/lib/postgresql/data"}
		switch major {
		case 0:
			l.pgdata, l.volume = "", ""
		case 18:
			l.pgdata, l.volume = "/var/lib/postgresql/18/docker", "/var/lib/postgresql"
		}
		l.home = l.volume
		return l
	}
	ha := func(major int) layout {
		return layout{family: haImage, major: major, pgdata: "/home/postgres/pgdata/data", home: "/home/postgres/pgdata", start: 1000, uid: 1000, gid: 1000}
	}
	bitnami := func(major int) layout {
		return layout{family: bitnamiImage, major: major, pgdata: "/bitnami/postgresql/data", home: "/bitnami/postgresql", volume: "/bitnami/postgresql", start: 1001, uid: 1001}
	}
	none := layout{start: unknown, uid: unknown, gid: unknown}
	for image, want := range map[string]layout{
		"postgres:16":                   library(16, 0, 999),
		"postgres:14.9-bookworm":        library(14, 0, 999),
		"postgres:17-alpine3.20":        library(17, 0, 70),
		"postgres:18":                   library(18, 0, 999),
		"postgres":                      library(0, 0, 999),
		"postgres:latest":               library(0, 0, 999),
		"postgres@sha256:abc":           library(0, 0, unknown),
		"postgres:16@sha256:abc":        library(16, 0, 999),
		"docker.io/library/postgres:15": library(15, 0, 999),
		"registry.example.com:5000/mirror/library/postgres:15": library(15, 0, 999),
		"localhost/postgres:15":                                library(15, 0, 999),
		"team/postgres:15":                                     library(15, unknown, unknown),
		"registry.example.com/team/postgres:15":                library(15, unknown, unknown),
		"pgvector/pgvector:0.8.0-pg17":                         library(17, 0, 999),
		"postgis/postgis:16-3.4-alpine":                        library(16, 0, 70),
		"timescale/timescaledb:2.17.2-pg16":                    library(16, 0, 70),
		"timescale/timescaledb:latest-pg18-oss":                library(18, 0, 70),
		"ghcr.io/x/timescaledb:2.17.2-pg16":                    library(16, unknown, unknown),
		"timescale/timescaledb-ha:pg17.4-ts2.18.2-all":         ha(17),
		"registry.example.com/timescaledb-ha:pg16":             ha(16),
		"bitnami/postgresql:17.5.0-debian-12-r3":               bitnami(17),
		"bitnamilegacy/postgresql:16":                          bitnami(16),
		"registry.example.com/bitnamisecure/postgresql":        bitnami(0),
		"timescale/timescaledb:2.9.1-pg14-bitnami":             bitnami(14),
		"registry.example.com/postgresql:16":                   none,
		"ghcr.io/cloudnative-pg/postgresql:16":                 none,
		"cgr.dev/chainguard/postgres:latest":                   none,
		"prometheuscommunity/postgres-exporter":                none,
		"bitnami/postgresql-repmgr:16":                         none,
		"nginx":                                                none,
	} {
		if got := layoutOf(&corev1.Container{Image: image}); got != want {
			t.Errorf("%s:\n got %+v\nwant %+v", image, got, want)
		}
	}
}

func TestServersAreToldFromClients(t *testing.T) {
	words := func(s ...string) []string { return s }
	for _, c := range []struct {
		command, args []string
		want          guess
	}{
		{nil, nil, server},
		{nil, words("-c", "max_connections=10"), server},
		{nil, words("postgres", "-p", "1"), server},
		{nil, words("psql", "-h", "db"), client},
		{nil, words("bash"), client},
		{words("sleep"), words("infinity"), client},
		{words("/usr/bin/pg_dump"), nil, client},
		{words("docker-entrypoint.sh"), words("postgres"), server},
		{words("docker-entrypoint.sh"), words("psql"), client},
		{words("/opt/bitnami/scripts/postgresql/entrypoint.sh"), words("/opt/bitnami/scripts/postgresql/run.sh"), server},
		{words("gosu", "postgres", "postgres"), words("-D", "/d"), server},
		{words("env", "A=b", "psql"), nil, client},
		{words("tini", "--", "docker-entrypoint.sh"), words("postgres"), server},
		{words("sh", "-c", "pg_dump -U postgres shop | gzip"), nil, client},
		{words("sh", "-c", "exec postgres -c x=y"), nil, server},
		{words("bash", "-euxc", "umask 077\ndocker-entrypoint.sh postgres"), nil, server},
		{words("sh", "-c"), words("cp /conf/* /etc/pg && gosu postgres postgres"), server},
		{words("sh", "-c", "/scripts/start.sh"), nil, server},
		{words("sh", "/scripts/start"), nil, server},
		{words("/scripts/start"), nil, server},
		{words("sh", "-c", "while ! pg_isready -U postgres; do sleep 1; done"), nil, client},
		{words("patroni", "/etc/patroni.yml"), nil, server},
		{words("su", "postgres", "-c", "postgres -D /d"), nil, server},
		{words("su", "-", "postgres", "-c", "psql -l"), nil, client},
		{words("sudo", "-u", "postgres", "psql", "-c", "select 1"), nil, client},
		{words("runuser", "-u", "postgres", "--", "postgres", "-D", "/d"), nil, server},
		{words("nice", "-n", "5", "postgres"), nil, server},
		{words("sh", "-c", `exec "$@"`, "sh"), words("postgres"), server},
		{words("sh", "-c", `exec "$@"`, "sh"), words("psql", "-l"), client},
	} {
		if got := runsServer(&corev1.Container{Command: c.command, Args: c.args}); got != c.want {
			t.Errorf("command %q with arguments %q is taken for %v, want %v", c.command, c.args, got, c.want)
		}
	}
}

func TestServerFlags(t *testing.T) {
	for line, want := range map[string]serverFlags{
		"postgres":                            {},
		"postgres -p 1":                       {port: "1"},
		"postgres -p1":                        {port: "1"},
		"postgres -c port=2":                  {port: "2"},
		"postgres --port=3":                   {port: "3"},
		"postgres -c data_directory=/a":       {data: "/a"},
		"postgres --data-directory=/b":        {data: "/b"},
		"postgres -D /c -c port=x":            {data: "/c"},
		"postgres -D/d":                       {data: "/d"},
		"postgres -D $PGDATA":                 {},
		"postgres -D $HOME/x":                 {data: "?"},
		"postgres -D relative":                {data: "?"},
		"postgres -c config_file=/etc/x":      {},
		"postgres -c 'port=7' -D \"/e\" -d 5": {port: "7", data: "/e"},
	} {
		split := &corev1.Container{Args: strings.Fields(line)}
		script := &corev1.Container{Command: []string{"sh", "-c", line}}
		if line == "postgres -c 'port=7' -D \"/e\" -d 5" {
			split = script // quotes are the shell's
		}
		for _, c := range []*corev1.Container{split, script} {
			if diff := cmp.Diff(want, flagsOf(c), cmp.AllowUnexported(serverFlags{})); diff != "" {
				t.Errorf("%q %q (-want +got):\n%s", c.Command, c.Args, diff)
			}
		}
	}
}

func TestBitnamiTagsThatKeepTheSignal(t *testing.T) {
	for tag, want := range map[string]bool{
		"17.4.0-debian-12-r1": false, "17.5.0-debian-12-r1": true, "16.8.0": false, "16.9.0": true, "14.17.0": false, "14.18.0": true,
		"18.0.0": true, "12.20.0": false, "": true, "latest": true, "17": true,
	} {
		if got := keepsSignal(tag); got != want {
			t.Errorf("%q: %v, want %v", tag, got, want)
		}
	}
}

func simple(name, image string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "shop"},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: image}}},
	}
}

// A mistake on the namespace must not keep its other pods from starting, nor let a database start without protection.
func TestMistakeOnNamespace(t *testing.T) {
	in := testInput()
	in.Levels = []policy.Level{policy.Namespace("shop", map[string]string{"outrider.dev/archive": "s3://wrong"})}
	if d, err := Pod(simple("web", "nginx"), in); err != nil || d.Reason != NoPostgres {
		t.Errorf("a web server is %s: %v", d.Reason, err)
	}
	d, err := Pod(simple("db", "postgres:16"), in)
	if d.Reason != BadPolicy || err == nil || !strings.Contains(err.Error(), "namespace shop: outrider.dev/archive") {
		t.Errorf("a database is %s: %v", d.Reason, err)
	}
	asked := simple("tool", "tool")
	asked.Annotations = map[string]string{"outrider.dev/rpo": "1s"}
	if d, err := Pod(asked, in); d.Reason != BadPolicy || err == nil {
		t.Errorf("a pod with annotations of ours is %s: %v", d.Reason, err)
	}
}

// An image of the house is known by the container's name alone. It must not start empty because somebody misspelt another key.
func TestMistakeBesideTheContainersName(t *testing.T) {
	in := testInput()
	in.Levels = []policy.Level{policy.Namespace("shop", map[string]string{"outrider.dev/container": "main", "outrider.dev/retenton": "7d"})}
	d, err := Pod(simple("db", "corp/database:3"), in)
	if d.Reason != BadPolicy || err == nil || !strings.Contains(err.Error(), "outrider.dev/retenton") {
		t.Errorf("the pod with the container is %s: %v", d.Reason, err)
	}
	other := simple("web", "nginx")
	other.Spec.Containers[0].Name = "web"
	if d, err := Pod(other, in); err != nil || d.Reason != NoPostgres || len(d.Warnings) != 0 {
		t.Errorf("a pod without it is %s: %v, %q", d.Reason, err, d.Warnings)
	}
	other.Spec.Containers[0].Image = "corp/postgres-custom:1"
	if d, err := Pod(other, in); err != nil || len(d.Warnings) != 1 {
		t.Errorf("what looks like PostgreSQL is %s: %v, %q", d.Reason, err, d.Warnings)
	}
}

// Who is warned for nothing looks no more, and who is not warned never knew.
func TestWhatLooksLikePostgreSQL(t *testing.T) {
	for image, want := range map[string]bool{
		"corp/postgres-custom:1":                true,
		"ghcr.io/cloudnative-pg/postgresql:17":  true,
		"corp/timescale:2":                      true,
		"ghcr.io/zalando/spilo-16:3.2":          true,
		"corp/postgres-metadata:1":              true, // not the word meta
		"corp/metapostgres:1":                   true,
		"corp/migration/postgres-custom:1":      true, // of the path only the end is looked at
		"postgrest/postgrest:v12":               false,
		"corp/postgrest-openapi:1":              false,
		"supabase/postgres-meta:v0.84":          false,
		"corp/meta_postgres:1":                  false,
		"crystaldba/postgres-mcp":               false,
		"corp/postgres-migrations:3":            false,
		"corp/migrate-postgres:3":               false,
		"prometheuscommunity/postgres-exporter": false,
		"nginx":                                 false,
	} {
		if got := looksLikePostgres(&corev1.Container{Image: image}); got != want {
			t.Errorf("%s looks like PostgreSQL: %t, want %t", image, got, want)
		}
	}
	told := corev1.Container{Image: "corp/postgres-meta:1", Env: []corev1.EnvVar{{Name: "PGDATA", Value: "/data"}}}
	if !looksLikePostgres(&told) {
		t.Error("what has a data directory does not look like PostgreSQL because of its name")
	}
}

// The container's name on the namespace is a default for the pods that have such a container.
func TestContainerNamedOnNamespace(t *testing.T) {
	in := testInput()
	in.Levels = append(in.Levels, policy.Namespace("shop", map[string]string{"outrider.dev/container": "main", "outrider.dev/pgdata": "/srv/pg"}))
	if d, err := Pod(simple("db", "special"), in); d.Reason != DataUnreachable || err == nil {
		t.Errorf("the named container is %s: %v", d.Reason, err) // found, but there is no volume
	}
	other := simple("db", "nginx")
	other.Spec.Containers[0].Name = "web"
	if d, err := Pod(other, in); err != nil || d.Reason != NoPostgres {
		t.Errorf("a pod without such a container is %s: %v", d.Reason, err)
	}
}

func TestArchiveNowhere(t *testing.T) {
	d, err := Pod(simple("db", "postgres:16"), Input{Namespace: "shop"})
	if d.Reason != BadPolicy || err == nil || !strings.Contains(err.Error(), "archive") || d.Pod != nil {
		t.Errorf("%s: %v", d.Reason, err)
	}
}

// A pod that was a database of ours, whose image nobody knows any more, would start empty if it were passed over.
func TestFormerDatabaseIsNotPassedOver(t *testing.T) {
	in := testInput()
	var asked []string
	in.Former = func(name string) bool { asked = append(asked, name); return name == "orders" }
	if d, err := Pod(simple("orders", "team/pg-new"), in); d.Reason != PostgresVanished || err == nil {
		t.Errorf("a former database is %s: %v", d.Reason, err)
	}
	if d, err := Pod(simple("web", "nginx"), in); d.Reason != NoPostgres || err != nil {
		t.Errorf("a pod that never was one is %s: %v", d.Reason, err)
	}
	generated := simple("", "nginx")
	generated.GenerateName = "orders-"
	if d, err := Pod(generated, in); d.Reason != NoPostgres || err != nil {
		t.Errorf("a pod without an identity is %s: %v", d.Reason, err)
	}
	off := simple("orders", "nginx")
	off.Annotations = map[string]string{"outrider.dev/protect": "disabled"}
	if d, err := Pod(off, in); d.Reason != OptedOut || err != nil {
		t.Errorf("a pod that is opted out is %s: %v", d.Reason, err)
	}
	if !slices.Equal(asked, []string{"orders", "web"}) {
		t.Errorf("asked for %q", asked)
	}
}

func TestRRSANeedsItsProvider(t *testing.T) {
	for _, provider := range []string{"", "acs:ram::1:role/x", "nonsense"} {
		in := testInput()
		in.RRSA.ProviderARN = provider
		pod := simple("db", "postgres:16")
		pod.Annotations = map[string]string{"outrider.dev/credentials": "rrsa:writer"}
		if d, err := Pod(pod, in); d.Reason != BadPolicy || err == nil {
			t.Errorf("provider %q: %s, %v", provider, d.Reason, err)
		}
	}
}

func TestExpand(t *testing.T) {
	values := map[string]string{"A": "1", "B": "$(A)"}
	for s, want := range map[string]string{
		"": "", "x": "x", "$(A)": "1", "a$(A)b$(B)": "a1b$(A)", "$$(A)": "$(A)", "$(MISSING)": "$(MISSING)", "$": "$", "$(A": "$(A", "$A": "$A", "$$$(A)": "$1", "100%$": "100%$",
	} {
		if got := expand(s, func(n string) (string, bool) { v, ok := values[n]; return v, ok }); got != want {
			t.Errorf("%q becomes %q, want %q", s, got, want)
		}
		if got := expand(literal(s), func(string) (string, bool) { return "EXPANDED", true }); strings.Contains(got, "EXPANDED") {
			t.Errorf("%q is expanded although it is literal: %q", s, got)
		}
	}
}

func TestWALDirectoryInArguments(t *testing.T) {
	for args, want := range map[string]string{
		"": "", "--data-checksums": "", "--waldir=/wal": "/wal", "--waldir /wal -k": "/wal", "-X /wal": "/wal", "-X/wal": "/wal", `--waldir="/wal"`: "/wal",
	} {
		if got := waldirIn(args); got != want {
			t.Errorf("%q: %q, want %q", args, got, want)
		}
	}
}

func BenchmarkPod(b *testing.B) {
	pod, in := simple("orders", "postgres:16"), testInput()
	for b.Loop() {
		d, err := Pod(pod, in)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := Patch(pod, d.Pod); err != nil {
			b.Fatal(err)
		}
	}
}
