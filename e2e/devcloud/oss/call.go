package oss

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"outrider.dev/e2e/devcloud/keys"
)

// timeXML is the form of times in XML documents.
const timeXML = "2006-01-02T15:04:05.000Z"

// call is one request on its way through the server.
type call struct {
	server *Server
	http   *http.Request
	w      *reply
	id     string
	start  time.Time
	plan   faultPlan

	bucket, key string
	query       query
	op          operation
	caller      keys.Key
	body        *bodyReader
	code        string // error code of the answer
}

// now is the server's clock, which a fault may have put wrong.
func (c *call) now() time.Time { return c.server.now().Add(c.plan.skew) }

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.running.Add(1)
	defer s.running.Done()
	c := &call{server: s, http: r, start: time.Now(), id: newRequestID()}
	c.body = &bodyReader{r: r.Body}
	c.w = &reply{ResponseWriter: w, call: c}
	routeErr := c.route()
	c.plan = s.faults.plan(c)
	defer func() { s.counters.count(c) }()
	if c.faultBefore() {
		return
	}
	h := c.w.Header()
	h.Set("Server", "AliyunOSS")
	h.Set("x-oss-request-id", c.id)
	h.Set("Date", c.now().UTC().Format(http.TimeFormat))
	c.run(routeErr)
	c.faultAfter()
}

// run does the operation and answers.
func (c *call) run(err error) {
	if err == nil {
		c.caller, err = c.authenticate()
	}
	if err == nil {
		err = c.authorize(c.op.action, c.bucket, c.policyKey())
	}
	if err == nil {
		err = c.op.serve(c)
	}
	c.body.drain()
	if err == nil {
		return
	}
	var gone *connectionError
	if c.w.status != 0 || errors.As(err, &gone) {
		// Too late for an answer: cut the connection, so that nobody takes the half for the whole.
		c.code = "Broken"
		c.w.reset()
		return
	}
	c.writeError(c.toError(err), true)
}

// route finds bucket, key and operation.
func (c *call) route() error {
	path, err := url.PathUnescape(strings.TrimPrefix(c.http.URL.EscapedPath(), "/"))
	if err != nil {
		return fail(400, "InvalidURI", "The path cannot be decoded: %v.", err)
	}
	host := c.http.Host
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	if name, ok := strings.CutSuffix(host, "."+c.server.domain); ok {
		c.bucket, c.key = name, path
	} else {
		// The bucket ends at the first slash of the escaped path: a bucket name needs no escapes.
		c.bucket, c.key, _ = strings.Cut(path, "/")
	}
	if c.query, err = parseQuery(c.http.URL.RawQuery); err != nil {
		return fail(400, "InvalidArgument", "The query cannot be decoded: %v.", err)
	}
	if c.op, err = c.findOperation(); err != nil {
		return err
	}
	if c.bucket != "" && !validBucketName(c.bucket) {
		return fail(400, "InvalidBucketName", "The specified bucket is not valid.").with("BucketName", c.bucket)
	}
	return checkKey(c.key)
}

func checkKey(key string) error {
	if len(key) > 1023 || strings.HasPrefix(key, "/") || strings.HasPrefix(key, `\`) {
		return fail(400, "InvalidObjectName", "The specified object is not valid: at most 1023 bytes, no slash or backslash at the beginning.").with("ObjectName", key)
	}
	return nil
}

// policyKey is what the prefixes of a policy are held against: a listing names a prefix instead of a key.
func (c *call) policyKey() keys.Request {
	switch {
	case c.op.action == "oss:ListObjects":
		return keys.Request{Key: c.query.get("prefix")}
	case c.key == "":
		return keys.Request{OnBucket: true}
	}
	return keys.Request{Key: c.key}
}

func (c *call) authorize(action, bucket string, q keys.Request) error {
	q.Action, q.Bucket = action, bucket
	if c.caller.Allows(q) {
		return nil
	}
	return fail(403, "AccessDenied", "You have no right to access this object because of bucket acl or policy: %s on %s/%s.", action, bucket, q.Key)
}

func newRequestID() string {
	b := make([]byte, 12)
	_, _ = rand.Read(b) // never fails
	return strings.ToUpper(hex.EncodeToString(b))
}

// writeXML answers 200 with a document.
func (c *call) writeXML(v any) error {
	body, err := xml.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("encode answer: %w", err)
	}
	c.w.Header().Set("Content-Type", "application/xml")
	c.w.Header().Set("Content-Length", strconv.Itoa(len(xml.Header)+len(body)))
	c.w.WriteHeader(http.StatusOK)
	_, _ = io.WriteString(c.w, xml.Header) // a client that has gone is no error of ours
	_, _ = c.w.Write(body)
	return nil
}

// writeEmpty answers without a body.
func (c *call) writeEmpty(status int) error {
	if status != http.StatusNoContent {
		c.w.Header().Set("Content-Length", "0")
	}
	c.w.WriteHeader(status)
	return nil
}

// readXML reads a small document from the body.
func (c *call) readXML(v any, limit int64) error {
	data, err := c.readSmall(limit)
	if err != nil {
		return err
	}
	if err := xml.Unmarshal(data, v); err != nil {
		return fail(400, "MalformedXML", "The XML you provided was not well-formed or did not validate: %v.", err)
	}
	return nil
}

func (c *call) readSmall(limit int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(c.body, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, fail(400, "MalformedXML", "The XML you provided is longer than %d bytes.", limit)
	}
	return data, checkDigest(c.http.Header.Get("Content-Md5"), data)
}
