package kubectl

import (
	"context"
	"errors"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"outrider.dev/sidecar/policy"
)

// key is one way into the store, as it is wanted in a namespace.
type key struct {
	namespace string
	policy.Credentials
}

// about names a key in findings.
func (k key) about() string {
	if k.Credentials == (policy.Credentials{}) {
		return "namespace " + k.namespace
	}
	return k.String() + " in namespace " + k.namespace
}

// checkCredentials looks at what opens the store: in each labelled namespace what its next database will get, also before
// there is one, and what the pods of its databases name.
func (c *Cluster) checkCredentials(ctx context.Context, places []place, all []Database, conf configuration) []Finding {
	s := &section{name: "credentials"}
	seen := map[key]bool{}
	look := func(k key) {
		if !seen[k] {
			seen[k] = true
			c.checkKey(ctx, s, k, entered(all, k), conf)
		}
	}
	for _, p := range places {
		if !p.labelled() || p.trouble != nil {
			continue
		}
		credentials, err := p.credentials(conf)
		if err != nil {
			s.unknown("namespace "+p.name, "get the ConfigMap "+webhookName+" in namespace "+systemNamespace, err)
			continue
		}
		if credentials != nil {
			look(key{p.name, *credentials})
		}
	}
	for _, d := range all {
		if p, known := policyOf(d.pod); known && claims(d.pod) && p.Credentials.Kind != "" {
			look(key{d.Namespace, p.Credentials})
		}
	}
	return s.findings
}

// credentials are those of databases in this namespace that name none themselves; nil if its policy is wrong, which is
// another finding. An error means that the configuration may name some and could not be read.
func (p place) credentials(conf configuration) (*policy.Credentials, error) {
	somewhere := policy.Configuration(map[string]string{"archive": "oss://bucket/prefix"}) // pods may name theirs
	got, _, err := policy.Resolve(somewhere, policy.Configuration(conf.Policy), policy.Namespace(p.name, p.annotations))
	switch {
	case err != nil:
		return nil, nil //nolint:nilerr // judgePlace has said what is wrong
	case got.Credentials.Kind == "" && conf.trouble != nil:
		return nil, conf.trouble
	}
	return &got.Credentials, nil
}

// entered is a database whose sidecar got into the store with a key; "" if none is known to.
func entered(all []Database, k key) string {
	for _, d := range all {
		if d.Namespace != k.namespace || d.Sidecar == nil || d.Sidecar.Store == nil || d.Sidecar.Store.ProvenAt == nil {
			continue
		}
		if p, known := policyOf(d.pod); known && p.Credentials == k.Credentials {
			return d.Namespace + "/" + d.Pod
		}
	}
	return ""
}

// checkKey judges one key. by is a database that has used it with success, or "".
func (c *Cluster) checkKey(ctx context.Context, s *section, k key, by string, conf configuration) {
	used := "whether the store takes it, the first database will tell"
	if by != "" {
		used = by + " has entered the store with it"
	}
	switch k.Kind {
	case policy.CredentialsSecret:
		secret, err := c.client.CoreV1().Secrets(k.namespace).Get(ctx, k.Name, metav1.GetOptions{})
		judgeSecret(s, k, secret, err, by, used)
	case policy.CredentialsRRSA:
		switch provider := conf.RRSA.OIDCProvider; {
		case conf.trouble != nil && by == "":
			s.unknown(k.about(), "get the ConfigMap "+webhookName+" in namespace "+systemNamespace, conf.trouble)
		case conf.trouble == nil && provider == "":
			s.add(Failed, k.about(), "the webhook's configuration names no OIDC provider, and without one nobody gets a role: pods are refused",
				"set rrsa.oidcProvider to acs:ram::ACCOUNT:oidc-provider/NAME: kubectl -n "+systemNamespace+" edit configmap "+webhookName)
		default:
			s.ok(k.about(), "a role through the OIDC provider "+or(provider)+"; "+used)
		}
	case policy.CredentialsRAMRole:
		s.ok(k.about(), "the role of the node; "+used)
	default:
		s.add(Warning, k.about(), "no level of the policy names credentials, so each pod has to bring its own",
			"kubectl annotate namespace "+k.namespace+" "+policy.Prefix+"credentials=secret:NAME, or rrsa:ROLE or ram-role:NAME")
	}
}

// secretKeys are those that have to be in a Secret. OSS_SESSION_TOKEN may be.
func secretKeys() []string { return []string{"OSS_ACCESS_KEY_ID", "OSS_ACCESS_KEY_SECRET"} }

// judgeSecret says whether a Secret can be used. It never says what is in it.
func judgeSecret(s *section, k key, secret *corev1.Secret, err error, by, used string) {
	const lost = ": a database in this namespace cannot enter the store"
	switch {
	case apierrors.IsNotFound(err):
		s.add(Failed, k.about(), "there is no such Secret"+lost,
			fmt.Sprintf("kubectl -n %s create secret generic %s --from-literal=OSS_ACCESS_KEY_ID=… --from-literal=OSS_ACCESS_KEY_SECRET=…", k.namespace, k.Name))
	case apierrors.IsForbidden(err) && by != "":
		s.ok(k.about(), "you may not read this Secret, and "+used)
	case err != nil:
		s.unknown(k.about(), "get secrets in namespace "+k.namespace, err)
	default:
		if err := usable(secret.Data); err != nil {
			s.add(Failed, k.about(), err.Error()+lost, "kubectl -n "+k.namespace+" edit secret "+k.Name+", and make its databases anew: variables of a pod do not change")
			return
		}
		s.ok(k.about(), "it has both keys; "+used)
	}
}

// usable says what is wrong with the content of a Secret for the store.
func usable(data map[string][]byte) error {
	var errs []string
	for _, name := range secretKeys() {
		switch value := string(data[name]); {
		case value == "":
			errs = append(errs, "the key "+name+" is missing or empty")
		case strings.TrimSpace(value) != value:
			errs = append(errs, "the key "+name+" begins or ends with white space, such as the line end of an echo")
		}
	}
	if len(errs) == 0 {
		return nil
	}
	return errors.New(strings.Join(errs, ", "))
}
