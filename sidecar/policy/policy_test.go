package policy_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"outrider.dev/sidecar/policy"
)

const archive = "oss://backups/eu"

func pod(values ...string) policy.Level {
	annotations := map[string]string{policy.Prefix + "archive": archive}
	for i := 0; i < len(values); i += 2 {
		annotations[policy.Prefix+values[i]] = values[i+1]
	}
	return policy.Pod(annotations)
}

func TestDefaults(t *testing.T) {
	got, sources, err := policy.Resolve(pod())
	if err != nil {
		t.Fatal(err)
	}
	want := policy.Policy{
		Archive: archive, RPO: time.Second, RTO: 5 * time.Minute, BackupSchedule: "0 * * * *", Retention: 7 * policy.Day,
		MinBackups: 2, Restore: policy.RestoreAuto, Archiving: policy.On, StaleDisk: policy.StaleRefuse,
		StorageClass: "Standard", Grace: 2 * time.Minute, Superseded: policy.SupersededReadOnly,
		CPU:    policy.Resource{Request: 50, Limit: 1000},
		Memory: policy.Resource{Request: 64 << 20, Limit: 384 << 20},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("policy of a pod that only names its archive (-want +got):\n%s", diff)
	}
	if sources["archive"] != "pod" || sources["rpo"] != policy.Default || sources["take-over"] != "" {
		t.Errorf("sources = %v", sources)
	}
}

func TestLaterLevelsWin(t *testing.T) {
	configuration := policy.Configuration(map[string]string{"archive": archive, "rpo": "2s", "rto": "3m", "retention": "1d"})
	namespace := policy.Namespace("shop", map[string]string{
		"outrider.dev/rpo": "500ms", "outrider.dev/rto": "4m", "somebody.else/rpo": "x", "outrider.devious/rpo": "x",
	})
	p, sources, err := policy.Resolve(configuration, namespace, policy.Pod(map[string]string{
		"outrider.dev/rpo": "250ms", policy.Status: "whatever the webhook wrote",
	}))
	if err != nil {
		t.Fatal(err)
	}
	if p.RPO != 250*time.Millisecond || p.RTO != 4*time.Minute || p.Retention != policy.Day {
		t.Errorf("rpo %s, rto %s, retention %s: want the pod's, the namespace's, the configuration's", p.RPO, p.RTO, p.Retention)
	}
	want := map[string]string{"rpo": "pod", "rto": "namespace shop", "retention": "configuration", "grace": policy.Default}
	for key, level := range want {
		if sources[key] != level {
			t.Errorf("source of %s = %q, want %q", key, sources[key], level)
		}
	}
	table := policy.Explain(p, sources)
	for _, line := range []string{"rpo              250ms", "namespace shop", "cluster          (the name of the pod"} {
		if !strings.Contains(table, line) {
			t.Errorf("the explanation lacks %q:\n%s", line, table)
		}
	}
}

func TestAllErrorsAtOnce(t *testing.T) {
	_, _, err := policy.Resolve(
		policy.Configuration(map[string]string{"retenton": "7d", "cluster": "orders"}),
		policy.Namespace("shop", map[string]string{"outrider.dev/rpo": "11m", "outrider.dev/completely-different": "1"}),
		policy.Pod(map[string]string{"outrider.dev/stale-disk": "ignore", "outrider.dev/grace": "", "outrider.dev/Archive": archive}))
	var one *policy.Error
	if !errors.As(err, &one) {
		t.Fatalf("error = %v, want *policy.Error", err)
	}
	for _, want := range []string{
		"configuration: retenton: unknown key; the nearest is retention",
		"configuration: cluster: it is about a single database: set it on the pod",
		`namespace shop: outrider.dev/rpo: "11m" is out of range: expected 100ms to 10m`,
		"outrider.dev/completely-different: unknown key; the keys are protect, archive,",
		`pod: outrider.dev/stale-disk: "ignore" is none of these: refuse, fork`,
		"pod: outrider.dev/grace: it is empty",
		"pod: outrider.dev/Archive: unknown key; the nearest is outrider.dev/archive",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("missing %q in:\n%v", want, err)
		}
	}
}

