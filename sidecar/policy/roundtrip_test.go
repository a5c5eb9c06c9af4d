package policy_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"outrider.dev/sidecar/policy"
)

func lookup(env []string) func(string) (string, bool) {
	m := map[string]string{}
	for _, e := range env {
		name, v, _ := strings.Cut(e, "=")
		m[name] = v
	}
	return func(name string) (string, bool) { v, ok := m[name]; return v, ok }
}

// roundTrip goes from a policy to the environment and back, and to annotations and back.
func roundTrip(t *testing.T, p policy.Policy) {
	t.Helper()
	back, _, err := policy.FromEnv(lookup(p.Env()))
	if err != nil {
		t.Fatalf("the environment of a valid policy is refused: %v\n%q", err, p.Env())
	}
	if diff := cmp.Diff(p, back); diff != "" {
		t.Fatalf("policy to environment to policy (-want +got):\n%s", diff)
	}
	back, _, err = policy.Resolve(policy.Pod(p.Annotations()))
	if err != nil {
		t.Fatalf("the annotations of a valid policy are refused: %v", err)
	}
	if diff := cmp.Diff(p, back); diff != "" {
		t.Fatalf("policy to annotations to policy (-want +got):\n%s", diff)
	}
}

func TestRoundTripOfRandomPolicies(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for range 300 {
		annotations := randomAnnotations(r)
		p, _, err := policy.Resolve(policy.Pod(annotations))
		if err != nil {
			t.Fatalf("random valid annotations are refused: %v\n%q", err, annotations)
		}
		roundTrip(t, p)
	}
}

func randomAnnotations(r *rand.Rand) map[string]string {
	all := map[string]func(*rand.Rand) string{
		"protect":         pick("enabled", "disabled"),
		"oss-endpoint":    pick("oss-cn-hangzhou-internal.aliyuncs.com", "http://127.0.0.1:9000", "https://h/"),
		"oss-region":      pick("cn-hangzhou", "ap-southeast-1"),
		"credentials":     pick("secret:oss", "rrsa:Role-1", "ram-role:Node", "rrsa:acs:ram::1:role/x"),
		"cluster":         pick("orders", "orders-0", "a.b"),
		"container":       pick("postgres", "db"),
		"pgdata":          pick("/data", "/var/lib/postgresql/data/", "/a/../b"),
		"rpo":             span(100*time.Millisecond, 10*time.Minute),
		"rto":             span(10*time.Second, policy.Day),
		"request-budget":  func(r *rand.Rand) string { return fmt.Sprint(1000 + r.IntN(1e8-1000)) },
		"backup-schedule": func(r *rand.Rand) string { return fmt.Sprintf("%d */%d * * *", r.IntN(60), 1+r.IntN(23)) },
		"retention":       span(time.Hour, 3650*policy.Day),
		"min-backups":     func(r *rand.Rand) string { return fmt.Sprint(1 + r.IntN(1000)) },
		"drill":           pick("orders-0", "orders", "orders-0@2"),
		"drill-query":     pick("select 1", "select count(*) > 0\nfrom \"a=b\" where x = '$1 $(y)'"),
		"drill-max-age":   span(time.Hour, 365*policy.Day),
		"restore":         pick("auto", "required"),
		"restore-from":    pick("oss://other/x/", "oss://other/x/y/z@2"),
		"restore-target":  target,
		"archiving":       pick("on", "off"),
		"stale-disk":      pick("refuse", "fork"),
		"adopt":           pick("true", "false"),
		"max-wal-backlog": backlog,
		"storage-class":   pick("Standard", "IA"),
		"encryption":      pick("none", "AES256", "KMS", "KMS:1a2b-3c"),
		"grace":           span(10*time.Second, time.Hour),
		"run-as":          func(r *rand.Rand) string { return fmt.Sprint(1+r.IntN(1<<31-1)) + pick("", ":0", ":999")(r) },
		"cpu":             func(r *rand.Rand) string { n := 10 + r.IntN(5000); return fmt.Sprintf("%dm:%dm", n, n+r.IntN(5000)) },
		"memory":          func(r *rand.Rand) string { n := 64 + r.IntN(500); return fmt.Sprintf("%dMi:%dMi", n, n+r.IntN(500)) },
		"superseded":      pick("read-only", "report"),
		"take-over":       pick("b6a4a1f0-0000-4000-8000-000000000000"),
	}
	annotations := map[string]string{policy.Prefix + "archive": pick("oss://bkt", "oss://bkt/a", "oss://bkt/a/b=1/")(r)}
	for _, k := range policy.Keys() {
		if f := all[k.Name]; f != nil && r.IntN(2) == 0 {
			annotations[policy.Prefix+k.Name] = f(r)
		} else if f == nil && k.Name != "archive" {
			panic("no random values for " + k.Name)
		}
	}
	return annotations
}

func pick(values ...string) func(*rand.Rand) string {
	return func(r *rand.Rand) string { return values[r.IntN(len(values))] }
}

func span(low, high time.Duration) func(*rand.Rand) string {
	return func(r *rand.Rand) string {
		d := low + time.Duration(r.Int64N(int64(high-low))).Truncate(time.Millisecond)
		return policy.FormatDuration(d)
	}
}

func target(r *rand.Rand) string {
	at := time.UnixMicro(r.Int64N(4e15)).In(time.FixedZone("", r.IntN(24)*1800))
	point := pick("latest", fmt.Sprintf("%X/%X", r.Uint32(), 1+r.Uint32N(1<<31)), at.Format(time.RFC3339Nano))(r)
	return point + pick("", fmt.Sprintf("@%d", 1+r.Uint32N(1<<31)))(r)
}

func backlog(r *rand.Rand) string {
	return pick("unlimited", policy.FormatSize(64<<20+r.Int64N(1<<50))+pick("", ":keep", ":drop")(r))(r)
}

// FuzzResolve checks that no value, however odd, is a panic, and that whatever is accepted survives the round trip.
func FuzzResolve(f *testing.F) {
	for _, k := range policy.Keys() {
		f.Add(k.Name, k.Default)
	}
	f.Add("restore-target", "2026-03-01T12:00:00.123456789+02:00@7")
	f.Add("max-wal-backlog", "10Gi:drop")
	f.Add("oss-endpoint", "http://[::1]:80")
	f.Add("backup-schedule", "*/15,3-9 2 L * MON#2")
	f.Fuzz(func(t *testing.T, key, value string) {
		annotations := map[string]string{policy.Prefix + "archive": "oss://bkt/x"}
		annotations[policy.Prefix+key] = value
		p, _, err := policy.Resolve(policy.Pod(annotations))
		if err == nil {
			roundTrip(t, p)
		}
	})
}
