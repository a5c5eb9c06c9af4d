package policy

import (
	"errors"
	"fmt"
	"net/url"
	"path"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/adhocore/gronx"
)

// matching checks a value against a whole-string pattern.
func matching(pattern string, most int, form string) func(string) (string, error) {
	return func(v string) (string, error) {
		// Compiled only where a value is checked: the table of keys is made anew for every pod.
		if len(v) > most || !regexp.MustCompile(`^(?:`+pattern+`)$`).MatchString(v) {
			return "", fmt.Errorf("%q is not allowed: expected %s", v, form)
		}
		return v, nil
	}
}

// Names that Kubernetes gives to containers, and to objects (RFC 1123 label and subdomain).
const (
	labelPattern     = `[a-z0-9]([-a-z0-9]*[a-z0-9])?`
	subdomainPattern = labelPattern + `(\.` + labelPattern + `)*`
	maxLabel         = 63
	maxSubdomain     = 253
)

// bucketPattern is OSS's rule for the names of buckets, see "Bucket naming conventions" in its documentation.
const bucketPattern = `[a-z0-9][-a-z0-9]{1,61}[a-z0-9]`

// maxPrefix leaves enough of the 1023 bytes that OSS allows for a key to the names below a root.
const maxPrefix = 512

func checkLocation(v string) (string, error) {
	bad := func(why string) (string, error) {
		return "", fmt.Errorf("%q is not a place in OSS: %s; expected oss://bucket/prefix", v, why)
	}
	rest, ok := strings.CutPrefix(v, "oss://")
	if !ok {
		return bad("it does not begin with oss://")
	}
	bucket, prefix, _ := strings.Cut(rest, "/")
	if !regexp.MustCompile(`^` + bucketPattern + `$`).MatchString(bucket) {
		return bad(fmt.Sprintf("%q cannot be the name of a bucket", bucket))
	}
	prefix = strings.TrimSuffix(prefix, "/")
	switch {
	case len(prefix) > maxPrefix:
		return bad(fmt.Sprintf("the prefix is longer than %d bytes", maxPrefix))
	case prefix == "":
		return "oss://" + bucket, nil
	case !regexp.MustCompile(`^[-A-Za-z0-9._@=+/]+$`).MatchString(prefix):
		return bad("the prefix may hold letters, digits and - . _ @ = + only")
	}
	for part := range strings.SplitSeq(prefix, "/") {
		if part == "" || part == "." || part == ".." {
			return bad("the prefix has an empty part, or one that is . or ..")
		}
	}
	return "oss://" + bucket + "/" + prefix, nil
}

// ParseRoot checks the root of one database, oss://bucket/prefix, and returns it without a trailing slash. A whole
// bucket is refused: stock WAL-G cannot work at its top, it would make keys that begin with a slash.
func ParseRoot(v string) (string, error) {
	root, err := checkLocation(v)
	if err == nil && strings.Count(root, "/") < 3 {
		err = fmt.Errorf("%q is a whole bucket: expected the root of one database, such as oss://bucket/prefix/namespace/cluster", v)
	}
	return root, err
}

func checkEndpoint(v string) (string, error) {
	form := "expected a host such as oss-cn-hangzhou-internal.aliyuncs.com, or its http:// or https:// URL"
	full := v
	if !strings.Contains(v, "://") {
		full = "https://" + v
	}
	u, err := url.Parse(full)
	if err != nil {
		// The error of url.Parse repeats the text, which may hold a password.
		return "", errors.New("it is not an endpoint: " + form)
	}
	switch {
	case u.User != nil:
		return "", errors.New("an endpoint holds no user name or password: credentials have variables of their own")
	case u.Scheme != "http" && u.Scheme != "https", u.Hostname() == "", u.Path != "" && u.Path != "/",
		u.RawQuery != "" || u.ForceQuery || u.Fragment != "", !hostPattern(u.Hostname()):
		return "", fmt.Errorf("%q is not an endpoint: %s", v, form)
	}
	if p := u.Port(); p != "" {
		if n, err := strconv.ParseUint(p, 10, 16); err != nil || n == 0 {
			return "", fmt.Errorf("%q is not an endpoint: %s is no port", v, p)
		}
	}
	return strings.TrimSuffix(v, "/"), nil
}

func hostPattern(h string) bool {
	return regexp.MustCompile(`^[-A-Za-z0-9.:]+$`).MatchString(h)
}

func checkRegion(v string) (string, error) {
	if strings.HasPrefix(v, "oss-") {
		return "", fmt.Errorf("%q is the location of a bucket: leave out oss- to name the region", v)
	}
	return matching(`[a-z]{2,}(-[a-z0-9]+)+`, maxLabel, "the id of a region, such as cn-hangzhou")(v)
}

func checkPath(v string) (string, error) {
	if !path.IsAbs(v) || path.Clean(v) == "/" || strings.ContainsAny(v, "\x00\n\r$") {
		return "", fmt.Errorf("%q is not allowed: expected the absolute path of a directory", v)
	}
	return path.Clean(v), nil
}

func checkSchedule(v string) (string, error) {
	fields := strings.Fields(v)
	schedule := strings.Join(fields, " ")
	if len(fields) != 5 || !gronx.IsValid(schedule) {
		return "", fmt.Errorf("%q is not a schedule: expected the five fields of cron, in UTC, such as 0 * * * *", v)
	}
	if _, err := gronx.NextTickAfter(schedule, time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC), false); err != nil {
		return "", fmt.Errorf("%q never comes round: %w", v, err)
	}
	return schedule, nil
}

func checkStorageClass(v string) (string, error) {
	switch v {
	case "Standard", "IA":
		return v, nil
	case "Archive", "ColdArchive", "DeepColdArchive":
		return "", fmt.Errorf("%q must be thawed before it can be read, so nothing could be restored from it at once: expected Standard or IA", v)
	}
	return "", fmt.Errorf("%q is not a storage class: expected Standard or IA", v)
}

func checkEncryption(v string) (string, error) {
	return matching(`none|AES256|KMS(:[-A-Za-z0-9/:_]{1,128})?`, 256, "none, AES256, KMS or KMS:KEY-ID")(v)
}

// checkQuery leaves the judgement to PostgreSQL; what cannot be in a variable of the environment can be in none.
func checkQuery(v string) (string, error) {
	if strings.TrimSpace(v) == "" || strings.ContainsRune(v, 0) {
		return "", errors.New("it is no query: expected one such as select count(*) > 0 from orders")
	}
	return v, nil
}
