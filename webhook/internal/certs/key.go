package certs

import (
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
)

// rsaKey reads a key as cert-controller writes it.
func rsaKey(text []byte) (*rsa.PrivateKey, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errKey
	}
	key, err := x509.ParsePKCS1PrivateKey(block.Bytes)
	if err != nil {
		return nil, errKey
	}
	return key, nil
}
