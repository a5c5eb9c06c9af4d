package oss

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"testing"
	"time"

	"outrider.dev/e2e/devcloud/devtest"
	devoss "outrider.dev/e2e/devcloud/oss"
	"outrider.dev/sidecar/internal/archive"
)

const objectSize = 300_000

// withObject starts a cloud that holds one object.
func withObject(t *testing.T, change ...func(*Config)) (*devtest.Cloud, *Bucket, []byte) {
	t.Helper()
	cloud := devtest.Start(t)
	body := random(7, objectSize)
	if err := cloud.OSS.WriteObject(cloud.Bucket, "ns/db/k", body); err != nil {
		t.Fatal(err)
	}
	return cloud, open(t, cloud, change...), body
}

func TestReadSurvivesFaults(t *testing.T) {
	cloud, b, body := withObject(t, impatient)
	faults := passing("get")
	delete(faults, "slow")
	for name, f := range map[string]devoss.Fault{
		"cut at once":       {Kind: devoss.Truncate, At: -objectSize, Count: 1},
		"cut in the middle": {Kind: devoss.Truncate, Count: 1},
		"cut at the end":    {Kind: devoss.Truncate, At: -1, Count: 1},
		"cut four times":    {Kind: devoss.Truncate, Count: 4},
		"slow":              {Kind: devoss.Throttle, Rate: 1 << 20},
	} {
		f.Op = "get"
		faults[name] = f
	}
	for name, fault := range faults {
		t.Run(name, func(t *testing.T) {
			for _, r := range []archive.Range{{}, {From: 1000}, {From: 1000, To: objectSize - 1000}} {
				cloud.SetFaults(fault)
				to := r.To
				if to == 0 {
					to = objectSize
				}
				got, err := readAll(t, b, "k", r)
				if err != nil || !bytes.Equal(got, body[r.From:to]) {
					t.Errorf("range %v: %d bytes, %v", r, len(got), err)
				}
				if cloud.OSS.Faults()[0].Fired == 0 {
					t.Error("the fault did not fire")
				}
			}
		})
	}
}

// TestStalledRead: the headers and a byte come, and then nothing for long.
func TestStalledRead(t *testing.T) {
	cloud, b, body := withObject(t)
	cloud.SetFaults(devoss.Fault{Op: "get", Kind: devoss.Throttle, Rate: 1, Count: 1})
	if got, err := readAll(t, b, "k", archive.Range{}); err != nil || !bytes.Equal(got, body) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if n := cloud.Requests().Total("GetObject"); n != 2 {
		t.Errorf("%d requests, want one that stalled and one that went on", n)
	}
}

func TestReadGivesUp(t *testing.T) {
	cloud, b, _ := withObject(t, impatient)
	for name, fault := range map[string]devoss.Fault{
		"503":          {Kind: devoss.Status, Status: 503},
		"hang":         {Kind: devoss.Hang},
		"cut at once":  {Kind: devoss.Truncate, At: -objectSize},
		"reset before": {Kind: devoss.ResetBefore},
	} {
		t.Run(name, func(t *testing.T) {
			fault.Op = "get"
			cloud.SetFaults(fault)
			_, err := readAll(t, b, "k", archive.Range{})
			if err == nil || errors.Is(err, fs.ErrNotExist) || errors.Is(err, archive.ErrCorrupt) || errors.Is(err, context.Canceled) || errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("%v, want an error that claims nothing", err)
			}
			cloud.SetFaults()
		})
	}
}

// TestDamagedTransfer: what arrives must have the checksum that OSS recorded, also over several connections. That the
// transfer was damaged says nothing about the object.
func TestDamagedTransfer(t *testing.T) {
	cloud, b, body := withObject(t)
	for name, faults := range map[string][]devoss.Fault{
		"flipped bit":          {{Op: "get", Kind: devoss.Corrupt}},
		"flipped bit at end":   {{Op: "get", Kind: devoss.Corrupt, At: -1}},
		"wrong checksum":       {{Op: "get", Kind: devoss.WrongCRC}},
		"flipped, then resume": {{Op: "get", Kind: devoss.Corrupt, At: 5, Count: 1}, {Op: "get", Kind: devoss.Truncate, Count: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			cloud.SetFaults(faults...)
			got, err := readAll(t, b, "k", archive.Range{})
			if err == nil || errors.Is(err, archive.ErrCorrupt) || errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%v, want an error that does not blame the object", err)
			}
			if len(got) != len(body) {
				t.Errorf("%d bytes before the error", len(got))
			}
		})
	}
}

