package oss

import (
	"crypto/hmac"
	"encoding/hex"
	"net/http"
	"strconv"
	"strings"
	"time"

	"outrider.dev/e2e/devcloud/keys"
)

// maxSkew is how far the date of a request may be from the server's.
const maxSkew = 15 * time.Minute

const isoBasic = "20060102T150405Z"

// authenticate finds out who sends the request and proves it, or refuses.
func (c *call) authenticate() (keys.Key, error) {
	authorization := c.http.Header.Get("Authorization")
	switch {
	case strings.HasPrefix(authorization, "OSS "):
		return c.headerV1(authorization[len("OSS "):])
	case strings.HasPrefix(authorization, algorithmV4+" "):
		return c.headerV4(authorization[len(algorithmV4)+1:])
	case authorization != "":
		return keys.Key{}, fail(400, "InvalidArgument", "Authorization header is invalid: it begins neither with OSS nor with %s.", algorithmV4)
	case c.query.has("x-oss-signature-version"):
		return c.presignedV4()
	case c.query.has("OSSAccessKeyId"):
		return c.presignedV1()
	}
	return keys.Key{}, fail(403, "AccessDenied", "Anonymous access is forbidden for this operation.")
}

func (c *call) signed() signedRequest {
	r := c.http
	length := ""
	if r.ContentLength >= 0 {
		length = strconv.FormatInt(r.ContentLength, 10)
	}
	return signedRequest{
		method: r.Method, bucket: c.bucket, key: c.key, query: c.query,
		header: r.Header, host: r.Host, contentLength: length,
	}
}

func (c *call) headerV1(text string) (keys.Key, error) {
	id, signature, ok := strings.Cut(text, ":")
	if !ok {
		return keys.Key{}, fail(400, "InvalidArgument", "Authorization header is invalid: no colon between key id and signature.")
	}
	key, err := c.lookup(id, c.http.Header.Get("x-oss-security-token"))
	if err != nil {
		return key, err
	}
	date := c.http.Header.Get("Date")
	if when := c.http.Header.Get("x-oss-date"); when != "" {
		date = when
	}
	at, parseErr := http.ParseTime(date)
	if parseErr != nil {
		return key, fail(403, "AccessDenied", "OSS authentication requires a valid Date.")
	}
	if err := c.checkSkew(at); err != nil {
		return key, err
	}
	text = stringToSignV1(c.signed(), c.http.Header.Get("Date"))
	return key, c.compare(key.ID, signature, signV1(key.Secret, text), text, "")
}

func (c *call) presignedV1() (keys.Key, error) {
	key, err := c.lookup(c.query.get("OSSAccessKeyId"), c.query.get("security-token"))
	if err != nil {
		return key, err
	}
	expires := c.query.get("Expires")
	at, parseErr := strconv.ParseInt(expires, 10, 64)
	if parseErr != nil {
		return key, badArgument("Expires", expires, "Expires has to be a number of seconds.")
	}
	if c.now().Unix() > at {
		return key, fail(403, "AccessDenied", "Request has expired.")
	}
	text := stringToSignV1(c.signed(), expires)
	return key, c.compare(key.ID, c.query.get("Signature"), signV1(key.Secret, text), text, "")
}

func (c *call) headerV4(text string) (keys.Key, error) {
	a, parseErr := parseAuthorizationV4(text)
	if parseErr != nil {
		return keys.Key{}, fail(400, "InvalidArgument", "Authorization header is invalid: %v.", parseErr)
	}
	key, err := c.lookup(a.accessKeyID, c.http.Header.Get("x-oss-security-token"))
	if err != nil {
		return key, err
	}
	if c.http.Header.Get("x-oss-content-sha256") == "" {
		return key, fail(400, "InvalidArgument", "The header x-oss-content-sha256 is missing.")
	}
	timestamp, layout := c.http.Header.Get("x-oss-date"), isoBasic
	if timestamp == "" {
		timestamp, layout = c.http.Header.Get("Date"), http.TimeFormat
	}
	at, parseErr := time.Parse(layout, timestamp)
	if parseErr != nil {
		return key, fail(403, "AccessDenied", "OSS authentication requires a valid x-oss-date or Date.")
	}
	if err := c.checkSkew(at); err != nil {
		return key, err
	}
	return key, c.verifyV4(key, a, at, timestamp)
}

