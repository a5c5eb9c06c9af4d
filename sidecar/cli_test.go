package main

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"outrider.dev/e2e/devcloud/devtest"
	"outrider.dev/e2e/devcloud/keys"
	"outrider.dev/e2e/devcloud/oss"
)

func TestCommandLine(t *testing.T) {
	t.Parallel()
	cloud := devtest.Start(t)
	s := shellFor(cloud, testRoot)
	fill(t, testArchive(t, cloud, testRoot))
	bare := shell{}

	bare.run(t, "lsit").says(t, exitUsage, `there is no command "lsit": the nearest is "list"`)
	bare.run(t, "list", "--archvie", "x").says(t, exitUsage, "unknown flag: --archvie; see outrider list --help")
	bare.run(t, "list", "extra").says(t, exitUsage, `takes no argument, but was given "extra"`)
	bare.run(t, "list").says(t, exitUsage, "no archive is named: set --archive or OUTRIDER_ARCHIVE")
	bare.run(t, "list", "--archive", "oss://bucket").says(t, exitUsage, `"oss://bucket" is a whole bucket`)
	bare.run(t, "list", "--archive", "s3://bucket/x").says(t, exitUsage, "--archive", "oss://bucket/prefix")
	bare.run(t, "list", "--archive", "oss://bucket/x/y").says(t, exitUsage, "there are no credentials: set OSS_ACCESS_KEY_ID")
	s.with("OSS_ENDPOINT=", "OSS_REGION=").run(t, "list").says(t, exitUsage, "neither an OSS endpoint nor a region")
	s.run(t, "list", "-o", "yaml").says(t, exitUsage, "expected text or json")
	s.run(t, "list", "--log-level", "loud").says(t, exitUsage, `log level "loud"`)
	s.with("OUTRIDER_RETENTION=soon").run(t, "expire", "--dry-run").says(t, exitUsage, `OUTRIDER_RETENTION: "soon" is not a duration`)
	// What does not concern a command does not stop it, and a flag wins over its variable.
	s.with("OUTRIDER_RETENTION=soon").run(t, "list").says(t, exitOK)
	s.with("OUTRIDER_ARCHIVE=oss://nowhere/x/y").run(t, "list", "--archive", "oss://"+cloud.Bucket+"/"+testRoot).says(t, exitOK)

	if o := bare.run(t, "version"); o.code != exitOK || !strings.HasPrefix(o.stdout, "outrider ") {
		t.Errorf("version: %+v", o)
	}
	if o := bare.run(t, "help", "exit-codes"); !strings.Contains(o.stdout, "6  the archive is damaged") {
		t.Errorf("help exit-codes: %+v", o)
	}
}

func TestWhatTheStoreRefuses(t *testing.T) {
	t.Parallel()
	cloud := devtest.Start(t)
	s := shellFor(cloud, testRoot)
	fill(t, testArchive(t, cloud, testRoot))
	for _, verb := range []string{"list", "verify", "why", "expire"} {
		s.with("OUTRIDER_ARCHIVE=oss://no-such-bucket/x/y").run(t, verb).says(t, exitDenied, "no-such-bucket", "create it or correct the archive's location")
		s.with("OSS_ACCESS_KEY_ID=nobody").run(t, verb).says(t, exitDenied, "OSS does not know this access key id")
		s.with("OSS_ACCESS_KEY_SECRET=wrong").run(t, verb).says(t, exitDenied, "the access key secret does not belong to the access key id")
		s.with("OUTRIDER_ARCHIVE=oss://"+cloud.Bucket+"/shop/other").run(t, verb).says(t, exitNothing, "is empty: nothing was ever archived there")
	}
}

func TestUnreachableIsNotEmpty(t *testing.T) {
	t.Parallel()
	cloud := devtest.Start(t)
	s := shellFor(cloud, testRoot)
	cloud.Down()
	s.run(t, "list").says(t, exitUnknown, "cluster.json", "connection refused")
}

// paths lists the keys of a JSON document, arrays as [].
func paths(t *testing.T, document string) []string {
	t.Helper()
	var v any
	if err := json.Unmarshal([]byte(document), &v); err != nil {
		t.Fatalf("%v in %s", err, document)
	}
	seen := map[string]bool{}
	var walk func(prefix string, v any)
	walk = func(prefix string, v any) {
		switch x := v.(type) {
		case map[string]any:
			for k, y := range x {
				walk(prefix+"."+k, y)
			}
		case []any:
			for _, y := range x {
				walk(prefix+"[]", y)
			}
			if len(x) == 0 {
				seen[prefix+"[]"] = true
			}
		default:
			seen[prefix] = true
		}
	}
	walk("", v)
	return slices.Sorted(maps.Keys(seen))
}

