package main

import (
	"context"
	"io"
	"strings"
	"testing"
	"time"

	"outrider.dev/e2e/devcloud/devtest"
	devoss "outrider.dev/e2e/devcloud/oss"
	"outrider.dev/sidecar/internal/oss"
	"outrider.dev/sidecar/policy"
)

// doorTo is a door to an archive in the cloud.
func doorTo(t *testing.T, cloud *devtest.Cloud) *door {
	t.Helper()
	env := map[string]string{envKeyID: cloud.AccessKeyID, envKeySecret: cloud.AccessKeySecret}
	a := newApp(nil, func(name string) (string, bool) { v, ok := env[name]; return v, ok }, io.Discard, io.Discard)
	t.Cleanup(func() {
		if err := a.close(); err != nil {
			t.Error(err)
		}
	})
	return a.newDoor(policy.Policy{Archive: "oss://" + cloud.Bucket + "/" + testRoot, OSSEndpoint: cloud.Endpoint, OSSRegion: cloud.Region})
}

// What a doctor wants to know of the store is known from answers that came anyway: nothing before the first one, and of
// a bucket that is refused why it is.
func TestStoreStatus(t *testing.T) {
	cloud := devtest.Start(t)
	d := doorTo(t, cloud)
	if s := d.store(); s != nil {
		t.Errorf("before anything was asked: %+v", s)
	}
	cloud.SetFaults(devoss.Fault{Kind: devoss.ClockSkew, Skew: -time.Hour})
	if err := cloud.OSS.SetVersioning(cloud.Bucket, "Enabled"); err != nil {
		t.Fatal(err)
	}
	if _, err := d.enter(t.Context(), testSysid); err == nil {
		t.Fatal("a bucket that keeps versions was entered")
	}
	s := d.store()
	if s == nil || s.ProvenAt != nil || s.Versioning != oss.VersioningEnabled {
		t.Fatalf("of a bucket that keeps versions: %+v", s)
	}
	if s.ClockAhead == nil || *s.ClockAhead < 3590 || *s.ClockAhead > 3660 {
		t.Errorf("the store's clock is an hour behind: %v", s.ClockAhead)
	}
	var b strings.Builder
	s.text(&b)
	if !strings.Contains(b.String(), "ahead of the store's: set it by NTP") {
		t.Errorf("the text is %q", b.String())
	}

	fine := devtest.Start(t)
	d = doorTo(t, fine)
	if _, err := d.enter(t.Context(), testSysid); err != nil {
		t.Fatal(err)
	}
	if s = d.store(); s == nil || s.ProvenAt == nil || s.Versioning != oss.VersioningNever || s.ClockAhead == nil {
		t.Errorf("of a good bucket: %+v", s)
	}
	b.Reset()
	if s.text(&b); b.Len() != 0 {
		t.Errorf("of a clock that is right there is said %q", b.String())
	}
}

// TestStatusDoesNotWaitForTheStore: a store that is away keeps whoever enters waiting, and nobody who only looks.
func TestStatusDoesNotWaitForTheStore(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	d := &door{open: func(context.Context, uint64) (root, error) {
		close(entered)
		<-leave
		return root{}, errClosed
	}}
	done := make(chan error, 1)
	go func() {
		_, err := d.enter(context.Background(), testSysid)
		done <- err
	}()
	<-entered
	looked := make(chan struct{})
	go func() {
		defer close(looked)
		d.counts()
		d.store()
	}()
	select {
	case <-looked:
	case <-time.After(time.Minute):
		t.Error("the status waits for the store")
	}
	close(leave)
	if err := <-done; err == nil {
		t.Error("a door that did not open let somebody in")
	}
}