func (c *call) presignedV4() (keys.Key, error) {
	q := c.query
	if v := q.get("x-oss-signature-version"); v != algorithmV4 {
		return keys.Key{}, badArgument("x-oss-signature-version", v, "Unknown signature version.")
	}
	a := authorizationV4{signature: q.get("x-oss-signature"), additional: splitHeaders(q.get("x-oss-additional-headers"))}
	if err := a.setCredential(q.get("x-oss-credential")); err != nil {
		return keys.Key{}, badArgument("x-oss-credential", q.get("x-oss-credential"), err.Error())
	}
	key, err := c.lookup(a.accessKeyID, q.get("x-oss-security-token"))
	if err != nil {
		return key, err
	}
	at, parseErr := time.Parse(isoBasic, q.get("x-oss-date"))
	if parseErr != nil {
		return key, badArgument("x-oss-date", q.get("x-oss-date"), "The date is not of the form 20060102T150405Z.")
	}
	seconds, parseErr := strconv.Atoi(q.get("x-oss-expires"))
	if parseErr != nil || seconds < 1 || seconds > 604800 {
		e := badArgument("x-oss-expires", q.get("x-oss-expires"), "x-oss-expires has to be between 1 and 604800 seconds.")
		e.EC = "0002-00000232"
		return key, e
	}
	now := c.now()
	if at.Sub(now) > maxSkew {
		return key, c.skewed(at)
	}
	if now.After(at.Add(time.Duration(seconds) * time.Second)) {
		return key, fail(403, "AccessDenied", "Request has expired.")
	}
	return key, c.verifyV4(key, a, at, q.get("x-oss-date"))
}

func (c *call) verifyV4(key keys.Key, a authorizationV4, at time.Time, timestamp string) error {
	switch {
	case a.date != at.UTC().Format("20060102"):
		return fail(400, "InvalidArgument", "The date %s in the credential is not that of the request, %s.", a.date, timestamp)
	case a.region != c.server.region:
		return fail(400, "InvalidArgument", "Invalid signing region %q in the credential: this is %q.", a.region, c.server.region)
	case a.product != "oss":
		return fail(400, "InvalidArgument", "Invalid signing product %q in the credential.", a.product)
	}
	canonical := canonicalV4(c.signed(), a.additional)
	text := stringToSignV4(canonical, timestamp, a.scope())
	return c.compare(key.ID, a.signature, signV4(key.Secret, a, text), text, canonical)
}

// lookup finds the access key and checks the security token that came with it.
func (c *call) lookup(id, token string) (keys.Key, error) {
	key, ok := c.server.keys.Lookup(id)
	switch {
	case !ok || key.Token != "" && token == "":
		return key, fail(403, "InvalidAccessKeyId", "The OSS Access Key Id you provided does not exist in our records.").with("OSSAccessKeyId", id)
	case key.Token == "" && token != "":
		return key, fail(403, "AccessKeyIdAndSecurityTokenNotMatch", "This access key has no security token.").with("OSSAccessKeyId", id)
	case key.Token != token:
		return key, fail(403, "InvalidSecurityToken", "The security token you provided is invalid.").with("OSSAccessKeyId", id)
	case key.Token != "" && !c.now().Before(key.Expires):
		return key, fail(403, "SecurityTokenExpired", "The security token you provided has expired.").with("OSSAccessKeyId", id)
	}
	return key, nil
}

func (c *call) checkSkew(at time.Time) error {
	if d := c.now().Sub(at); d > maxSkew || d < -maxSkew {
		return c.skewed(at)
	}
	return nil
}

func (c *call) skewed(at time.Time) *Error {
	return fail(403, "RequestTimeTooSkewed", "The difference between the request time and the current time is too large.").
		with("RequestTime", at.UTC().Format(timeXML)).with("ServerTime", c.now().UTC().Format(timeXML)).
		with("MaxAllowedSkewMilliseconds", strconv.FormatInt(maxSkew.Milliseconds(), 10))
}

// compare accepts the signature or says what the server signed, so that a client's error can be found.
func (c *call) compare(id, got, want, text, canonical string) error {
	if hmac.Equal([]byte(got), []byte(want)) {
		return nil
	}
	e := fail(403, "SignatureDoesNotMatch", "The request signature we calculated does not match the signature you provided. Check your key and signing method.").
		with("OSSAccessKeyId", id).with("SignatureProvided", got).
		with("StringToSign", text).with("StringToSignBytes", hex.EncodeToString([]byte(text)))
	if canonical != "" {
		e = e.with("CanonicalRequest", canonical)
	}
	return e
}
