package oss

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"testing"
	"time"

	"outrider.dev/e2e/devcloud/devtest"
	devoss "outrider.dev/e2e/devcloud/oss"
	"outrider.dev/sidecar/internal/archive"
)

// passing are faults that hit one attempt and leave the next one alone.
func passing(op string) map[string]devoss.Fault {
	all := map[string]devoss.Fault{
		"503":          {Kind: devoss.Status, Status: 503},
		"500":          {Kind: devoss.Status, Status: 500},
		"429":          {Kind: devoss.Status, Status: 429, Code: "TooManyRequests"},
		"throttled":    {Kind: devoss.Status, Status: 503, Code: "UploadTrafficRateLimitExceeded"},
		"proxy's 502":  {Kind: devoss.Status, Status: 502, NoBody: true},
		"reset before": {Kind: devoss.ResetBefore},
		"reset after":  {Kind: devoss.ResetAfter},
		"hang":         {Kind: devoss.Hang},
		"slow":         {Kind: devoss.Throttle, Rate: 1 << 20},
	}
	for name, f := range all {
		f.Op, f.Count = op, 1
		all[name] = f
	}
	return all
}

func impatient(c *Config) { c.Timeouts.Attempt = 300 * time.Millisecond }

func readAll(t *testing.T, b *Bucket, key string, r archive.Range) ([]byte, error) {
	t.Helper()
	body, _, err := b.Open(t.Context(), key, r)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	return io.ReadAll(body)
}

func wantObject(t *testing.T, b *Bucket, key string, want []byte) {
	t.Helper()
	if got, err := readAll(t, b, key, archive.Range{}); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s: %d bytes, %v; want the %d bytes that were stored", key, len(got), err, len(want))
	}
}

func TestPutSurvivesOneFault(t *testing.T) {
	cloud := devtest.Start(t)
	b := open(t, cloud, impatient)
	faults := passing("put")
	faults["wrong checksum"] = devoss.Fault{Op: "put", Kind: devoss.WrongCRC, Count: 1}
	for name, fault := range faults {
		for _, replace := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, replace %v", name, replace), func(t *testing.T) {
				cloud.SetFaults(fault)
				key, body := fmt.Sprintf("%s-%v", name, replace), []byte("content "+name)
				if err := b.Put(t.Context(), key, body, archive.PutOptions{Replace: replace, Meta: map[string]string{"a": "b"}}); err != nil {
					t.Fatal(err)
				}
				if fired := cloud.OSS.Faults()[0].Fired; fired != 1 {
					t.Errorf("the fault fired %d times", fired)
				}
				wantObject(t, b, key, body)
				if err := b.Put(t.Context(), key, []byte("other"), archive.PutOptions{}); !errors.Is(err, fs.ErrExist) {
					t.Errorf("creating it again: %v, want %v", err, fs.ErrExist)
				}
			})
		}
	}
}

func TestPutGivesUp(t *testing.T) {
	cloud := devtest.Start(t)
	b := open(t, cloud, impatient)
	faults := passing("put")
	delete(faults, "slow")
	for name, fault := range faults {
		t.Run(name, func(t *testing.T) {
			fault.Count = 0
			cloud.SetFaults(fault)
			err := b.Put(t.Context(), name, []byte("x"), archive.PutOptions{Replace: true})
			if err == nil || errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrExist) || errors.Is(err, fs.ErrPermission) ||
				errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
				t.Errorf("%v: want an error that claims nothing", err)
			}
			if fired := cloud.OSS.Faults()[0].Fired; fired != b.limits.Attempts {
				t.Errorf("%d attempts, want %d", fired, b.limits.Attempts)
			}
			if err != nil && !strings.Contains(err.Error(), "oss://"+cloud.Bucket+"/ns/db/"+name) {
				t.Errorf("%v: does not name the object", err)
			}
		})
	}
}