// cutInTheMiddle opens the object, reads the first half and lets the connection break.
func cutInTheMiddle(t *testing.T, cloud *devtest.Cloud, b *Bucket) io.ReadCloser {
	t.Helper()
	cloud.SetFaults(devoss.Fault{Op: "get", Kind: devoss.Truncate, Count: 1})
	r, _, err := b.Open(t.Context(), "k", archive.Range{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(r, make([]byte, objectSize/2)); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestResumedReadIsOfTheSameVersion(t *testing.T) {
	for name, change := range map[string]func(*devtest.Cloud) error{
		"replaced": func(c *devtest.Cloud) error { return c.OSS.WriteObject(c.Bucket, "ns/db/k", random(8, objectSize)) },
		"deleted":  func(c *devtest.Cloud) error { return c.OSS.RemoveObjects(c.Bucket, "ns/db/k") },
	} {
		t.Run(name, func(t *testing.T) {
			cloud, b, _ := withObject(t)
			r := cutInTheMiddle(t, cloud, b)
			if err := change(cloud); err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(r)
			if err == nil || len(got) != 0 || errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%d more bytes, %v: want none and an error that is not %v", len(got), err, fs.ErrNotExist)
			}
			if err := r.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestReadEndsWithItsContext(t *testing.T) {
	cloud, b, _ := withObject(t)
	cloud.SetFaults(devoss.Fault{Op: "get", Kind: devoss.Throttle, Rate: 100_000})
	ctx, cancel := context.WithCancel(t.Context())
	r, _, err := b.Open(ctx, "k", archive.Range{})
	if err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(50*time.Millisecond, cancel)
	if _, err := io.ReadAll(r); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want %v", err, context.Canceled)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}

func TestClosedRead(t *testing.T) {
	cloud, b, _ := withObject(t)
	cloud.SetFaults(devoss.Fault{Op: "get", Kind: devoss.Throttle, Rate: 100_000})
	r, _, err := b.Open(t.Context(), "k", archive.Range{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(r, make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := r.Read(make([]byte, 10)); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("reading what was closed: %v, want %v", err, fs.ErrClosed)
	}
}

// TestSlowConsumer: the limit is on waiting for OSS, not on what the reader does in between.
func TestSlowConsumer(t *testing.T) {
	_, b, body := withObject(t, func(c *Config) { c.Timeouts.Idle = 100 * time.Millisecond })
	r, _, err := b.Open(t.Context(), "k", archive.Range{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := io.ReadFull(r, make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	<-time.After(300 * time.Millisecond)
	rest, err := io.ReadAll(r)
	if err != nil || !bytes.Equal(rest, body[1000:]) {
		t.Errorf("%d bytes, %v", len(rest), err)
	}
	if n := b.metricValue(t, "outrider_oss_retries_total"); n != 0 {
		t.Errorf("the read was resumed %v times", n)
	}
}

func TestListAndRemoveSurviveFaults(t *testing.T) {
	cloud := devtest.Start(t)
	b := open(t, cloud, impatient)
	for _, op := range []string{"list", "delete", "head"} {
		faults := passing(op)
		if op != "head" {
			faults["cut"] = devoss.Fault{Op: op, Kind: devoss.Truncate, Count: 1}
		}
		for name, fault := range faults {
			t.Run(op+" "+name, func(t *testing.T) {
				for _, key := range []string{"d/1", "d/2"} {
					if err := b.Put(t.Context(), key, []byte(key), archive.PutOptions{Replace: true}); err != nil {
						t.Fatal(err)
					}
				}
				cloud.SetFaults(fault)
				if _, err := b.Stat(t.Context(), "d/1"); err != nil {
					t.Error(err)
				}
				if err := b.Remove(t.Context(), "d/1"); err != nil {
					t.Error(err)
				}
				n := 0
				for o, err := range b.List(t.Context(), "d/", "") {
					if n++; err != nil || o.Key != "d/2" {
						t.Errorf("listed %q, %v", o.Key, err)
					}
				}
				if n != 1 || cloud.OSS.Faults()[0].Fired != 1 {
					t.Errorf("%d keys listed, the fault fired %d times", n, cloud.OSS.Faults()[0].Fired)
				}
			})
		}
	}
}