func TestArchiveIsRequired(t *testing.T) {
	if _, _, err := policy.Resolve(); err == nil || !strings.Contains(err.Error(), "set nowhere") {
		t.Errorf("no archive anywhere: error = %v", err)
	}
	for _, level := range []policy.Level{
		policy.Pod(map[string]string{"outrider.dev/protect": "disabled"}),
		policy.Pod(map[string]string{"outrider.dev/archiving": "off", "outrider.dev/restore-from": "oss://backups/eu/shop/orders"}),
	} {
		if _, _, err := policy.Resolve(level); err != nil {
			t.Errorf("a pod that archives nothing needs no archive: %v", err)
		}
	}
}

func TestValues(t *testing.T) {
	good, bad := true, false
	cases := []struct {
		key, value string
		ok         bool
	}{
		{"archive", "oss://b-1/x/", good},
		{"archive", "oss://bkt", good},
		{"archive", "s3://bkt/x", bad},
		{"archive", "oss://B/x", bad},
		{"archive", "oss://bkt//x", bad},
		{"archive", "oss://bkt/../x", bad},
		{"archive", "oss://bkt/a b", bad},
		{"archive", "oss://bkt/" + strings.Repeat("x", 600), bad},
		{"restore-from", "oss://bkt/a/ns/db", good},
		{"restore-from", "oss://bkt", bad},
		{"oss-endpoint", "http://127.0.0.1:9000", good},
		{"oss-endpoint", "oss-cn-hangzhou.aliyuncs.com", good},
		{"oss-endpoint", "https://key:secret@host", bad},
		{"oss-endpoint", "http://host/path", bad},
		{"oss-endpoint", "host:99999", bad},
		{"oss-endpoint", "ftp://host", bad},
		{"oss-region", "cn-hangzhou", good},
		{"oss-region", "oss-cn-hangzhou", bad},
		{"oss-region", "hangzhou!", bad},
		{"credentials", "secret:oss.key", good},
		{"credentials", "rrsa:Backup-Role", good},
		{"credentials", "ram-role:x", good},
		{"credentials", "rrsa:acs:ram::123456:role/backup", good},
		{"credentials", "secret:", bad},
		{"credentials", "LTAIkey", bad},
		{"cluster", "orders-0", good},
		{"cluster", "orders@2", bad},
		{"cluster", "../x", bad},
		{"container", "postgres", good},
		{"container", "Postgres", bad},
		{"pgdata", "/var/lib/postgresql/data/", good},
		{"pgdata", "data", bad},
		{"pgdata", "/", bad},
		{"pgdata", "/$(X)/y", bad},
		{"rpo", "100ms", good},
		{"rpo", "99ms", bad},
		{"rpo", "1", bad},
		{"rpo", "-1s", bad},
		{"rpo", "1.5s", bad},
		{"rpo", "1s1m", bad},
		{"rto", "10s", good},
		{"rto", "2d", bad},
		{"grace", "9s", bad},
		{"grace", "10s", good},
		{"retention", "30m", bad},
		{"retention", "36h", good},
		{"retention", "99999999999999999999d", bad},
		{"retention", "7days", bad},
		{"backup-schedule", "*/15 2-4 * * MON", good},
		{"backup-schedule", "@hourly", bad},
		{"backup-schedule", "0 0 * * * *", bad},
		{"backup-schedule", "61 * * * *", bad},
		{"backup-schedule", "0 0 31 2 *", bad},
		{"backup-schedule", "*/0 * * * *", bad},
		{"min-backups", "1", good},
		{"min-backups", "0", bad},
		{"min-backups", "two", bad},
		{"restore-target", "latest@3", good},
		{"restore-target", "@3", good},
		{"restore-target", "0/5000108@2", good},
		{"restore-target", "2026-03-01T12:00:00+02:00", good},
		{"restore-target", "2026-03-01 12:00:00Z", good},
		{"restore-target", "2026-03-01T12:00:00", bad},
		{"restore-target", "@", bad},
		{"restore-target", "0/0", bad},
		{"restore-target", "latest@x", bad},
		{"max-wal-backlog", "10Gi", good},
		{"max-wal-backlog", "10Gi:drop", good},
		{"max-wal-backlog", "unlimited", good},
		{"max-wal-backlog", "10Gi:stop", bad},
		{"max-wal-backlog", "1Mi", bad},
		{"max-wal-backlog", "10GB", bad},
		{"storage-class", "IA", good},
		{"storage-class", "Archive", bad},
		{"storage-class", "standard", bad},
		{"encryption", "KMS:9468da86-3509-4f8d-a61e-6eab1eac0000", good},
		{"encryption", "aes256", bad},
		{"encryption", "none", good},
		{"run-as", "999", good},
		{"run-as", "999:0", good},
		{"run-as", "0", bad},
		{"run-as", "postgres", bad},
		{"run-as", "1:2:3", bad},
		{"cpu", "100m:2", good},
		{"cpu", "2:1", bad},
		{"cpu", "m", bad},
		{"cpu", "", bad},
		{"memory", "128Mi", good},
		{"memory", "1Mi", bad},
		{"take-over", "b6a4a1f0-0000-4000-8000-000000000000", good},
		{"take-over", "a/b", bad},
		{"protect", "disabled", good},
		{"protect", "true", bad},
		{"adopt", "true", good},
		{"adopt", "yes", bad},
		{"archiving", "off", good},
	}
	for _, c := range cases {
		_, _, err := policy.Resolve(pod(c.key, c.value))
		if (err == nil) != c.ok {
			t.Errorf("%s: %q: error = %v, want accepted = %t", c.key, c.value, err, c.ok)
		}
		if err != nil && !strings.Contains(err.Error(), "outrider.dev/"+c.key+": ") {
			t.Errorf("the error of %s does not name it: %v", c.key, err)
		}
	}
}

