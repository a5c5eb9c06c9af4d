package certs

import (
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/open-policy-agent/cert-controller/pkg/rotator"
)

// authorityName is the common name of the authorities. It tells them from others in a webhook configuration.
const authorityName = "outrider-webhook-ca"

// backdate is how far in the past certificates begin, because clocks differ.
const backdate = time.Hour

// Changes of the Secret, as the metric names them.
const (
	newAuthority  = "authority"
	newSuccessor  = "successor"
	takeOver      = "take_over"
	newLeaf       = "server"
	repair        = "repair" // what is damaged goes; a damaged leaf is replaced
	nothingToDo   = ""
	renewFraction = 3 // with less than a third of its life left a certificate is renewed
	takeFraction  = 6 // with less than a sixth left an authority gives way to its successor
)

// plan is the next change that is due, of which there may be more. It changes nothing but its result.
func (k *Keeper) plan(s state, now time.Time, d Durations) (state, string, error) {
	var err error
	switch {
	case s.ca == nil && s.next != nil:
		return k.promote(s, now, d)
	case s.ca == nil:
		s.ca, err = k.makeAuthority(now, d.CA)
		return s, newAuthority, err
	case s.next == nil && left(s.ca.cert, now, renewFraction):
		s.next, err = k.makeAuthority(now, d.CA)
		return s, newSuccessor, err
	case s.next != nil && left(s.ca.cert, now, takeFraction) && k.settled(s.next.cert, now, d):
		return k.promote(s, now, d)
	case k.wantsLeaf(s, now) && k.settled(s.ca.cert, now, d):
		s.leaf, err = k.makeLeaf(s.ca, now, d.Leaf)
		return s, newLeaf, err
	}
	return s, nothingToDo, nil
}

// promote lets the successor take over, with a leaf of its own if it is trusted already.
func (k *Keeper) promote(s state, now time.Time, d Durations) (state, string, error) {
	if s.ca != nil {
		s.former = ordered(append(s.former[:len(s.former):len(s.former)], s.ca.cert))
	}
	s.ca, s.next = s.next, nil
	var err error
	if k.settled(s.ca.cert, now, d) {
		s.leaf, err = k.makeLeaf(s.ca, now, d.Leaf)
	}
	return s, takeOver, err
}

// wantsLeaf tells whether there should be another leaf. One that could not last longer is not wanted.
func (k *Keeper) wantsLeaf(s state, now time.Time) bool {
	if s.leaf == nil || k.verify(s.leaf.cert, s.authorities(), now) != nil {
		return true
	}
	return left(s.leaf.cert, now, renewFraction) && s.leaf.cert.NotAfter.Before(s.ca.cert.NotAfter)
}

// settled tells whether all API servers have had the time to learn of an authority.
func (k *Keeper) settled(c *x509.Certificate, now time.Time, d Durations) bool {
	since, ok := k.since[fingerprintOf(c)]
	return ok && now.Sub(since) >= d.Settle
}

// left tells whether less than a part of its life is left to a certificate.
func left(c *x509.Certificate, now time.Time, part time.Duration) bool {
	life := c.NotAfter.Sub(c.NotBefore) - backdate
	return c.NotAfter.Sub(now) < life/part
}

// maker makes certificates with cert-controller. Its rotation is not used: it replaces authority and leaf in one write.
func (k *Keeper) maker() *rotator.CertRotator {
	return &rotator.CertRotator{
		CAName: authorityName, CAOrganization: "outrider.dev",
		DNSName: k.cfg.DNSNames[0], ExtraDNSNames: k.cfg.DNSNames[1:],
		ExtKeyUsages: &[]x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
}

func (k *Keeper) makeAuthority(now time.Time, life time.Duration) (*pair, error) {
	a, err := k.maker().CreateCACert(now.Add(-backdate), now.Add(life))
	if err != nil {
		return nil, fmt.Errorf("making a certificate authority: %w", err)
	}
	return &pair{cert: a.Cert, certPEM: a.CertPEM, keyPEM: a.KeyPEM}, nil
}

// makeLeaf makes a certificate for the server that does not outlive its authority.
func (k *Keeper) makeLeaf(ca *pair, now time.Time, life time.Duration) (*pair, error) {
	key, err := rsaKey(ca.keyPEM)
	if err != nil {
		return nil, err
	}
	end := now.Add(life)
	if ca.cert.NotAfter.Before(end) {
		end = ca.cert.NotAfter
	}
	artifacts := &rotator.KeyPairArtifacts{Cert: ca.cert, Key: key, CertPEM: ca.certPEM, KeyPEM: ca.keyPEM}
	cert, keyPEM, err := k.maker().CreateCertPEM(artifacts, now.Add(-backdate), end)
	if err != nil {
		return nil, fmt.Errorf("making the server's certificate: %w", err)
	}
	p, err := parsePair(cert, keyPEM)
	if err != nil {
		return nil, fmt.Errorf("reading the server's new certificate: %w", err)
	}
	return p, nil
}

var errKey = errors.New("the key of the certificate authority in the Secret is not one of RSA in PEM: remove ca.crt and ca.key from it, and new ones are made")
