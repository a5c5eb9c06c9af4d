// Package certs keeps the certificate that the webhook serves, the authority that signs it, and the list of authorities
// that API servers and pods trust. cert-controller makes keys and certificates; the order in which they come into use is
// decided here, because at no moment may a replica serve what some API server does not trust yet: admissions would be
// refused for as long as that lasts.
//
//  1. An authority is put into the Secret, then into the webhook configurations. Only when it has been there for the
//     time that this takes to reach every API server does it sign.
//  2. Its successor is made when a third of its life is left, and takes over when a sixth is. All that while new pods and
//     API servers are told of both.
//  3. Until it expires it stays in the list, so that whoever is late goes on trusting and being trusted.
//
// A leaf that is found in the Secret is therefore one that may be served. Every replica does all of this by itself:
// writes depend on what was read, the second of two writers sees a conflict and looks again.
package certs

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/prometheus/client_golang/prometheus"
)

// ErrConflict is the answer to a write of something that has changed since it was read.
var ErrConflict = errors.New("it has been changed by somebody else in the meantime")

// Cluster is where the certificates are kept and published.
type Cluster interface {
	// Secret reads the Secret. A Secret that is not there is an error: it comes with the manifests.
	Secret(ctx context.Context) (*corev1.Secret, error)
	// UpdateSecret writes a Secret that was read before; ErrConflict if it is not the same any more.
	UpdateSecret(ctx context.Context, s *corev1.Secret) error
	// Registrations reads the webhook configurations. One that does not exist is left out.
	Registrations(ctx context.Context) ([]Registration, error)
	// Publish sets the authorities of all webhooks of a registration; ErrConflict if it is not the same any more.
	Publish(ctx context.Context, r Registration, bundle []byte) error
}

// Registration is a webhook configuration, as far as certificates are concerned.
type Registration struct {
	Kind, Name string
	Version    string   // of the object
	Bundles    [][]byte // PEM, one for each webhook in it
}

// Durations say how long things last.
type Durations struct {
	CA, Leaf time.Duration
	// Settle is the time within which every API server has seen a change of a webhook configuration.
	Settle time.Duration
}

// Config is what a Keeper needs.
type Config struct {
	Cluster   Cluster
	DNSNames  []string // of the server, the first one is its common name
	Durations func() Durations
	Log       *slog.Logger
	Metrics   prometheus.Registerer // may be nil
}

// Keeper keeps certificates up to date while Run runs. Its other methods may be called at any time by anyone.
type Keeper struct {
	cfg     Config
	metrics *metrics

	// Only Run touches these.
	since   map[fingerprint]time.Time // when an authority was first seen in all registrations
	trouble string                    // the last error that was logged

	mu     sync.Mutex
	leaf   *tls.Certificate
	bundle string
	reason error // why nothing can be served safely; nil if it can
}

// New makes a Keeper that has not looked yet.
func New(cfg Config) *Keeper {
	return &Keeper{
		cfg: cfg, metrics: newMetrics(cfg.Metrics), since: map[fingerprint]time.Time{},
		reason: errors.New("the certificates have not been looked at yet"),
	}
}

// Certificate is for tls.Config.GetCertificate.
func (k *Keeper) Certificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.leaf == nil {
		return nil, fmt.Errorf("there is no certificate to serve yet: %w", k.reason)
	}
	return k.leaf, nil
}

// Bundle is the PEM of all authorities that sign, have signed or will sign the server's certificate. It is empty before
// the first of them is published.
func (k *Keeper) Bundle() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.bundle
}

// Ready is nil if a certificate is served that API servers trust, else it says what is missing.
func (k *Keeper) Ready() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.reason == nil && time.Now().After(k.leaf.Leaf.NotAfter) {
		return fmt.Errorf("the certificate expired at %s", k.leaf.Leaf.NotAfter.Format(time.RFC3339))
	}
	return k.reason
}

// Run looks after the certificates until ctx ends.
func (k *Keeper) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		wait, err := k.look(ctx)
		k.report(ctx, err)
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-t.C:
		}
		t.Stop()
	}
	return nil
}

