package oss

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"strings"
	"time"

	sdk "github.com/aliyun/aliyun-oss-go-sdk/oss"
)

// operation names a kind of request; it is the label of the metrics.
type operation string

const (
	opPut        operation = "put"
	opGet        operation = "get"
	opHead       operation = "head"
	opList       operation = "list"
	opDelete     operation = "delete"
	opInitiate   operation = "initiate_upload"
	opPart       operation = "upload_part"
	opComplete   operation = "complete_upload"
	opAbort      operation = "abort_upload"
	opVersioning operation = "get_versioning"
)

// verb says what was being done, for messages; right is the permission that it takes.
func (op operation) verb() string {
	switch op {
	case opPut:
		return "storing"
	case opGet:
		return "reading"
	case opHead:
		return "asking for"
	case opList:
		return "listing"
	case opDelete:
		return "deleting"
	case opInitiate:
		return "beginning to upload"
	case opPart:
		return "uploading a part of"
	case opComplete:
		return "completing the upload of"
	case opAbort:
		return "giving up the upload of"
	case opVersioning:
		return "asking for the versioning of"
	}
	return string(op)
}

func (op operation) right() string {
	switch op {
	case opGet, opHead:
		return "oss:GetObject"
	case opList:
		return "oss:ListObjects"
	case opDelete:
		return "oss:DeleteObject"
	case opAbort:
		return "oss:AbortMultipartUpload"
	case opVersioning:
		return "oss:GetBucketVersioning"
	default:
		return "oss:PutObject"
	}
}

var (
	errNoUpload = errors.New("there is no such multipart upload (any more)")
	errChecksum = errors.New("what OSS has received is not what was sent")
	errNotOSS   = errors.New("the answer does not come from OSS: something in between has answered")
	errReplaced = errors.New("the object was replaced while it was being read: read it again from the start")
	errRange    = errors.New("the range begins past the end of the object")
	errNoAnswer = errors.New("no answer in time")
)

// reaction is what a failed attempt calls for.
type reaction int

const (
	giveUp reaction = iota
	retry
	renew    // other credentials, then once more
	setClock // take over the clock of OSS, then once more
)

// failure is a request that did not succeed. It unwraps to its kind (fs.ErrNotExist, fs.ErrExist, fs.ErrPermission,
// ErrConfiguration or none of them) and to its cause.
type failure struct {
	op       operation
	object   string // oss://bucket/key, for messages
	status   int
	code     string
	detail   string
	request  string // id of the request, for Alibaba's support
	remedy   string
	kind     error
	cause    error
	attempts int
	result   string // label of the metrics
	reaction reaction
	applied  bool // whether OSS may have done what was asked in spite of the failure
}

func (f *failure) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s: ", f.op.verb(), f.object)
	if f.code != "" || f.status != 0 {
		fmt.Fprintf(&b, "OSS answered %s", strings.TrimSpace(fmt.Sprintf("%d %s", f.status, f.code)))
		if f.detail != "" {
			fmt.Fprintf(&b, ": %s", strings.TrimRight(f.detail, ". "))
		}
	} else {
		b.WriteString(f.detail)
	}
	if f.request != "" {
		fmt.Fprintf(&b, " (request %s)", f.request)
	}
	if f.attempts > 1 {
		fmt.Fprintf(&b, ", %d attempts", f.attempts)
	}
	if f.remedy != "" {
		fmt.Fprintf(&b, "; %s", f.remedy)
	}
	return b.String()
}

// abandon makes f the failure of a call that its caller has given up, keeping what was known as text.
func (f *failure) abandon(ctx context.Context) {
	why := "given up by the caller"
	if f.detail != "" {
		why += " after: " + f.detail
	}
	f.detail, f.status, f.code, f.remedy = why, 0, "", ""
	f.kind, f.cause = ctx.Err(), context.Cause(ctx)
}

func (f *failure) Unwrap() []error {
	var all []error
	if f.kind != nil {
		all = append(all, f.kind)
	}
	if f.cause != nil {
		all = append(all, f.cause)
	}
	return all
}

// judge decides what an attempt's error means. parent is the caller's context, not that of the attempt.
func (b *Bucket) judge(parent context.Context, x *exchange, key string, err error) *failure {
	f := &failure{op: x.op, object: b.place.object(key), request: x.header.Get(sdk.HTTPHeaderOssRequestID)}
	if parent.Err() != nil {
		f.result, f.applied = "canceled", x.began
		f.abandon(parent)
		return f
	}
	var answer sdk.ServiceError
	switch {
	case errors.Is(err, errChecksum), errors.Is(err, errNotOSS), errors.Is(err, errNoAnswer):
		f.detail, f.cause, f.result, f.reaction = err.Error(), err, "error", retry
		f.applied = x.began
		if errors.Is(err, errNoAnswer) {
			f.result = "timeout"
		}
	case errors.As(err, &answer) && (answer.Code != "" || f.request != ""):
		b.judgeAnswer(f, answer, x)
	default:
		f.judgeTransport(err, x)
	}
	return f
}

// judgeTransport is for attempts that brought no answer of OSS's. Deadlines of ours must not look like the caller's,
// so the error is kept as text only.
func (f *failure) judgeTransport(err error, x *exchange) {
	f.result, f.reaction, f.applied = "error", retry, x.began
	f.detail = err.Error()
	if x.status != 0 && f.request == "" {
		f.detail = fmt.Sprintf("%v (HTTP status %d): %v", errNotOSS, x.status, err)
	}
	var (
		authority x509.UnknownAuthorityError
		host      x509.HostnameError
		invalid   x509.CertificateInvalidError
	)
	if errors.As(err, &authority) || errors.As(err, &host) || errors.As(err, &invalid) {
		f.reaction, f.kind, f.applied = giveUp, ErrConfiguration, false
		f.remedy = "the certificate of the endpoint is not trusted: check the endpoint and the CA certificates of this machine"
	}
}

