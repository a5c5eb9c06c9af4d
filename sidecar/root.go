package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/oss"
	"outrider.dev/sidecar/policy"
)

// root is an opened archive and where it is.
type root struct {
	*archive.Archive
	bucket   *oss.Bucket
	location string
	number   int    // of its generation; 0 if it was named
	hidden   string // where the next generation would be, if nobody here may look there
}

// openNamed opens what a person means by a location: the newest generation of that root which is in use, or exactly the
// one that it ends in, where …@1 is the first. An error of the store is one of not knowing which that is.
func (a *app) openNamed(ctx context.Context, p policy.Policy, location string) (root, error) {
	location, err := policy.ParseRoot(location)
	if err != nil {
		return root{}, usagef("the archive %w", err)
	}
	if stem, n := cutGeneration(location); n > 0 {
		if n == 1 {
			location = stem
		}
		b, arch, err := a.openRoot(ctx, p, location)
		return root{Archive: arch, bucket: b, location: location}, err
	}
	p.Archive = location
	return a.openGeneration(ctx, p, 0)
}

// generation is where the n-th one of a root is.
func generation(location string, n int) string {
	if n > 1 {
		location += "@" + strconv.Itoa(n)
	}
	return location
}

// foresee looks whether a restore will be able to tell that there is no generation after r: with a role that sees this
// one alone it would wait, at the worst of times.
func (a *app) foresee(ctx context.Context, p policy.Policy, r root) (root, error) {
	next := generation(p.Archive, r.number+1)
	_, arch, err := a.openRoot(ctx, p, next)
	if err != nil {
		return r, err
	}
	if _, err = arch.Cluster(ctx); errors.Is(err, fs.ErrPermission) {
		r.hidden = next
	}
	return r, nil // what else there is to know of it does not matter now
}

// cutGeneration takes the number of a generation off a location; 0 if there is none.
func cutGeneration(location string) (stem string, n int) {
	at := strings.LastIndexByte(location, '@')
	if at < 0 {
		return location, 0
	}
	n, err := strconv.Atoi(location[at+1:])
	if err != nil || n < 1 || n > maxGenerations {
		return location, 0
	}
	return location[:at], n
}

// maxGenerations bounds how many roots are looked through: each is one major upgrade.
const maxGenerations = 50

// openGeneration opens the root of the database with this system identifier: the one that the policy names, or, after
// pg_upgrade with adopt, the next one (…@2, …@3). sysid 0 is a disk without a database: the newest root that is in use.
// With an error comes the root that did not answer as it should.
func (a *app) openGeneration(ctx context.Context, p policy.Policy, sysid uint64) (root, error) {
	var last root
	for n := 1; n <= maxGenerations; n++ {
		location := generation(p.Archive, n)
		b, arch, err := a.openRoot(ctx, p, location)
		if err != nil {
			return root{}, err
		}
		r := root{Archive: arch, bucket: b, location: location, number: n}
		c, err := arch.Cluster(ctx)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			if n == 1 || sysid != 0 && p.Adopt {
				return r, nil
			}
			return last, nil
		case err != nil && n > 1:
			return r, fmt.Errorf("looking whether the database has moved on to %s, as it does after pg_upgrade (the role needs oss:GetObject there too): %w", location, err)
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
