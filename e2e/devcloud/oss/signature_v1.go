package oss

import (
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base64"
	"net/http"
	"slices"
	"strings"
)

// signedRequest is the part of a request that signatures cover.
type signedRequest struct {
	method        string
	bucket, key   string
	query         query
	header        http.Header
	host          string
	contentLength string
}

// subResourcesV1 are the parameters that signature version 1 covers; all others of a request are not signed. Those
// that begin with x-oss- are signed as well.
const subResourcesV1 = " acl uploads location cors logging website referer lifecycle delete append tagging objectMeta " +
	"uploadId partNumber security-token position img style styleName replication replicationProgress " +
	"replicationLocation cname bucketInfo comp qos live status vod startTime endTime symlink " +
	"response-content-type response-content-language response-expires response-cache-control " +
	"response-content-disposition response-content-encoding udf udfName udfImage udfId udfImageDesc udfApplication " +
	"udfApplicationLog restore callback callback-var qosInfo policy stat encryption versions versioning versionId " +
	"requestPayment sequential inventory inventoryId continuation-token asyncFetch worm wormId wormExtend " +
	"withHashContext transferAcceleration regionList cloudboxes metaQuery resourceGroup rtc responseHeader seal "

func signedInV1(name string) bool {
	return strings.HasPrefix(name, "x-oss-") || strings.Contains(subResourcesV1, " "+name+" ")
}

// stringToSignV1 builds the text of signature version 1. date is the Date header, or Expires of a presigned URL.
func stringToSignV1(r signedRequest, date string) string {
	var b strings.Builder
	for _, part := range []string{r.method, r.header.Get("Content-Md5"), r.header.Get("Content-Type"), date} {
		b.WriteString(part + "\n")
	}
	for _, name := range ossHeaders(r.header) {
		b.WriteString(name + ":" + headerValue(r.header, name) + "\n")
	}
	b.WriteByte('/')
	if r.bucket != "" {
		b.WriteString(r.bucket + "/" + r.key)
	}
	var signed []string
	for _, p := range r.query {
		switch {
		case !signedInV1(p.name):
		case p.value == "":
			signed = append(signed, p.name)
		default:
			signed = append(signed, p.name+"="+p.value)
		}
	}
	slices.Sort(signed)
	if len(signed) > 0 {
		b.WriteString("?" + strings.Join(signed, "&"))
	}
	return b.String()
}

func signV1(secret, text string) string {
	mac := hmac.New(sha1.New, []byte(secret))
	mac.Write([]byte(text))
	return base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// ossHeaders lists the x-oss-* headers, lower-case and sorted.
func ossHeaders(h http.Header) []string {
	var names []string
	for name := range h {
		if lower := strings.ToLower(name); strings.HasPrefix(lower, "x-oss-") {
			names = append(names, lower)
		}
	}
	slices.Sort(names)
	return names
}

func headerValue(h http.Header, name string) string {
	var values []string
	for _, v := range h.Values(name) {
		values = append(values, strings.TrimSpace(v))
	}
	return strings.Join(values, ",")
}
