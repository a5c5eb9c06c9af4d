package oss

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"testing"
	"time"

	"outrider.dev/e2e/devcloud/devtest"
	devoss "outrider.dev/e2e/devcloud/oss"
	"outrider.dev/sidecar/internal/archive"
)

func random(seed uint64, n int) []byte {
	b := make([]byte, n)
	src := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	_, _ = src.Read(b)
	return b
}

func smallParts(c *Config) { c.PartSize = minPartSize }

// fiveParts is a body of four parts and a bit.
func fiveParts() []byte { return random(5, 4*minPartSize+17) }

func uploads(cloud *devtest.Cloud) int { return cloud.Requests().Buckets[cloud.Bucket].Uploads }

func TestUploadSurvivesOneFault(t *testing.T) {
	cloud := devtest.Start(t)
	b := open(t, cloud, impatient, smallParts)
	for _, op := range []string{"initiate", "part", "complete"} {
		faults := passing(op)
		if op == "part" {
			faults["wrong checksum"] = devoss.Fault{Op: op, Kind: devoss.WrongCRC, Count: 3}
		}
		for name, fault := range faults {
			t.Run(op+" "+name, func(t *testing.T) {
				before := uploads(cloud)
				cloud.SetFaults(fault)
				info, err := b.Upload(t.Context(), op+name, bytes.NewReader(fiveParts()), archive.PutOptions{Meta: map[string]string{"a": "b"}})
				if err != nil {
					t.Fatal(err)
				}
				if info.Size != int64(len(fiveParts())) {
					t.Errorf("size %d", info.Size)
				}
				wantObject(t, b, op+name, fiveParts())
				if s := cloud.OSS.Faults()[0]; s.Fired != s.Fault.Count || op == "part" && s.Matched != 5+s.Fired && name != "slow" {
					t.Errorf("of %d requests %d failed: not each was made again", s.Matched, s.Fired)
				}
				// An upload whose id was lost with the answer cannot be given up: the bucket's lifecycle rule does it.
				leftOver := 0
				if op == "initiate" && name == "reset after" {
					leftOver = 1
				}
				if n := uploads(cloud) - before; n != leftOver {
					t.Errorf("%d unfinished uploads are left, want %d", n, leftOver)
				}
			})
		}
	}
}

func TestUploadGivesUp(t *testing.T) {
	cloud := devtest.Start(t)
	b := open(t, cloud, impatient, smallParts)
	for _, op := range []string{"initiate", "part", "complete"} {
		for _, fault := range []devoss.Fault{{Kind: devoss.Status, Status: 503}, {Kind: devoss.ResetBefore}, {Kind: devoss.Status, Status: 403}} {
			t.Run(fmt.Sprint(op, fault.Kind, fault.Status), func(t *testing.T) {
				fault.Op, fault.Skip = op, 1
				if op != "part" {
					fault.Skip = 0
				}
				cloud.SetFaults(fault)
				_, err := b.Upload(t.Context(), "k", bytes.NewReader(fiveParts()), archive.PutOptions{})
				if err == nil || errors.Is(err, fs.ErrExist) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, context.Canceled) {
					t.Errorf("%v, want an error that claims nothing of the object", err)
				}
				if errors.Is(err, fs.ErrPermission) != (fault.Status == 403) {
					t.Errorf("%v for status %d", err, fault.Status)
				}
				if n := uploads(cloud); n != 0 {
					t.Errorf("%d unfinished uploads are left", n)
				}
				cloud.SetFaults()
				if _, err := b.Stat(t.Context(), "k"); !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("afterwards: %v, want %v", err, fs.ErrNotExist)
				}
			})
		}
	}
}

func TestUploadIsAbortedAfterCancel(t *testing.T) {
	cloud := devtest.Start(t)
	b := open(t, cloud, smallParts)
	cloud.SetFaults(devoss.Fault{Op: "part", Kind: devoss.Hang, Skip: 1})
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := b.Upload(ctx, "k", bytes.NewReader(fiveParts()), archive.PutOptions{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v, want %v", err, context.DeadlineExceeded)
	}
	if n := cloud.Requests().Operations["AbortMultipartUpload"][devoss.OK]; n != 1 {
		t.Errorf("given up %d times, want once although the context had ended", n)
	}
	if n := uploads(cloud); n != 0 {
		t.Errorf("%d unfinished uploads are left", n)
	}
}

func TestUploadWhoseAbortFails(t *testing.T) {
	cloud := devtest.Start(t)
	b := open(t, cloud, smallParts)
	cloud.SetFaults(devoss.Fault{Op: "part", Kind: devoss.Status, Status: 403}, devoss.Fault{Op: "abort", Kind: devoss.Status, Status: 503})
	if _, err := b.Upload(t.Context(), "k", bytes.NewReader(fiveParts()), archive.PutOptions{}); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("%v, want the cause, %v", err, fs.ErrPermission)
	}
}

func TestLostCompletionIsReconciledByContent(t *testing.T) {
	cloud := devtest.Start(t)
	b := open(t, cloud, smallParts)
	lost := devoss.Fault{Op: "complete", Kind: devoss.ResetAfter, Count: 1}
	cloud.SetFaults(lost)
	if _, err := b.Upload(t.Context(), "mine", bytes.NewReader(fiveParts()), archive.PutOptions{}); err != nil {
		t.Errorf("applied, answer lost: %v", err)
	}
	wantObject(t, b, "mine", fiveParts())

	// Somebody else creates the object while ours is on its way, and the refusal is lost.
	for name, foreign := range map[string][]byte{"foreign": []byte("foreign"), "equal": fiveParts()} {
		cloud.SetFaults(lost)
		body := io.MultiReader(bytes.NewReader(fiveParts()), &atEnd{run: func() {
			if err := cloud.OSS.WriteObject(cloud.Bucket, "ns/db/"+name, foreign); err != nil {
				t.Error(err)
			}
		}})
		_, err := b.Upload(t.Context(), name, body, archive.PutOptions{})
		if want := map[string]error{"foreign": fs.ErrExist}[name]; !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
		wantObject(t, b, name, foreign)
	}
	if n := uploads(cloud); n != 0 {
		t.Errorf("%d unfinished uploads are left", n)
	}
}

