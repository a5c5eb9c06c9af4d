package oss

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	sdk "github.com/aliyun/aliyun-oss-go-sdk/oss"

	"outrider.dev/sidecar/internal/archive"
)

// Versioning says whether a bucket keeps versions of its objects.
type Versioning string

// The values of Versioning. Only a bucket that never had it can hold an archive.
const (
	VersioningUnknown   Versioning = "" // not asked yet, or not allowed to ask
	VersioningNever     Versioning = "never"
	VersioningEnabled   Versioning = "enabled"
	VersioningSuspended Versioning = "suspended"
)

// versioningOf reads the status in OSS's words; it has none for a bucket that never had versioning.
func versioningOf(status string) Versioning {
	if status == "" {
		return VersioningNever
	}
	return Versioning(strings.ToLower(status))
}

// Versioning is what OSS said of the bucket at the last Probe.
func (b *Bucket) Versioning() Versioning {
	if v := b.versioning.Load(); v != nil {
		return *v
	}
	return VersioningUnknown
}

// probeText is the content of the probe object.
const probeText = "Outrider proves with this object that the bucket refuses to overwrite what exists.\n"

// Probe finds out before anything depends on it whether the bucket can hold an archive: that it can be reached and
// listed, that it is not versioned, and that an object that was created can be read
// and not created again. It leaves the object archive.ProbeKey behind. ErrConfiguration and fs.ErrPermission need a person; any
// other error may pass.
func (b *Bucket) Probe(ctx context.Context) error {
	if err := b.probeVersioning(ctx); err != nil {
		return err
	}
	if _, _, err := b.page(ctx, "", ""); err != nil {
		return err
	}
	created, err := b.createProbe(ctx)
	if err != nil {
		return err
	}
	if created {
		if created, err = b.createProbe(ctx); err != nil {
			return err
		}
	}
	if created {
		return fmt.Errorf("%s has let an object be created twice: %w; the bucket is versioned, or what answers is not OSS: use a bucket that never had versioning, because there x-oss-forbid-overwrite fences a second writer", b, ErrConfiguration)
	}
	info, err := b.Stat(ctx, archive.ProbeKey)
	if err == nil && info.Size != int64(len(probeText)) {
		err = fmt.Errorf("%s has %d bytes instead of %d: is something else writing below %s?", b.place.object(archive.ProbeKey), info.Size, len(probeText), b)
	}
	return err
}

// createProbe tells whether the object was created; false means that OSS refused because it exists.
func (b *Bucket) createProbe(ctx context.Context) (bool, error) {
	_, err := b.do(ctx, call{
		op: opPut, key: archive.ProbeKey, size: int64(len(probeText)),
		run: func(opts []sdk.Option) error {
			opts = append(opts, b.creation(archive.PutOptions{}, "")...)
			return b.sdk.PutObject(b.place.prefix+archive.ProbeKey, strings.NewReader(probeText), append(opts, sdk.ForbidOverWrite(true))...)
		},
		check: func(x *exchange) error { return x.checkOrigin() },
	})
	if errors.Is(err, fs.ErrExist) {
		return false, nil
	}
	return err == nil, err
}

// probeVersioning refuses a bucket that keeps versions. Whoever may not ask is answered by the probe object.
func (b *Bucket) probeVersioning(ctx context.Context) error {
	var status string
	_, err := b.do(ctx, call{
		op: opVersioning,
		run: func(opts []sdk.Option) error {
			// Not Client.GetBucketVersioning, which takes no context.
			resp, err := b.sdk.Do("GET", "", map[string]any{"versioning": nil}, opts, nil, nil)
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			var answer sdk.GetBucketVersioningResult
			if err := xml.NewDecoder(resp.Body).Decode(&answer); err != nil {
				return fmt.Errorf("reading the answer: %w", err)
			}
			status = answer.Status
			return nil
		},
		check: func(x *exchange) error { return x.checkOrigin() },
	})
	var f *failure
	if errors.As(err, &f) && f.code == "AccessDenied" && !errors.Is(err, ErrConfiguration) {
		return nil
	}
	if err != nil {
		return err
	}
	b.versioning.Store(new(versioningOf(status)))
	if status == "Enabled" || status == "Suspended" {
		return fmt.Errorf("bucket %s has versioning %s: %w: x-oss-forbid-overwrite does nothing there, so a second writer could not be fenced, and WAL-G refuses such buckets too; versioning cannot be removed, so use a new bucket that never had it",
			b.place.bucket, status, ErrConfiguration)
	}
	return nil
}
