package oss

import (
	"context"
	"errors"
	"fmt"
	"slices"

	sdk "github.com/aliyun/aliyun-oss-go-sdk/oss"
)

// Remove implements archive.Writer. It goes on after a batch that failed, so that one key without the right to delete
// does not keep the others.
func (b *Bucket) Remove(ctx context.Context, keys ...string) error {
	for _, key := range keys {
		if err := b.place.checkKey(key); err != nil {
			return err
		}
	}
	var errs []error
	for batch := range slices.Chunk(keys, pageSize) {
		if err := b.removeBatch(ctx, batch); err != nil {
			errs = append(errs, err)
			if ctx.Err() != nil {
				break
			}
		}
	}
	return errors.Join(errs...)
}

func (b *Bucket) removeBatch(ctx context.Context, keys []string) error {
	full := make([]string, len(keys))
	for i, key := range keys {
		full[i] = b.place.prefix + key
	}
	name := keys[0]
	if len(keys) > 1 {
		name = fmt.Sprintf("%s and %d more", name, len(keys)-1)
	}
	var answer sdk.DeleteObjectsResult
	_, err := b.do(ctx, call{
		op: opDelete, key: name,
		run: func(opts []sdk.Option) (err error) {
			// Not in quiet mode: there the SDK ignores the answer altogether, while the long answer names what is gone.
			answer, err = b.sdk.DeleteObjects(full, opts...)
			return err
		},
		check: func(*exchange) error { return confirm(full, answer.DeletedObjects) },
	})
	return err
}

// confirm compares the keys that OSS says are gone with those it was asked to delete.
func confirm(asked, gone []string) error {
	named := make(map[string]bool, len(gone))
	for _, key := range gone {
		named[key] = true
	}
	for _, key := range asked {
		if !named[key] {
			return fmt.Errorf("OSS has not confirmed that %s is deleted", key)
		}
	}
	return nil
}