func TestLostAnswerIsReconciledByContent(t *testing.T) {
	cloud := devtest.Start(t)
	b := open(t, cloud)
	lost := devoss.Fault{Op: "put", Kind: devoss.ResetAfter, Count: 1}
	for _, c := range []struct {
		there string
		want  error
	}{
		{there: "mine", want: nil}, // as good as ours: same size, same checksum
		{there: "foreign, longer", want: fs.ErrExist},
		{there: "nine", want: fs.ErrExist},
	} {
		if err := cloud.OSS.WriteObject(cloud.Bucket, "ns/db/k", []byte(c.there)); err != nil {
			t.Fatal(err)
		}
		cloud.SetFaults(lost)
		if err := b.Put(t.Context(), "k", []byte("mine"), archive.PutOptions{}); !errors.Is(err, c.want) {
			t.Errorf("%q was there: %v, want %v", c.there, err, c.want)
		}
		wantObject(t, b, "k", []byte(c.there))
	}
	// Without a lost answer an object that exists is the caller's to judge, even an equal one.
	cloud.SetFaults()
	if err := b.Put(t.Context(), "k", []byte("nine"), archive.PutOptions{}); !errors.Is(err, fs.ErrExist) {
		t.Errorf("equal object, no lost answer: %v, want %v", err, fs.ErrExist)
	}
	// If it cannot be told, that is neither success nor "exists".
	cloud.SetFaults(lost, devoss.Fault{Op: "head", Kind: devoss.Status, Status: 503})
	err := b.Put(t.Context(), "k2", []byte("mine"), archive.PutOptions{})
	if err == nil || errors.Is(err, fs.ErrExist) || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("HEAD fails: %v, want an error that claims nothing", err)
	}
}

func TestPutRepairsOnlyItsOwnDamage(t *testing.T) {
	cloud := devtest.Start(t)
	b := open(t, cloud)
	cloud.SetFaults(devoss.Fault{Op: "put", Kind: devoss.WrongCRC})
	err := b.Put(t.Context(), "k", []byte("x"), archive.PutOptions{})
	if err == nil || errors.Is(err, fs.ErrExist) {
		t.Errorf("a checksum that never fits: %v, want an error", err)
	}
	// The next call has no proof any more that the object is its own.
	cloud.SetFaults()
	if err := b.Put(t.Context(), "k", []byte("x"), archive.PutOptions{}); !errors.Is(err, fs.ErrExist) {
		t.Errorf("afterwards: %v, want %v", err, fs.ErrExist)
	}
}

func TestCancelInTheMiddle(t *testing.T) {
	cloud := devtest.Start(t)
	b := open(t, cloud)
	gone := errors.New("the caller has gone")
	for name, fault := range map[string]devoss.Fault{
		"hang":  {Op: "put", Kind: devoss.Hang},
		"pause": {Op: "put", Kind: devoss.Status, Status: 503},
	} {
		t.Run(name, func(t *testing.T) {
			b.limits.Attempts, b.limits.Backoff = 1000, 50*time.Millisecond
			cloud.SetFaults(fault)
			ctx, cancel := context.WithCancelCause(t.Context())
			time.AfterFunc(100*time.Millisecond, func() { cancel(gone) })
			err := b.Put(ctx, "k", []byte("x"), archive.PutOptions{})
			if !errors.Is(err, gone) || !errors.Is(err, context.Canceled) {
				t.Errorf("%v, want %v", err, gone)
			}
		})
	}
}

func TestOutageShorterThanTheLimits(t *testing.T) {
	cloud := devtest.Start(t)
	b := open(t, cloud, func(c *Config) { c.Timeouts.Attempts, c.Timeouts.Backoff = 100, 20*time.Millisecond })
	cloud.Down()
	done := make(chan error, 1)
	go func() { done <- b.Put(t.Context(), "k", []byte("x"), archive.PutOptions{}) }()
	// An attempt must have failed before the cloud comes back, else nothing is tested.
	for begin := time.Now(); b.metricValue(t, "outrider_oss_retries_total") == 0; time.Sleep(5 * time.Millisecond) {
		if time.Since(begin) > 10*time.Second {
			t.Fatal("no attempt was made")
		}
	}
	cloud.Up()
	if err := <-done; err != nil {
		t.Error(err)
	}
	wantObject(t, b, "k", []byte("x"))
}