func TestList(t *testing.T) {
	t.Parallel()
	cloud := devtest.Start(t)
	s := shellFor(cloud, testRoot)
	fill(t, testArchive(t, cloud, testRoot))

	o := s.run(t, "list")
	o.says(t, exitOK)
	for _, line := range []string{
		"base_000000010000000000000002  ", "full", "12 verified", "delta of base_000000010000000000000002",
		"timeline 1 (newest)  0/2001F4", "0/A02710",
	} {
		if !strings.Contains(o.stdout, line) {
			t.Errorf("the listing lacks %q:\n%s", line, o.stdout)
		}
	}

	o = s.run(t, "list", "-o", "json")
	o.says(t, exitOK)
	want := []string{
		".archive", ".branches[].holes[]", ".branches[].latest.lsn", ".branches[].latest.timeline", ".branches[].legs[].from",
		".branches[].legs[].timeline", ".branches[].newest", ".branches[].timeline", ".branches[].windows[].from", ".branches[].windows[].from_time",
		".branches[].windows[].snapshots[]", ".branches[].windows[].to", ".snapshots[].kind", ".snapshots[].name", ".snapshots[].page_checksums",
		".snapshots[].pages_verified", ".snapshots[].parent", ".snapshots[].raw_bytes", ".snapshots[].start", ".snapshots[].stop",
		".snapshots[].stored_bytes", ".snapshots[].taken_at", ".snapshots[].timeline", ".snapshots[].writer", ".system_identifier", ".wal_segment_size",
	}
	if diff := cmp.Diff(want, paths(t, o.stdout)); diff != "" {
		t.Errorf("the JSON of list has changed (-want +got):\n%s", diff)
	}

	if err := cloud.OSS.RemoveObjects(cloud.Bucket, testRoot+"/wal_005/000000010000000000000005.zst"); err != nil {
		t.Fatal(err)
	}
	o = s.run(t, "list")
	o.says(t, exitOK)
	if !strings.Contains(o.stdout, "1@0/500000 to 0/600000") {
		t.Errorf("the listing does not show the hole:\n%s", o.stdout)
	}
}

func TestDamagedManifest(t *testing.T) {
	t.Parallel()
	cloud := devtest.Start(t)
	s := shellFor(cloud, testRoot)
	fill(t, testArchive(t, cloud, testRoot))
	if err := cloud.OSS.WriteObject(cloud.Bucket, testRoot+"/basebackups_005/base_000000010000000000000006/outrider.json", []byte(`{"format":`)); err != nil {
		t.Fatal(err)
	}
	o := s.run(t, "list")
	o.says(t, exitDamaged, "snapshot base_000000010000000000000006 is damaged", "outrider.json", "use another one")
	if !strings.Contains(o.stdout, "base_000000010000000000000008") {
		t.Errorf("the others are not listed:\n%s", o.stdout)
	}
	o = s.run(t, "verify", "--quick", "-o", "json")
	o.says(t, exitDamaged, "1 problems in oss://")
	var report struct {
		Problems []struct{ Kind, Object string }
	}
	if err := json.Unmarshal([]byte(o.stdout), &report); err != nil {
		t.Fatal(err)
	}
	if len(report.Problems) != 1 || report.Problems[0].Kind != "document_damaged" || report.Problems[0].Object != "base_000000010000000000000006" {
		t.Errorf("problems = %+v", report.Problems)
	}
	// Nothing is deleted from an archive that cannot be read.
	before, _ := cloud.OSS.Objects(cloud.Bucket, testRoot+"/")
	s.run(t, "expire").says(t, exitDamaged, "outrider.json")
	if after, _ := cloud.OSS.Objects(cloud.Bucket, testRoot+"/"); len(after) != len(before) {
		t.Errorf("%d objects before, %d after", len(before), len(after))
	}
}

func TestVerify(t *testing.T) {
	t.Parallel()
	cloud := devtest.Start(t)
	s := shellFor(cloud, testRoot)
	fill(t, testArchive(t, cloud, testRoot))
	o := s.run(t, "verify")
	o.says(t, exitOK)
	// Segments 2 to 9, the chunk, four parts.
	if !strings.Contains(o.stdout, "4 snapshots, 1 branches; read 13 objects") || !strings.Contains(o.stdout, "no problem was found") {
		t.Errorf("verify: %s", o.stdout)
	}
	object := testRoot + "/wal_005/000000010000000000000003.zst"
	body, _, err := cloud.OSS.ReadObject(cloud.Bucket, object)
	if err != nil {
		t.Fatal(err)
	}
	if err := cloud.OSS.WriteObject(cloud.Bucket, object, body[:len(body)/2]); err != nil {
		t.Fatal(err)
	}
	o = s.run(t, "verify")
	o.says(t, exitDamaged)
	if !strings.Contains(o.stdout, "segment_damaged") || !strings.Contains(o.stdout, "wal_005/000000010000000000000003.zst") {
		t.Errorf("verify of a truncated segment: %s", o.stdout)
	}
	// Quick looks at names and documents only.
	s.run(t, "verify", "--quick").says(t, exitOK)
}

