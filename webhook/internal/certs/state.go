package certs

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Entries of the Secret. The first four are those that cert-controller writes.
const (
	caCert     = "ca.crt" // the authority that signs
	caKey      = "ca.key"
	leafCert   = "tls.crt"
	leafKey    = "tls.key"
	nextCert   = "next-ca.crt" // its successor, known to everybody before it signs
	nextKey    = "next-ca.key"
	formerCert = "former-ca.crt" // authorities that signed once and have not expired
)

// state is what the Secret holds. What it does not hold, or not any more, is nil.
type state struct {
	ca, next, leaf *pair
	former         []*x509.Certificate
}

// pair is a certificate and its key.
type pair struct {
	cert            *x509.Certificate
	certPEM, keyPEM []byte
}

func (p *pair) tls() (*tls.Certificate, error) {
	t, err := tls.X509KeyPair(p.certPEM, p.keyPEM)
	if err != nil {
		return nil, fmt.Errorf("reading the server's certificate: %w", err)
	}
	t.Leaf = p.cert
	return &t, nil
}

// note says that an entry is there and of no use.
type note struct {
	entry string
	cause error
}

// parse reads the Secret's entries. Expired and damaged ones count as missing; damaged ones are noted.
func parse(data map[string][]byte, now time.Time) (state, []note) {
	var s state
	var notes []note
	read := func(cert, key string, authority bool) *pair {
		if len(data[cert]) == 0 && len(data[key]) == 0 {
			return nil
		}
		p, err := parsePair(data[cert], data[key])
		if err == nil && p.cert.IsCA != authority {
			err = errors.New("it is not for this purpose")
		}
		if err != nil {
			notes = append(notes, note{cert, err})
			return nil
		}
		if now.After(p.cert.NotAfter) {
			return nil
		}
		return p
	}
	s.ca, s.next, s.leaf = read(caCert, caKey, true), read(nextCert, nextKey, true), read(leafCert, leafKey, false)
	former, err := decode(data[formerCert])
	if err != nil {
		notes = append(notes, note{formerCert, err})
	}
	s.former = unexpired(former, now)
	return s, notes
}

func parsePair(cert, key []byte) (*pair, error) {
	t, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, err
	}
	c, err := x509.ParseCertificate(t.Certificate[0])
	if err != nil {
		return nil, err
	}
	return &pair{cert: c, certPEM: cert, keyPEM: key}, nil
}

// store writes the state into a Secret. Entries of others stay.
func (s state) store(secret *corev1.Secret) {
	if secret.Data == nil {
		secret.Data = map[string][]byte{}
	}
	put := func(cert, key string, p *pair) {
		if p == nil {
			delete(secret.Data, cert)
			delete(secret.Data, key)
			return
		}
		secret.Data[cert], secret.Data[key] = p.certPEM, p.keyPEM
	}
	put(caCert, caKey, s.ca)
	put(nextCert, nextKey, s.next)
	if s.leaf != nil {
		// Never taken away: a Secret of the type kubernetes.io/tls must have both, and an expired one harms nobody.
		put(leafCert, leafKey, s.leaf)
	}
	delete(secret.Data, formerCert)
	if len(s.former) > 0 {
		secret.Data[formerCert] = encode(s.former)
	}
}

// authorities are all that are to be trusted, each once, in an order that all replicas share.
func (s state) authorities() []*x509.Certificate {
	list := slices.Clone(s.former)
	for _, p := range []*pair{s.ca, s.next} {
		if p != nil {
			list = append(list, p.cert)
		}
	}
	return ordered(list)
}

func ordered(list []*x509.Certificate) []*x509.Certificate {
	slices.SortFunc(list, func(a, b *x509.Certificate) int {
		return cmp.Or(a.NotAfter.Compare(b.NotAfter), bytes.Compare(a.Raw, b.Raw))
	})
	return slices.CompactFunc(list, (*x509.Certificate).Equal)
}

func unexpired(list []*x509.Certificate, now time.Time) []*x509.Certificate {
	return slices.DeleteFunc(list, func(c *x509.Certificate) bool { return now.After(c.NotAfter) })
}

// decode reads the certificates of a PEM text, as far as it can be read.
func decode(text []byte) ([]*x509.Certificate, error) {
	var list []*x509.Certificate
	for len(bytes.TrimSpace(text)) > 0 {
		block, rest := pem.Decode(text)
		if block == nil {
			return list, errors.New("it is not PEM")
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return list, err
		}
		list, text = append(list, c), rest
	}
	return list, nil
}

func encode(list []*x509.Certificate) []byte {
	var b []byte
	for _, c := range list {
		b = append(b, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return b
}

type fingerprint [sha256.Size]byte

func fingerprintOf(c *x509.Certificate) fingerprint { return sha256.Sum256(c.Raw) }
