// Package rights runs Outrider with the rights of the RAM policies in manifests/ram, and with no others.
package rights

import (
	"bytes"
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"outrider.dev/e2e/devcloud/keys"
	"outrider.dev/e2e/stage"
)

// bucket is that of the policies.
const bucket = "backups"

// policy is a RAM policy as far as ours go.
type policy struct {
	Version   string
	Statement []statement
}

type statement struct {
	Effect    string
	Action    list
	Resource  list                       `json:",omitempty"`
	Principal map[string]list            `json:",omitempty"`
	Condition map[string]map[string]list `json:",omitempty"`
}

// list is what RAM takes as one string or as many.
type list []string

// UnmarshalJSON reads both forms.
func (l *list) UnmarshalJSON(b []byte) error {
	var one string
	if json.Unmarshal(b, &one) == nil {
		*l = list{one}
		return nil
	}
	return json.Unmarshal(b, (*[]string)(l))
}

func readPolicy(t *testing.T, name string) policy {
	t.Helper()
	raw, err := os.ReadFile("../../manifests/ram/" + name)
	if err != nil {
		t.Fatal(err)
	}
	if len(raw) > 6144 {
		t.Errorf("%s has %d bytes; RAM takes 6144", name, len(raw))
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	var p policy
	if err := d.Decode(&p); err != nil || p.Version != "1" || len(p.Statement) == 0 {
		t.Fatalf("%s: %d statements, version %q, %v", name, len(p.Statement), p.Version, err)
	}
	return p
}

// rules says the same to the stand-in cloud. What it could not say is an error.
func (p policy) rules(t *testing.T) []keys.Rule {
	t.Helper()
	var rules []keys.Rule
	for _, s := range p.Statement {
		if s.Effect == "Deny" {
			continue // see TestPoliciesRefuseWhatIsNotEncrypted: the stand-in has no https
		}
		r := keys.Rule{Actions: s.Action, Buckets: []string{stage.Bucket}}
		for _, resource := range s.Resource {
			place, ok := strings.CutPrefix(resource, "acs:oss:*:*:"+bucket)
			if !ok || place != "" && !strings.HasPrefix(place, "/") {
				t.Fatalf("resource %s is not in the bucket %s", resource, bucket)
			}
			if place != "" {
				r.Patterns = append(r.Patterns, place[1:])
			}
		}
		if s.Condition != nil {
			r.Patterns = append(r.Patterns, s.Condition["StringLike"]["oss:Prefix"]...)
			if len(s.Condition) != 1 || len(s.Condition["StringLike"]) != 1 || !slices.Equal(s.Action, []string{"oss:ListObjects"}) {
				t.Fatalf("condition %v of %v is not understood here", s.Condition, s.Action)
			}
		}
		rules = append(rules, r)
	}
	return rules
}

// Each policy refuses requests that are not encrypted, wherever in the bucket.
func TestPoliciesRefuseWhatIsNotEncrypted(t *testing.T) {
	for _, name := range []string{"writer.json", "reader.json", "drill.json", "janitor.json"} {
		found := slices.ContainsFunc(readPolicy(t, name).Statement, func(s statement) bool {
			return s.Effect == "Deny" && slices.Equal(s.Action, []string{"oss:*"}) && slices.Equal(s.Condition["Bool"]["acs:SecureTransport"], []string{"false"}) &&
				slices.Equal(s.Resource, []string{"acs:oss:*:*:" + bucket, "acs:oss:*:*:" + bucket + "/*"})
		})
		if !found {
			t.Errorf("%s lets unencrypted requests through", name)
		}
	}
}

// The trust policy lets service accounts in that are named, with tokens meant for STS.
func TestTrustNamesServiceAccounts(t *testing.T) {
	s := readPolicy(t, "trust.json").Statement
	if len(s) != 1 || !slices.Equal(s[0].Action, []string{"sts:AssumeRole"}) || len(s[0].Principal["Federated"]) != 1 {
		t.Fatalf("%+v", s)
	}
	c := s[0].Condition["StringEquals"]
	if len(c["oidc:iss"]) != 1 || !slices.Equal(c["oidc:aud"], []string{"sts.aliyuncs.com"}) || len(c["oidc:sub"]) == 0 {
		t.Errorf("the conditions are %v", c)
	}
	for _, sub := range c["oidc:sub"] {
		if !strings.HasPrefix(sub, "system:serviceaccount:") || strings.ContainsAny(sub, "*?") {
			t.Errorf("subject %s is no service account", sub)
		}
	}
}
