package archivetest

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"testing"

	"outrider.dev/sidecar/internal/archive"
)

// answers calls every operation once and returns what it said.
func answers(ctx context.Context, b archive.Bucket) map[string]error {
	all := map[string]error{}
	_, all["stat"] = b.Stat(ctx, "there")
	_, all["stat missing"] = b.Stat(ctx, "missing")
	body, _, err := b.Open(ctx, "there", archive.Range{})
	if err == nil {
		err = body.Close()
	}
	all["open"] = err
	all["put"] = b.Put(ctx, "new", []byte("x"), archive.PutOptions{})
	all["replace"] = b.Put(ctx, "there", []byte("x"), archive.PutOptions{Replace: true})
	_, all["upload"] = b.Upload(ctx, "new", bytes.NewReader(nil), archive.PutOptions{})
	all["remove"] = b.Remove(ctx, "there")
	all["list"] = nil
	for _, err := range b.List(ctx, "", "") {
		all["list"] = err
	}
	return all
}

func testCancelled(t *testing.T, b archive.Bucket) {
	mustPut(t, b, "there", []byte("content"), archive.PutOptions{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for name, err := range answers(ctx, b) {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v, want %v", name, err, context.Canceled)
		}
	}
	wantContent(t, b, "there", []byte("content"))
	wantMissing(t, b, "new")
}

func testDenied(t *testing.T, b archive.Bucket) {
	breakable, ok := b.(Breakable)
	if !ok {
		return
	}
	mustPut(t, b, "there", []byte("content"), archive.PutOptions{})
	breakable.Deny(t)
	for name, err := range answers(t.Context(), b) {
		if !errors.Is(err, fs.ErrPermission) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrExist) {
			t.Errorf("%s: %v, want only %v", name, err, fs.ErrPermission)
		}
	}
}

func testDown(t *testing.T, b archive.Bucket) {
	breakable, ok := b.(Breakable)
	if !ok {
		return
	}
	mustPut(t, b, "there", []byte("content"), archive.PutOptions{})
	breakable.Down(t)
	for name, err := range answers(t.Context(), b) {
		if err == nil || errors.Is(err, fs.ErrPermission) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrExist) {
			t.Errorf("%s: %v, want an error that claims nothing", name, err)
		}
	}
}