func TestContradictions(t *testing.T) {
	for _, values := range [][]string{
		{"restore", "never", "restore-from", "oss://bkt/x"}, {"restore", "never", "restore-target", "0/5000000"},
	} {
		if _, _, err := policy.Resolve(pod(values...)); err == nil || !strings.Contains(err.Error(), "contradicts") {
			t.Errorf("%q: error = %v, want a contradiction", values, err)
		}
	}
}

func TestSecretsAreNotRepeated(t *testing.T) {
	for _, values := range [][]string{{"credentials", "LTAI5tSECRET"}, {"oss-endpoint", "https://me:SECRET@host"}, {"oss-endpoint", "http://me:SECRET@[host"}} {
		_, _, err := policy.Resolve(pod(values...))
		if err == nil || strings.Contains(err.Error(), "SECRET") {
			t.Errorf("%s: error = %v, want one without the value", values[0], err)
		}
	}
}

func TestRoot(t *testing.T) {
	if got := (policy.Policy{Archive: archive}).Root("shop", "orders-0"); got != "oss://backups/eu/shop/orders-0" {
		t.Errorf("root = %s", got)
	}
}

func TestTableHasEveryKeyOnce(t *testing.T) {
	table := policy.Table()
	if len(policy.Keys()) == 0 {
		t.Fatal("no keys")
	}
	for _, k := range policy.Keys() {
		if n := strings.Count(table, "\n| `"+k.Name+"` |"); n != 1 {
			t.Errorf("%s is %d times in the table, want once", k.Name, n)
		}
		if k.Doc == "" || k.Form == "" || k.Env == "" || (k.Default == "") == (k.Unset == "") {
			t.Errorf("%s is not described completely: %+v", k.Name, k)
		}
	}
}

func TestFlagsAndVariables(t *testing.T) {
	env := map[string]string{"OUTRIDER_ARCHIVE": archive, "OUTRIDER_RPO": "2s", "OUTRIDER_RTO": "3m", "OUTRIDER_GRACE": ""}
	variables := policy.Variables(func(name string) (string, bool) { v, ok := env[name]; return v, ok })
	p, sources, err := policy.Resolve(variables, policy.Flags(map[string]string{"rpo": "1s"}))
	if err != nil || p.RPO != time.Second || p.RTO != 3*time.Minute || p.Grace != 2*time.Minute {
		t.Errorf("policy = %+v, %v", p, err)
	}
	if sources["rpo"] != "command line" || sources["rto"] != policy.Environment || sources["grace"] != policy.Default {
		t.Errorf("sources = %v", sources)
	}
	env["OUTRIDER_RTO"] = "soon"
	_, _, err = policy.Resolve(variables, policy.Flags(map[string]string{"rpo": "now"}))
	if err == nil || !strings.Contains(err.Error(), `command line: --rpo: "now"`) {
		t.Errorf("error = %v", err)
	}
	_, _, err = policy.FromEnv(func(name string) (string, bool) { v, ok := env[name]; return v, ok })
	if err == nil || !strings.Contains(err.Error(), `environment: OUTRIDER_RTO: "soon"`) {
		t.Errorf("error = %v", err)
	}
}
