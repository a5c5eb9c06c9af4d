package policy

import (
	"fmt"
	"strconv"
	"strings"
)

// Credentials says where the sidecar's access to OSS comes from.
type Credentials struct {
	Kind CredentialsKind
	Name string // of the Secret, the RAM role for service accounts, or the RAM role of the node
}

// CredentialsKind is the part before the colon.
type CredentialsKind string

// The kinds of credentials.
const (
	CredentialsSecret  CredentialsKind = "secret"
	CredentialsRRSA    CredentialsKind = "rrsa"
	CredentialsRAMRole CredentialsKind = "ram-role"
)

// String is the form that an annotation has.
func (c Credentials) String() string { return string(c.Kind) + ":" + c.Name }

func parseCredentials(s string) (Credentials, error) {
	kind, name, _ := strings.Cut(s, ":")
	c := Credentials{Kind: CredentialsKind(kind), Name: name}
	// RAM allows letters, digits and hyphens in the name of a role.
	const role, maxRole = `[A-Za-z0-9-]+`, 64
	var err error
	switch c.Kind {
	case CredentialsSecret:
		_, err = matching(subdomainPattern, maxSubdomain, "secret: and the name of a Secret")(name)
	case CredentialsRRSA:
		_, err = matching(role+`|acs:ram::[0-9]+:role/`+role, 128, "rrsa: and the name or ARN of a RAM role")(name)
	case CredentialsRAMRole:
		_, err = matching(role, maxRole, "ram-role: and the name of a RAM role")(name)
	default:
		// The value is not repeated: somebody may have put a key here.
		return Credentials{}, fmt.Errorf("it names no source of credentials: expected secret:NAME, rrsa:ROLE or ram-role:NAME")
	}
	if err != nil {
		return Credentials{}, err
	}
	return c, nil
}

// RunAs is the identity of the PostgreSQL process. Its zero value means that it is to be detected.
type RunAs struct {
	UID int64
	GID int64 // NoGID if only the user was named
}

// NoGID is the group of a RunAs that names only a user.
const NoGID = -1

// String is the form that an annotation has.
func (r RunAs) String() string {
	if r.GID == NoGID {
		return strconv.FormatInt(r.UID, 10)
	}
	return fmt.Sprintf("%d:%d", r.UID, r.GID)
}

func parseRunAs(s string) (RunAs, error) {
	bad := fmt.Errorf("%q is not allowed: expected UID or UID:GID in digits, such as 999:999", s)
	user, group, two := strings.Cut(s, ":")
	r := RunAs{GID: NoGID}
	var ok bool
	if r.UID, ok = parseID(user); !ok {
		return RunAs{}, bad
	}
	if r.UID == 0 {
		return RunAs{}, fmt.Errorf("%q is root, as which PostgreSQL does not run: expected the UID of its process", s)
	}
	if two {
		if r.GID, ok = parseID(group); !ok {
			return RunAs{}, bad
		}
	}
	return r, nil
}

// parseID reads a user or group id; Kubernetes allows 31 bits.
func parseID(s string) (int64, bool) {
	n, err := strconv.ParseUint(s, 10, 31)
	return int64(n), err == nil
}
