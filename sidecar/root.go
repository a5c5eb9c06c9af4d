package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strconv"

	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/oss"
	"outrider.dev/sidecar/policy"
)

// root is an opened archive and where it is.
type root struct {
	*archive.Archive
	bucket   *oss.Bucket
	location string
}

// maxGenerations bounds how many roots are looked through: each is one major upgrade.
const maxGenerations = 50

// openGeneration opens the root of the database with this system identifier: the one that the policy names, or, after
// pg_upgrade with adopt, the next one (…@2, …@3). sysid 0 is a disk without a database: the newest root that is in use.
// With an error comes the root that did not answer as it should.
func (a *app) openGeneration(ctx context.Context, p policy.Policy, sysid uint64) (root, error) {
	var last root
	for n := 1; n <= maxGenerations; n++ {
		location := p.Archive
		if n > 1 {
			location += "@" + strconv.Itoa(n)
		}
		b, arch, err := a.openRoot(ctx, p, location)
		if err != nil {
			return root{}, err
		}
		r := root{Archive: arch, bucket: b, location: location}
		c, err := arch.Cluster(ctx)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			if n == 1 || sysid != 0 && p.Adopt {
				return r, nil
			}
			return last, nil
		case err != nil:
			return r, err
		case sysid != 0 && c.SystemIdentifier == sysid:
			return r, nil
		case sysid != 0 && !p.Adopt && n == 1:
			// A server that was adopted earlier has a root of its own further on; one that was not is refused later,
			// with the remedy, by whoever wants to write.
			last = r
			continue
		}
		if sysid == 0 {
			last = r
		}
	}
	return root{}, fmt.Errorf("looking for the root of this database: there are more than %d generations below %s", maxGenerations, p.Archive)
}