// report logs an error when it comes, changes and goes. Replicas that meet each other are no news.
func (k *Keeper) report(ctx context.Context, err error) {
	if errors.Is(err, ErrConflict) || ctx.Err() != nil {
		return
	}
	text := ""
	if err != nil {
		text = err.Error()
		k.metrics.errors.Inc()
		k.mu.Lock()
		if k.leaf == nil {
			k.reason = err
		}
		k.mu.Unlock()
	}
	switch {
	case text == k.trouble:
	case err != nil:
		k.cfg.Log.ErrorContext(ctx, "looking after the certificates", "error", err)
	default:
		k.cfg.Log.InfoContext(ctx, "the certificates are in order again")
	}
	k.trouble = text
}

// Intervals between two looks. They cost a read of three objects.
const (
	longest  = 5 * time.Second
	shortest = 200 * time.Millisecond
	perLeaf  = 20 // of a leaf's life, for tests with short ones
)

// look does whatever is due and says when to look again.
func (k *Keeper) look(ctx context.Context) (time.Duration, error) {
	d := k.cfg.Durations()
	wait := min(longest, max(shortest, d.Leaf/perLeaf))
	// Each round does one step: a new authority, its publication, a leaf of it.
	for range 3 {
		secret, err := k.cfg.Cluster.Secret(ctx)
		if err != nil {
			return wait, err
		}
		now := time.Now()
		held, notes := parse(secret.Data, now)
		for _, n := range notes {
			k.cfg.Log.WarnContext(ctx, "part of the certificates' Secret cannot be used and will be made anew", "part", n.entry, "cause", n.cause)
		}
		published, err := k.publish(ctx, held, now)
		if err != nil {
			return shortest, err
		}
		k.adopt(ctx, held, published)
		next, done, err := k.plan(held, now, d)
		if err != nil {
			return wait, err
		}
		if done == nothingToDo && slices.ContainsFunc(notes, func(n note) bool { return n.entry != leafCert }) {
			done = repair
		}
		if done == nothingToDo {
			return min(wait, k.untilSettled(held, now, d)), nil
		}
		next.store(secret)
		if err := k.cfg.Cluster.UpdateSecret(ctx, secret); err != nil {
			return shortest, fmt.Errorf("%s: %w", done, err)
		}
		k.metrics.changes.WithLabelValues(done).Inc()
		k.cfg.Log.InfoContext(ctx, "the certificates have changed", "change", done)
	}
	return shortest, nil
}

// untilSettled is the time until an authority that waits for its first leaf may sign.
func (k *Keeper) untilSettled(s state, now time.Time, d Durations) time.Duration {
	if s.leaf != nil || s.ca == nil {
		return longest
	}
	since, ok := k.since[fingerprintOf(s.ca.cert)]
	if !ok {
		return longest
	}
	return max(time.Millisecond, since.Add(d.Settle).Sub(now))
}

// adopt serves the leaf of the Secret if API servers trust it, and says whether what is served is trusted.
func (k *Keeper) adopt(ctx context.Context, s state, published []*x509.Certificate) {
	now := time.Now()
	k.mu.Lock()
	defer k.mu.Unlock()
	k.bundle = string(encode(published))
	if s.leaf != nil && (k.leaf == nil || !k.leaf.Leaf.Equal(s.leaf.cert)) && k.verify(s.leaf.cert, published, now) == nil {
		if pair, err := s.leaf.tls(); err == nil {
			k.leaf = pair
			k.cfg.Log.InfoContext(ctx, "serving a certificate", "expires", pair.Leaf.NotAfter)
		}
	}
	if k.leaf == nil {
		k.reason = errors.New("the webhook configurations have not had the certificate's authority for long enough")
		return
	}
	k.reason = nil
	if err := k.verify(k.leaf.Leaf, published, now); err != nil {
		k.reason = fmt.Errorf("the webhook configurations do not trust the certificate that is served: %w", err)
	}
	k.metrics.expire(s, k.leaf.Leaf)
}

// verify tells whether somebody who trusts authorities trusts a leaf.
func (k *Keeper) verify(leaf *x509.Certificate, authorities []*x509.Certificate, now time.Time) error {
	pool := x509.NewCertPool()
	for _, c := range authorities {
		pool.AddCert(c)
	}
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: pool, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}); err != nil {
		return err
	}
	for _, name := range k.cfg.DNSNames {
		if err := leaf.VerifyHostname(name); err != nil {
			return err
		}
	}
	return nil
}
