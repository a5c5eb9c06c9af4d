package oss_test

import (
	"bytes"
	"context"
	"errors"
	"hash/crc64"
	"io"
	"net/http"
	"os"
	"strconv"
	"testing"
	"time"

	v2 "github.com/aliyun/alibabacloud-oss-go-sdk-v2/oss"
	"github.com/aliyun/alibabacloud-oss-go-sdk-v2/oss/credentials"
	v1 "github.com/aliyun/aliyun-oss-go-sdk/oss"

	"outrider.dev/e2e/devcloud/devtest"
)

// oddKey holds all that is easily encoded wrongly.
const oddKey = "wal/a b+c~(1)'é&=%2F?#/\\<x>/000000010000000000000001"

func newV1(t *testing.T, cloud *devtest.Cloud, options ...v1.ClientOption) *v1.Bucket {
	t.Helper()
	client, err := v1.New(cloud.Endpoint, cloud.AccessKeyID, cloud.AccessKeySecret, append([]v1.ClientOption{v1.Region(cloud.Region)}, options...)...)
	if err != nil {
		t.Fatal(err)
	}
	bucket, err := client.Bucket(cloud.Bucket)
	if err != nil {
		t.Fatal(err)
	}
	return bucket
}

func newV2(cloud *devtest.Cloud, change ...func(*v2.Config)) *v2.Client {
	cfg := v2.LoadDefaultConfig().WithRegion(cloud.Region).WithEndpoint(cloud.Endpoint).
		WithCredentialsProvider(credentials.NewStaticCredentialsProvider(cloud.AccessKeyID, cloud.AccessKeySecret)).
		WithRetryMaxAttempts(1)
	for _, f := range change {
		f(cfg)
	}
	return v2.NewClient(cfg)
}

// code gives the error code of an answer through either SDK, and the status.
func code(err error) (string, int) {
	var e1 v1.ServiceError
	var e2 *v2.ServiceError
	switch {
	case errors.As(err, &e1):
		return e1.Code, e1.StatusCode
	case errors.As(err, &e2):
		return e2.Code, e2.StatusCode
	}
	return "", 0
}

func wantCode(t *testing.T, err error, want string) {
	t.Helper()
	if got, status := code(err); got != want {
		t.Errorf("got %q (%d, %v), want %q", got, status, err, want)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, r io.ReadCloser, err error) string {
	t.Helper()
	must(t, err)
	defer r.Close()
	data, err := io.ReadAll(r)
	must(t, err)
	return string(data)
}

func body(text string) io.Reader { return bytes.NewReader([]byte(text)) }

func deadline(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func equal[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

func header(t *testing.T, h http.Header, name, want string) {
	t.Helper()
	equal(t, "header "+name, h.Get(name), want)
}

func crcOf(text string) string {
	return strconv.FormatUint(crc64.Checksum([]byte(text), crc64.MakeTable(crc64.ECMA)), 10)
}

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	must(t, err)
	return data
}

func fetch(t *testing.T, url string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	must(t, err)
	resp, err := http.DefaultClient.Do(req)
	must(t, err)
	defer resp.Body.Close()
	return resp.StatusCode, read(t, resp.Body, nil)
}

func asError[T error](err error, target *T) bool { return errors.As(err, target) }
