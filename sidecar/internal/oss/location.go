package oss

import (
	"fmt"
	"net/url"
	"regexp"
	"strings"

	sdk "github.com/aliyun/aliyun-oss-go-sdk/oss"
)

// place is a bucket and a prefix that ends in a slash.
type place struct{ bucket, prefix string }

func (p place) String() string { return "oss://" + p.bucket + "/" + strings.TrimSuffix(p.prefix, "/") }

func (p place) object(key string) string { return "oss://" + p.bucket + "/" + p.prefix + key }

var (
	// The rules of OSS for names of buckets: 3 to 63 lower-case letters, digits and hyphens, none at the ends.
	bucketName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{1,61}[a-z0-9]$`)
	regionName = regexp.MustCompile(`^[a-z]+(-[a-z0-9]+)+$`)
	// Endpoints of a region: oss-<region>.aliyuncs.com and oss-<region>-internal.aliyuncs.com.
	endpointName = regexp.MustCompile(`^oss-([a-z0-9-]+?)(-internal)?\.aliyuncs\.com$`)
)

// maxKey is the longest key that OSS takes, in bytes.
const maxKey = 1023

func parseLocation(s string) (place, error) {
	const form = "expected oss://bucket/prefix"
	rest, ok := strings.CutPrefix(s, "oss://")
	if !ok {
		return place{}, fmt.Errorf("%q is not a place in OSS: %s", s, form)
	}
	bucket, prefix, _ := strings.Cut(rest, "/")
	if !bucketName.MatchString(bucket) {
		return place{}, fmt.Errorf("%q: %q is not the name of a bucket (3 to 63 lower-case letters, digits and hyphens): %s", s, bucket, form)
	}
	prefix = strings.TrimSuffix(prefix, "/")
	if prefix == "" {
		return place{}, fmt.Errorf("%q names a whole bucket: add a prefix, such as oss://%s/postgres; WAL-G cannot read an archive at the top of a bucket", s, bucket)
	}
	for _, part := range strings.Split(prefix, "/") {
		if part == "" || part == "." || part == ".." || strings.ContainsAny(part, "\\\r\n\x00") {
			return place{}, fmt.Errorf("%q: %q cannot be part of a prefix: %s", s, part, form)
		}
	}
	if len(prefix) > maxKey/2 {
		return place{}, fmt.Errorf("%q: the prefix has more than %d bytes", s, maxKey/2)
	}
	return place{bucket: bucket, prefix: prefix + "/"}, nil
}

// locate completes endpoint and region from each other. The result has a scheme.
func locate(endpoint, region string) (string, string, error) {
	region = strings.TrimPrefix(region, "oss-") // the spelling of GetBucketLocation
	if region != "" && !regionName.MatchString(region) {
		return "", "", fmt.Errorf("OSS region %q: expected a name such as cn-hangzhou", region)
	}
	if endpoint == "" {
		if region == "" {
			return "", "", fmt.Errorf("neither an OSS endpoint nor a region was given: set one of them, such as region cn-hangzhou")
		}
		return "https://oss-" + region + ".aliyuncs.com", region, nil
	}
	if !strings.Contains(endpoint, "://") {
		// The SDK would choose http here and send WAL in the clear.
		endpoint = "https://" + endpoint
	}
	u, err := url.Parse(endpoint)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || strings.Trim(u.Path, "/") != "" || u.User != nil || u.RawQuery != "" {
		return "", "", fmt.Errorf("OSS endpoint %q: expected a host such as oss-cn-hangzhou-internal.aliyuncs.com, if need be with https:// or http:// before it", endpoint)
	}
	if m := endpointName.FindStringSubmatch(u.Hostname()); m != nil && region == "" && !strings.HasPrefix(m[1], "accelerate") {
		region = m[1]
	}
	if region == "" {
		return "", "", fmt.Errorf("the region of OSS endpoint %q cannot be told from its name: set the region, such as cn-hangzhou", endpoint)
	}
	return u.Scheme + "://" + u.Host, region, nil
}

func checkClass(class string) error {
	switch class {
	case "", string(sdk.StorageStandard), string(sdk.StorageIA):
		return nil
	case string(sdk.StorageArchive), string(sdk.StorageColdArchive), string(sdk.StorageDeepColdArchive):
		return fmt.Errorf("storage class %s cannot be read at once, so a restore would hang on it: use Standard or IA", class)
	}
	return fmt.Errorf("storage class %q: expected Standard or IA", class)
}

func encryptionOptions(s string) ([]sdk.Option, error) {
	method, key, hasKey := strings.Cut(s, ":")
	switch {
	case s == "" || s == "none":
		return nil, nil
	case s == "AES256" || s == "KMS":
		return []sdk.Option{sdk.ServerSideEncryption(s)}, nil
	case method == "KMS" && hasKey && key != "" && !strings.ContainsAny(key, " \r\n"):
		return []sdk.Option{sdk.ServerSideEncryption("KMS"), sdk.ServerSideEncryptionKeyID(key)}, nil
	}
	return nil, fmt.Errorf("encryption %q: expected none, AES256, KMS or KMS: and the id of a key", s)
}

// checkKey refuses what OSS would refuse, or would store where nothing finds it again.
func (p place) checkKey(key string) error {
	if key == "" || strings.HasPrefix(key, "/") || len(p.prefix)+len(key) > maxKey {
		return fmt.Errorf("%q cannot be a key below %s: it must have 1 to %d bytes and not begin with a slash", key, p, maxKey-len(p.prefix))
	}
	return nil
}