func TestExpire(t *testing.T) {
	t.Parallel()
	cloud := devtest.Start(t)
	s := shellFor(cloud, testRoot)
	fill(t, testArchive(t, cloud, testRoot))
	// What lies in the store is as old as this test, and the store's time counts too.
	cloud.SetFaults(oss.Fault{Kind: oss.ClockSkew, Skew: 2400 * time.Hour})
	objects := func() int {
		all, err := cloud.OSS.Objects(cloud.Bucket, testRoot+"/")
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	before := objects()
	o := s.run(t, "expire", "--dry-run", "-o", "json")
	o.says(t, exitOK)
	var e struct {
		DryRun   bool              `json:"dry_run"`
		Expired  []string          `json:"expired_snapshots"`
		Kept     map[string]string `json:"kept_snapshots"`
		Segments int               `json:"expired_segments"`
	}
	if err := json.Unmarshal([]byte(o.stdout), &e); err != nil {
		t.Fatal(err)
	}
	if !e.DryRun || len(e.Expired) != 2 || len(e.Kept) != 2 || e.Segments != 5 || objects() != before {
		t.Errorf("dry run: %+v, %d objects of %d are left", e, objects(), before)
	}

	reader := keys.Key{ID: "AKREADER", Secret: "reader-secret", Rules: []keys.Rule{{Actions: []string{"oss:GetObject", "oss:ListObjects", "oss:PutObject"}}}}
	if err := cloud.Keys.Put(reader); err != nil {
		t.Fatal(err)
	}
	s.with("OSS_ACCESS_KEY_ID=AKREADER", "OSS_ACCESS_KEY_SECRET=reader-secret").run(t, "expire").
		says(t, exitDenied, "expiring needs the right to delete", "oss:DeleteObject")

	o = s.run(t, "expire")
	o.says(t, exitOK)
	if !strings.Contains(o.stdout, "base_000000010000000000000002") || !strings.Contains(o.stdout, "WAL deleted: 5 segments") || objects() >= before {
		t.Errorf("expire: %s", o.stdout)
	}
	s.run(t, "verify").says(t, exitOK)
	if o := s.run(t, "expire"); !strings.Contains(o.stdout, "WAL deleted: 0 segments, 0 chunks") {
		t.Errorf("a second run: %s", o.stdout)
	}
}

func TestWhy(t *testing.T) {
	t.Parallel()
	cloud := devtest.Start(t)
	s := shellFor(cloud, testRoot)
	fill(t, testArchive(t, cloud, testRoot))
	// Epoch 2 is alive, so the last stop is that of epoch 1.
	o := s.run(t, "why")
	o.says(t, exitOK)
	for _, line := range []string{
		"epoch 1, pod shop/orders-0", `clean: at `, `its shutdown checkpoint is the record from 0/500000 to 0/500078`, "lost: nothing\n",
		"followed by epoch 2", "notice", "+1.000s", "finished", "step=3",
		"receipt         clean: shut down", "accepts writes", "journal of epoch 1:",
	} {
		if !strings.Contains(o.stdout, line) {
			t.Errorf("why lacks %q:\n%s", line, o.stdout)
		}
	}
	if o := s.run(t, "why", "--epoch", "2"); !strings.Contains(o.stdout, "running: it was alive") {
		t.Errorf("why --epoch 2: %s", o.stdout)
	}
	if o := s.run(t, "why", "--entries", "2"); !strings.Contains(o.stdout, "(2 older entries") || strings.Contains(o.stdout, "step=1") {
		t.Errorf("why --entries 2: %s", o.stdout)
	}
	s.run(t, "why", "--epoch", "9").says(t, exitNothing, "there is no epoch 9: the archive has 1 to 2")

	o = s.run(t, "why", "-o", "json")
	var e struct {
		Epoch   uint64
		Verdict struct{ Outcome, Lost string }
		Journal []struct{ Event string }
		Phases  []struct{ Name string }
	}
	if err := json.Unmarshal([]byte(o.stdout), &e); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, p := range e.Phases {
		names = append(names, p.Name)
	}
	if d := cmp.Diff([]string{"notice", "prepared", "receipt", "claimed", "accepts_writes"}, names); d != "" {
		t.Errorf("why -o json, the phases (-want +got):\n%s", d)
	}
	if e.Epoch != 1 || e.Verdict.Outcome != "clean" || e.Verdict.Lost != "nothing" || len(e.Journal) != 4 {
		t.Errorf("why -o json: %+v", e)
	}
}

func TestSignals(t *testing.T) {
	t.Parallel()
	cloud := devtest.Start(t)
	s := shellFor(cloud, testRoot)
	fill(t, testArchive(t, cloud, testRoot))
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		cloud.SetFaults(oss.Fault{Op: "get", Prefix: testRoot + "/wal_005/", Kind: oss.Hang})
		cmd := s.command(t, "verify")
		var stderr strings.Builder
		cmd.Stderr = &stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		waitFor(t, "a segment is being read", func() bool {
			return cloud.OSS.Faults()[0].Fired > 0
		})
		if err := cmd.Process.Signal(signal); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // its exit code says more
		if code := cmd.ProcessState.ExitCode(); code != int(exitOther) || !strings.Contains(stderr.String(), "outrider: interrupted by") {
			t.Errorf("after %s: exit code %d\n%s", signal, code, stderr.String())
		}
	}
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited for 30 s: %s", what)
		}
	}
}
