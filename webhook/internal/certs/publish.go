package certs

import (
	"bytes"
	"context"
	"crypto/x509"
	"fmt"
	"slices"
	"time"
)

// publish makes every registration trust what the Secret holds, and returns all that they now trust of ours.
//
// What a registration trusts already stays until it expires, whatever the Secret says: it may be newer than what was
// read here, or the Secret may have been lost while its certificate is still served.
func (k *Keeper) publish(ctx context.Context, s state, now time.Time) ([]*x509.Certificate, error) {
	regs, err := k.cfg.Cluster.Registrations(ctx)
	if err != nil {
		return nil, err
	}
	want := s.authorities()
	for _, r := range regs {
		for _, b := range r.Bundles {
			have, _ := decode(b) // whatever else is there is replaced
			want = append(want, slices.DeleteFunc(unexpired(have, now), notOurs)...)
		}
	}
	want = ordered(want)
	if len(want) == 0 {
		return nil, nil
	}
	bundle := encode(want)
	for _, r := range regs {
		if !slices.ContainsFunc(r.Bundles, func(b []byte) bool { return !bytes.Equal(b, bundle) }) {
			continue
		}
		if err := k.cfg.Cluster.Publish(ctx, r, bundle); err != nil {
			return nil, fmt.Errorf("publishing the certificate authorities in %s %s: %w", r.Kind, r.Name, err)
		}
		k.metrics.published.Inc()
	}
	k.remember(want, now)
	return want, nil
}

func notOurs(c *x509.Certificate) bool {
	return !c.IsCA || c.Subject.CommonName != authorityName
}

// remember notes since when authorities are published, and forgets the others.
func (k *Keeper) remember(published []*x509.Certificate, now time.Time) {
	since := map[fingerprint]time.Time{}
	for _, c := range published {
		f := fingerprintOf(c)
		since[f] = now
		if t, ok := k.since[f]; ok {
			since[f] = t
		}
	}
	k.since = since
}
