package oss

import (
	"errors"
	"io/fs"
	"strings"
	"testing"

	"outrider.dev/e2e/devcloud/devtest"
	"outrider.dev/e2e/devcloud/keys"
	devoss "outrider.dev/e2e/devcloud/oss"
	"outrider.dev/sidecar/internal/archive"
)

func TestProbeAccepts(t *testing.T) {
	cloud := devtest.Start(t)
	b := open(t, cloud)
	if ahead, told := b.ClockAhead(); told || b.Versioning() != VersioningUnknown {
		t.Errorf("before the first answer the clock is %v ahead, and versioning is %q", ahead, b.Versioning())
	}
	for range 2 { // the second start finds the object of the first
		if err := b.Probe(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	wantAhead(t, b, 0)
	if b.Versioning() != VersioningNever {
		t.Errorf("a bucket that never had versioning has it %q", b.Versioning())
	}
	if empty, err := archive.New(b).Empty(t.Context()); !empty || err != nil {
		t.Errorf("a root that was only probed is empty: %v, %v", empty, err)
	}
	// The rights that a writer is given, and no others.
	writer := keys.Rule{Actions: []string{"oss:PutObject", "oss:GetObject", "oss:ListObjects"}, Prefixes: []string{"ns/db/"}}
	if err := cloud.Keys.Put(keys.Key{ID: "WRITER", Secret: "s", Rules: []keys.Rule{writer}}); err != nil {
		t.Fatal(err)
	}
	narrow := open(t, cloud, func(c *Config) { c.Credentials = staticFor(t, "WRITER", "s") })
	if err := narrow.Probe(t.Context()); err != nil {
		t.Errorf("without the right to ask for the versioning: %v", err)
	}
	if narrow.Versioning() != VersioningUnknown {
		t.Errorf("without the right to ask, versioning is %q", narrow.Versioning())
	}
	for _, kind := range []devoss.Kind{devoss.ResetAfter, devoss.ResetBefore} {
		if err := cloud.OSS.RemoveObjects(cloud.Bucket, "ns/db/"+archive.ProbeKey); err != nil {
			t.Fatal(err)
		}
		cloud.SetFaults(devoss.Fault{Op: "put", Kind: kind, Count: 1})
		if err := b.Probe(t.Context()); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
	}
}

func TestProbeRefusesVersioning(t *testing.T) {
	for _, state := range []string{"Enabled", "Suspended"} {
		for _, mayAsk := range []bool{true, false} {
			cloud := devtest.Start(t)
			if err := cloud.OSS.SetVersioning(cloud.Bucket, state); err != nil {
				t.Fatal(err)
			}
			b := open(t, cloud)
			if !mayAsk {
				cloud.SetFaults(devoss.Fault{Op: "GetBucketVersioning", Kind: devoss.Status, Status: 403})
			}
			want := VersioningUnknown
			if mayAsk {
				want = Versioning(strings.ToLower(state))
			}
			for range 2 {
				err := b.Probe(t.Context())
				if !errors.Is(err, ErrConfiguration) || !strings.Contains(err.Error(), "never had") {
					t.Errorf("versioning %s, may ask %v: %v, want %v with a remedy", state, mayAsk, err, ErrConfiguration)
				}
			}
			if b.Versioning() != want {
				t.Errorf("versioning %s, may ask %v: it is known as %q", state, mayAsk, b.Versioning())
			}
		}
	}
}

func TestProbeNamesWhatIsMissing(t *testing.T) {
	cloud := devtest.Start(t)
	all := []string{"oss:PutObject", "oss:GetObject", "oss:ListObjects", "oss:GetBucketVersioning"}
	for i, missing := range all[:3] {
		rule := keys.Rule{}
		for j, action := range all {
			if i != j {
				rule.Actions = append(rule.Actions, action)
			}
		}
		if err := cloud.Keys.Put(keys.Key{ID: "WEAK", Secret: "s", Rules: []keys.Rule{rule}}); err != nil {
			t.Fatal(err)
		}
		b := open(t, cloud, func(c *Config) { c.Credentials = staticFor(t, "WEAK", "s") })
		if err := b.Probe(t.Context()); !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), missing+" on ") {
			t.Errorf("without %s: %v", missing, err)
		}
	}
	b := open(t, cloud, func(c *Config) { c.Location = "oss://no-such-bucket/p" })
	if err := b.Probe(t.Context()); !errors.Is(err, ErrConfiguration) {
		t.Errorf("no such bucket: %v, want %v", err, ErrConfiguration)
	}
	cloud.Down()
	b = open(t, cloud)
	if err := b.Probe(t.Context()); err == nil || errors.Is(err, ErrConfiguration) || errors.Is(err, fs.ErrPermission) {
		t.Errorf("OSS is down: %v, want an error that may pass", err)
	}
}