// atEnd is an empty stream that does something.
type atEnd struct{ run func() }

func (a *atEnd) Read([]byte) (int, error) {
	if a.run != nil {
		a.run()
		a.run = nil
	}
	return 0, io.EOF
}

func TestWrongChecksumOfTheWholeIsReported(t *testing.T) {
	cloud := devtest.Start(t)
	b := open(t, cloud, smallParts)
	cloud.SetFaults(devoss.Fault{Op: "complete", Kind: devoss.WrongCRC})
	if _, err := b.Upload(t.Context(), "k", bytes.NewReader(fiveParts()), archive.PutOptions{}); !errors.Is(err, errChecksum) {
		t.Errorf("%v, want %v", err, errChecksum)
	}
	wantObject(t, b, "k", fiveParts()) // not deleted: the reader decides
	if n := cloud.Requests().Total("DeleteMultipleObjects", "DeleteObject", "AbortMultipartUpload"); n != 0 {
		t.Errorf("%d requests to delete", n)
	}
}

// meter tells how much of a stream was asked for beyond what OSS has.
type meter struct {
	io.Reader
	read int64
	most int64
	sent func() int64
}

func (m *meter) Read(p []byte) (int, error) {
	n, err := m.Reader.Read(p)
	m.read += int64(n)
	m.most = max(m.most, m.read-m.sent())
	return n, err
}

func TestUploadHoldsThreeParts(t *testing.T) {
	cloud := devtest.Start(t)
	b := open(t, cloud, smallParts)
	cloud.SetFaults(devoss.Fault{Op: "part", Kind: devoss.Delay, Delay: 20 * time.Millisecond})
	m := &meter{Reader: bytes.NewReader(random(1, 20*minPartSize)), sent: func() int64 {
		var n int64
		for _, r := range cloud.OSS.Recent(0) {
			if r.Operation == "UploadPart" && r.Result == devoss.OK {
				n += r.BytesIn
			}
		}
		return n
	}}
	if _, err := b.Upload(t.Context(), "k", m, archive.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	// A part counts as held until the server has counted it.
	if m.most > 4*minPartSize {
		t.Errorf("%d bytes were held, want at most three parts of %d", m.most, minPartSize)
	}
	if m.most < 2*minPartSize {
		t.Errorf("at most %d bytes were held: parts are not sent in parallel", m.most)
	}
}

func TestPartsHoldBigStreams(t *testing.T) {
	total := 0
	for n := 1; n <= maxParts; n++ {
		size := partSizeOf(defaultPartSize, n)
		if size < minPartSize || size > maxPartSize {
			t.Fatalf("part %d has %d bytes", n, size)
		}
		total += size
	}
	if total < 7<<40 {
		t.Errorf("%d parts hold %d bytes, want at least 7 TiB", maxParts, total)
	}
}

func TestClassesAndEncryption(t *testing.T) {
	cloud := devtest.Start(t)
	for _, c := range []struct {
		class, encryption      string
		wantPut, wantUpload    string
		wantMethod, wantMethID string
	}{
		{"", "", "Standard", "Standard", "", ""},
		{"", "none", "Standard", "Standard", "", ""},
		{"Standard", "AES256", "Standard", "Standard", "AES256", ""},
		{"IA", "KMS", "Standard", "IA", "KMS", ""},
		{"IA", "KMS:key-1", "Standard", "IA", "KMS", "key-1"},
	} {
		t.Run(c.class+c.encryption, func(t *testing.T) {
			b := open(t, cloud, smallParts, func(cfg *Config) { cfg.StorageClass, cfg.Encryption = c.class, c.encryption })
			if err := b.Put(t.Context(), "put", []byte("x"), archive.PutOptions{Replace: true}); err != nil {
				t.Fatal(err)
			}
			if _, err := b.Upload(t.Context(), "one", bytes.NewReader(nil), archive.PutOptions{Replace: true}); err != nil {
				t.Fatal(err)
			}
			if _, err := b.Upload(t.Context(), "parts", bytes.NewReader(fiveParts()), archive.PutOptions{Replace: true}); err != nil {
				t.Fatal(err)
			}
			for key, class := range map[string]string{"put": c.wantPut, "one": c.wantUpload, "parts": c.wantUpload} {
				_, o, err := cloud.OSS.ReadObject(cloud.Bucket, "ns/db/"+key)
				if err != nil {
					t.Fatal(err)
				}
				if o.Class != class || o.Header["content-type"] != "application/octet-stream" ||
					o.Header["x-oss-server-side-encryption"] != c.wantMethod || o.Header["x-oss-server-side-encryption-key-id"] != c.wantMethID {
					t.Errorf("%s: class %s, headers %v", key, o.Class, o.Header)
				}
				if info, err := b.Stat(t.Context(), key); err != nil || info.StorageClass != class {
					t.Errorf("%s: stat says class %q, %v", key, info.StorageClass, err)
				}
			}
		})
	}
}
