package oss

import (
	"net/http"
)

// operation is one of OSS's API operations.
type operation struct {
	name   string // as in the API documentation
	class  string // what faults are aimed at: put, get, head, list, delete, append, initiate, part, complete, abort, copy, bucket
	action string // what a policy has to allow
	serve  func(*call) error
}

// rule selects an operation by method and parameters; the first rule that fits counts.
type rule struct {
	method string
	params []string // all present
	header string   // present, unless ""
	operation
}

func serviceRules() []rule {
	return []rule{
		{"GET", nil, "", operation{"ListBuckets", "bucket", "oss:ListBuckets", (*call).listBuckets}},
	}
}

func bucketRules() []rule {
	return []rule{
		{"GET", []string{"bucketInfo"}, "", operation{"GetBucketInfo", "bucket", "oss:GetBucketInfo", (*call).getBucketInfo}},
		{"GET", []string{"location"}, "", operation{"GetBucketLocation", "bucket", "oss:GetBucketLocation", (*call).getBucketLocation}},
		{"GET", []string{"acl"}, "", operation{"GetBucketAcl", "bucket", "oss:GetBucketAcl", (*call).getBucketACL}},
		{"GET", []string{"stat"}, "", operation{"GetBucketStat", "bucket", "oss:GetBucketStat", (*call).getBucketStat}},
		{"GET", []string{"versioning"}, "", operation{"GetBucketVersioning", "bucket", "oss:GetBucketVersioning", (*call).getBucketVersioning}},
		{"PUT", []string{"versioning"}, "", operation{"PutBucketVersioning", "bucket", "oss:PutBucketVersioning", (*call).putBucketVersioning}},
		{"GET", []string{"lifecycle"}, "", operation{"GetBucketLifecycle", "bucket", "oss:GetBucketLifecycle", (*call).getBucketLifecycle}},
		{"PUT", []string{"lifecycle"}, "", operation{"PutBucketLifecycle", "bucket", "oss:PutBucketLifecycle", (*call).putBucketLifecycle}},
		{"DELETE", []string{"lifecycle"}, "", operation{"DeleteBucketLifecycle", "bucket", "oss:DeleteBucketLifecycle", (*call).deleteBucketLifecycle}},
		{"GET", []string{"uploads"}, "", operation{"ListMultipartUploads", "list", "oss:ListMultipartUploads", (*call).listUploads}},
		{"POST", []string{"delete"}, "", operation{"DeleteMultipleObjects", "delete", "oss:DeleteObject", (*call).deleteObjects}},
		{"GET", []string{"list-type"}, "", operation{"ListObjectsV2", "list", "oss:ListObjects", (*call).listObjectsV2}},
		{"GET", nil, "", operation{"ListObjects", "list", "oss:ListObjects", (*call).listObjects}},
		{"PUT", nil, "", operation{"PutBucket", "bucket", "oss:PutBucket", (*call).putBucket}},
		{"DELETE", nil, "", operation{"DeleteBucket", "bucket", "oss:DeleteBucket", (*call).deleteBucket}},
	}
}

func objectRules() []rule {
	const copySource = "X-Oss-Copy-Source"
	return []rule{
		{"HEAD", []string{"objectMeta"}, "", operation{"GetObjectMeta", "head", "oss:GetObject", (*call).getObjectMeta}},
		{"HEAD", nil, "", operation{"HeadObject", "head", "oss:GetObject", (*call).headObject}},
		{"GET", []string{"uploadId"}, "", operation{"ListParts", "list", "oss:ListParts", (*call).listParts}},
		{"GET", []string{"tagging"}, "", operation{"GetObjectTagging", "get", "oss:GetObjectTagging", (*call).getObjectTagging}},
		{"GET", nil, "", operation{"GetObject", "get", "oss:GetObject", (*call).getObject}},
		{"PUT", []string{"partNumber", "uploadId"}, copySource, operation{"UploadPartCopy", "part", "oss:PutObject", (*call).uploadPartCopy}},
		{"PUT", []string{"partNumber", "uploadId"}, "", operation{"UploadPart", "part", "oss:PutObject", (*call).uploadPart}},
		{"PUT", nil, copySource, operation{"CopyObject", "copy", "oss:PutObject", (*call).copyObject}},
		{"PUT", nil, "", operation{"PutObject", "put", "oss:PutObject", (*call).putObject}},
		{"POST", []string{"append"}, "", operation{"AppendObject", "append", "oss:PutObject", (*call).appendObject}},
		{"POST", []string{"uploads"}, "", operation{"InitiateMultipartUpload", "initiate", "oss:PutObject", (*call).initiateUpload}},
		{"POST", []string{"uploadId"}, "", operation{"CompleteMultipartUpload", "complete", "oss:PutObject", (*call).completeUpload}},
		{"POST", []string{"restore"}, "", operation{"RestoreObject", "put", "oss:RestoreObject", (*call).restoreObject}},
		{"DELETE", []string{"uploadId"}, "", operation{"AbortMultipartUpload", "abort", "oss:AbortMultipartUpload", (*call).abortUpload}},
		{"DELETE", nil, "", operation{"DeleteObject", "delete", "oss:DeleteObject", (*call).deleteObject}},
	}
}

// unsupported are parameters that change what a request means. To serve such a request as if they were not there
// would be a lie, so one that no rule names is refused.
func unsupported() []string {
	return []string{
		"acl", "uploads", "location", "cors", "logging", "website", "referer", "lifecycle", "delete", "append", "tagging",
		"uploadId", "partNumber", "position", "img", "replication", "cname", "symlink", "restore", "callback", "policy",
		"stat", "encryption", "versions", "versioning", "requestPayment", "inventory", "asyncFetch", "worm", "objectWorm",
		"wormExtend", "transferAcceleration", "metaQuery", "resourceGroup", "rtc", "seal", "overwriteConfig", "x-oss-process",
		"bucketInfo", "publicAccessBlock", "httpsConfig", "archiveDirectRead", "accessmonitor", "style", "select",
	}
}

// findOperation says what the request asks for.
func (c *call) findOperation() (operation, error) {
	rules := c.server.rules.object
	switch {
	case c.bucket == "":
		rules = c.server.rules.service
	case c.key == "":
		rules = c.server.rules.bucket
	}
	for _, r := range rules {
		if r.matches(c) {
			return r.operation, c.checkSupported(r)
		}
	}
	return operation{name: "Unknown"}, fail(http.StatusMethodNotAllowed, "MethodNotAllowed", "The specified method is not allowed against this resource.").
		with("Method", c.http.Method).with("ResourceType", "Object")
}

func (r rule) matches(c *call) bool {
	if r.method != c.http.Method || r.header != "" && len(c.http.Header[r.header]) == 0 {
		return false
	}
	for _, p := range r.params {
		if !c.query.has(p) {
			return false
		}
	}
	return true
}

func (c *call) checkSupported(r rule) error {
	used := map[string]bool{"position": r.name == "AppendObject"}
	for _, p := range r.params {
		used[p] = true
	}
	for _, name := range c.server.rules.unsupported {
		if c.query.has(name) && !used[name] {
			return fail(http.StatusNotImplemented, "NotImplemented", "This stand-in does not implement %s with the parameter %q.", c.http.Method, name)
		}
	}
	return nil
}