func (b *Bucket) judgeAnswer(f *failure, a sdk.ServiceError, x *exchange) {
	f.status, f.code, f.detail, f.result = a.StatusCode, a.Code, a.Message, "error"
	switch {
	case a.StatusCode >= 500 || a.StatusCode == http.StatusRequestTimeout || a.StatusCode == http.StatusTooManyRequests,
		a.Code == "RequestTimeout", a.Code == "IncompleteBody", a.Code == "BadRequest":
		f.reaction, f.result, f.applied = retry, "unavailable", a.StatusCode >= 500
		if a.StatusCode == http.StatusTooManyRequests || strings.Contains(a.Code, "Limit") {
			f.result = "throttled"
		}
	case a.Code == "NoSuchBucket":
		f.kind = ErrConfiguration
		f.remedy = fmt.Sprintf("there is no bucket %q at this endpoint: create it or correct the archive's location", b.place.bucket)
	case a.Code == "NoSuchUpload":
		f.kind = errNoUpload
	case a.Code == "NoSuchKey",
		// A HEAD has no body to hold a code. That the answer is OSS's own shows in its request id.
		a.StatusCode == http.StatusNotFound && a.Code == "" && x.op == opHead && f.request != "":
		f.kind, f.result = fs.ErrNotExist, "not_found"
	case a.Code == "FileAlreadyExists" || a.Code == "FileImmutable" && x.op != opDelete:
		f.kind, f.result = fs.ErrExist, "exists"
	case a.StatusCode == http.StatusPreconditionFailed:
		f.kind = errReplaced
	case a.Code == "InvalidRange":
		f.kind = errRange
	case a.Code == "InvalidArgument" && strings.Contains(a.Message, "region"):
		f.kind = ErrConfiguration
		f.remedy = fmt.Sprintf("%q is not the region of this endpoint: set the OSS region", b.region)
	case a.Code == "InvalidObjectState":
		f.remedy = "the object is in an archive storage class: restore it to Standard first"
	case a.StatusCode == http.StatusForbidden:
		b.judgeForbidden(f, a, x)
	}
}

func (b *Bucket) judgeForbidden(f *failure, a sdk.ServiceError, x *exchange) {
	f.kind, f.result = fs.ErrPermission, "denied"
	skew := b.skew(x)
	switch {
	case a.Code == "RequestTimeTooSkewed" || a.Code == "" && abs(skew+time.Duration(b.offset.Load())) > allowedSkew:
		f.reaction, f.remedy = setClock, fmt.Sprintf("the clock of this machine is %s OSS's: set it by NTP", ahead(skew))
	case a.Code == "SecurityTokenExpired" || a.Code == "InvalidSecurityToken":
		f.reaction, f.remedy = renew, "the security token is expired or not valid: check where the temporary credentials come from (RRSA, RAM role or OSS_SESSION_TOKEN)"
	case a.Code == "AccessKeyIdAndSecurityTokenNotMatch":
		f.reaction, f.remedy = renew, "the security token belongs to another access key id: set all three from one answer of STS"
	case a.Code == "InvalidAccessKeyId":
		f.reaction, f.remedy = renew, "OSS does not know this access key id: it is wrong, deleted or disabled, or a temporary one without its security token"
	case a.Code == "SignatureDoesNotMatch":
		f.reaction = renew
		f.remedy = fmt.Sprintf("the access key secret does not belong to the access key id, or %q is not the region of the bucket", b.region)
	case a.Endpoint != "":
		f.kind = ErrConfiguration
		f.remedy = fmt.Sprintf("the bucket lives in another region: set the OSS endpoint to %s", a.Endpoint)
	case a.Code == "SecondLevelDomainForbidden":
		f.kind, f.remedy = ErrConfiguration, "OSS takes no IP address as endpoint: set its host name"
	case a.Code == "UserDisable":
		f.remedy = "the Alibaba Cloud account is suspended or in arrears"
	case a.Code == "KmsServiceNotEnabled":
		f.remedy = "the encryption asks for KMS: enable it, grant kms:GenerateDataKey and kms:Decrypt, or choose another encryption"
	default:
		f.remedy = fmt.Sprintf("grant the credentials the action %s on %s", f.op.right(), b.resource(f.op))
	}
}

// resource is how a RAM policy names what op acts on.
func (b *Bucket) resource(op operation) string {
	if op == opList || op == opVersioning {
		return fmt.Sprintf("acs:oss:*:*:%s", b.place.bucket)
	}
	return fmt.Sprintf("acs:oss:*:*:%s/%s*", b.place.bucket, b.place.prefix)
}

// allowedSkew is how far the time of a request may be from OSS's.
const allowedSkew = 15 * time.Minute

// skew is how far the clock of this machine is ahead of OSS's; 0 if the answer does not tell.
func (b *Bucket) skew(x *exchange) time.Duration {
	ahead, _ := x.ahead()
	return ahead
}

func ahead(d time.Duration) string {
	switch {
	case d.Round(time.Second) == 0:
		return "more than 15 minutes away from"
	case d < 0:
		return fmt.Sprintf("%s behind", (-d).Round(time.Second))
	}
	return fmt.Sprintf("%s ahead of", d.Round(time.Second))
}

func abs(d time.Duration) time.Duration { return max(d, -d) }
