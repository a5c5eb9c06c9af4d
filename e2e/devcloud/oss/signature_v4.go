package oss

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
)

const algorithmV4 = "OSS4-HMAC-SHA256"

// authorizationV4 is the content of an Authorization header, or the same from the query of a presigned URL.
type authorizationV4 struct {
	accessKeyID string
	date        string // yyyymmdd
	region      string
	product     string
	additional  []string // lower-case header names
	signature   string
}

func (a authorizationV4) scope() string {
	return a.date + "/" + a.region + "/" + a.product + "/aliyun_v4_request"
}

// parseAuthorizationV4 reads what follows the algorithm in an Authorization header.
func parseAuthorizationV4(text string) (authorizationV4, error) {
	var a authorizationV4
	var credential string
	for field := range strings.SplitSeq(text, ",") {
		name, value, ok := strings.Cut(strings.TrimSpace(field), "=")
		if !ok || value == "" {
			return a, fmt.Errorf("the field %q has no value", name)
		}
		switch name {
		case "Credential":
			credential = value
		case "AdditionalHeaders":
			a.additional = splitHeaders(value)
		case "Signature":
			a.signature = value
		default:
			return a, fmt.Errorf("unknown field %q", name)
		}
	}
	err := a.setCredential(credential)
	return a, err
}

func splitHeaders(list string) []string {
	if list == "" {
		return nil
	}
	names := strings.Split(strings.ToLower(list), ";")
	slices.Sort(names)
	return names
}

func (a *authorizationV4) setCredential(credential string) error {
	parts := strings.Split(credential, "/")
	n := len(parts)
	if n < 5 || parts[n-1] != "aliyun_v4_request" {
		return fmt.Errorf("the credential %q is not <id>/<yyyymmdd>/<region>/oss/aliyun_v4_request", credential)
	}
	a.accessKeyID = strings.Join(parts[:n-4], "/")
	a.date, a.region, a.product = parts[n-4], parts[n-3], parts[n-2]
	return nil
}

// canonicalV4 builds the canonical request of signature version 4.
func canonicalV4(r signedRequest, additional []string) string {
	uri := "/"
	if r.bucket != "" {
		uri += r.bucket + "/" + percentEncode(r.key, "/")
	}
	var params []string
	for _, p := range r.query {
		switch {
		case p.name == "x-oss-signature":
		case p.value == "":
			params = append(params, percentEncode(p.name, ""))
		default:
			params = append(params, percentEncode(p.name, "")+"="+percentEncode(p.value, ""))
		}
	}
	slices.SortFunc(params, func(a, b string) int {
		nameA, valueA, _ := strings.Cut(a, "=")
		nameB, valueB, _ := strings.Cut(b, "=")
		if c := strings.Compare(nameA, nameB); c != 0 {
			return c
		}
		return strings.Compare(valueA, valueB)
	})
	var headers strings.Builder
	for _, name := range headersV4(r, additional) {
		headers.WriteString(name + ":" + r.headerV4(name) + "\n")
	}
	payload := r.header.Get("x-oss-content-sha256")
	if payload == "" {
		payload = "UNSIGNED-PAYLOAD"
	}
	return strings.Join([]string{
		r.method, uri, strings.Join(params, "&"), headers.String(), strings.Join(additional, ";"), payload,
	}, "\n")
}

// headersV4 lists the headers that are signed: some always, the rest because the request says so.
func headersV4(r signedRequest, additional []string) []string {
	names := ossHeaders(r.header)
	for _, name := range []string{"content-type", "content-md5"} {
		if len(r.header.Values(name)) > 0 {
			names = append(names, name)
		}
	}
	names = append(names, additional...)
	slices.Sort(names)
	return slices.Compact(names)
}

func (r signedRequest) headerV4(name string) string {
	switch name {
	case "host":
		return r.host
	case "content-length":
		return r.contentLength
	}
	return headerValue(r.header, name)
}

// stringToSignV4 hashes the canonical request; timestamp is the text of x-oss-date or, without it, of Date.
func stringToSignV4(canonical, timestamp, scope string) string {
	sum := sha256.Sum256([]byte(canonical))
	return strings.Join([]string{algorithmV4, timestamp, scope, hex.EncodeToString(sum[:])}, "\n")
}

func signV4(secret string, a authorizationV4, text string) string {
	key := []byte("aliyun_v4" + secret)
	for _, part := range []string{a.date, a.region, a.product, "aliyun_v4_request", text} {
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(part))
		key = mac.Sum(nil)
	}
	return hex.EncodeToString(key)
}
