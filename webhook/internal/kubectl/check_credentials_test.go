package kubectl

import (
	"errors"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/fake"
	clienttest "k8s.io/client-go/testing"

	"outrider.dev/sidecar/policy"
)

// pretended is a cluster with these objects. Those resources that are denied may not be read.
func pretended(denied []string, objects ...runtime.Object) *Cluster {
	client := fake.NewClientset(objects...)
	for _, resource := range denied {
		client.PrependReactor("get", resource, func(clienttest.Action) (bool, runtime.Object, error) {
			return true, nil, forbidden(resource, "not for you")
		})
	}
	return &Cluster{client: client, clock: &clock{}}
}

func secret(namespace, name string, data map[string]string) *corev1.Secret {
	s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: namespace}, Data: map[string][]byte{}}
	for k, v := range data {
		s.Data[k] = []byte(v)
	}
	return s
}

func TestCredentialsOfNamespaces(t *testing.T) {
	both := map[string]string{"OSS_ACCESS_KEY_ID": "id", "OSS_ACCESS_KEY_SECRET": "topsecret"}
	bare := place{name: "shop", labels: shop.labels, annotations: map[string]string{"outrider.dev/archive": "oss://backups/prod"}}
	as := func(credentials string) place {
		p := bare
		p.annotations = map[string]string{"outrider.dev/credentials": credentials}
		return p
	}
	provider := configuration{}
	provider.RRSA.OIDCProvider = "acs:ram::1234:oidc-provider/ack"
	unread := configuration{trouble: errors.New("no route")}
	for name, test := range map[string]struct {
		place   place
		conf    configuration
		secret  *corev1.Secret
		denied  []string
		by      *Report // of a database that has the namespace's credentials
		outcome Outcome // "" for nothing to say
		text    string
	}{
		"no Secret":         {shop, configuration{}, nil, nil, nil, Failed, "there is no such Secret"},
		"a good one":        {shop, configuration{}, secret("shop", "outrider-oss", both), nil, nil, OK, "it has both keys; whether the store takes it"},
		"in use":            {shop, configuration{}, secret("shop", "outrider-oss", both), nil, answer(), OK, "shop/orders-0 has entered the store with it"},
		"another's":         {shop, configuration{}, secret("elsewhere", "outrider-oss", both), nil, nil, Failed, "there is no such Secret"},
		"half of it":        {shop, configuration{}, secret("shop", "outrider-oss", map[string]string{"OSS_ACCESS_KEY_ID": "id"}), nil, nil, Failed, "OSS_ACCESS_KEY_SECRET is missing or empty"},
		"with a line end":   {shop, configuration{}, secret("shop", "outrider-oss", map[string]string{"OSS_ACCESS_KEY_ID": "id\n", "OSS_ACCESS_KEY_SECRET": "s"}), nil, nil, Failed, "OSS_ACCESS_KEY_ID begins or ends with white space"},
		"not to be read":    {shop, configuration{}, nil, []string{"secrets"}, nil, Unknown, "not for you"},
		"unread and in use": {shop, configuration{}, nil, []string{"secrets"}, answer(), OK, "you may not read this Secret, and shop/orders-0 has entered"},
		"unread and unused": {shop, configuration{}, nil, []string{"secrets"}, answer(func(r *Report) { r.Store.ProvenAt = nil }), Unknown, "not for you"},
		"from above":        {bare, configuration{Policy: map[string]string{"credentials": "secret:all"}}, nil, nil, nil, Failed, "there is no such Secret"},
		"none at all":       {bare, configuration{}, nil, nil, nil, Warning, "no level of the policy names credentials"},
		"none that is seen": {bare, unread, nil, nil, nil, Unknown, "no route"},
		"a wrong policy":    {as("topsecret"), configuration{}, nil, nil, nil, "", ""},
		"a role":            {as("rrsa:writer"), provider, nil, nil, nil, OK, "acs:ram::1234:oidc-provider/ack"},
		"nobody's role":     {as("rrsa:writer"), configuration{}, nil, nil, nil, Failed, "names no OIDC provider"},
		"a role, unseen":    {as("rrsa:writer"), unread, nil, nil, nil, Unknown, "no route"},
		"the node's role":   {as("ram-role:node"), configuration{}, nil, nil, nil, OK, "the role of the node"},
		"no label":          {place{name: "shop", annotations: shop.annotations}, configuration{}, nil, nil, nil, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			var objects []runtime.Object
			if test.secret != nil {
				objects = append(objects, test.secret)
			}
			var all []Database
			if test.by != nil {
				all = append(all, reporting(t, test.by))
			}
			found := pretended(test.denied, objects...).checkCredentials(t.Context(), []place{test.place}, all, test.conf)
			if test.outcome == "" {
				if len(found) != 0 {
					t.Errorf("found %+v", found)
				}
				return
			}
			if len(found) != 1 {
				t.Errorf("%d findings, want 1", len(found))
			}
			expect(t, found, test.outcome, test.text)
			for _, f := range found {
				if strings.Contains(f.Text+f.Remedy, "topsecret") {
					t.Errorf("a key is told: %+v", f)
				}
			}
		})
	}
}

// TestCredentialsOfPods: one that names others than its namespace is looked at as well, and each key once.
func TestCredentialsOfPods(t *testing.T) {
	own := server("users-0")
	own.Annotations = map[string]string{"outrider.dev/credentials": "secret:users"}
	all := []Database{reporting(t, answer()), one(t, shop, injected(t, own))}
	found := pretended(nil).checkCredentials(t.Context(), []place{shop}, all, configuration{})
	if len(found) != 2 {
		t.Errorf("%d findings, want 2: %+v", len(found), found)
	}
	for _, about := range []string{"secret:outrider-oss in namespace shop", "secret:users in namespace shop"} {
		if !strings.Contains(found[0].About+found[1].About, about) {
			t.Errorf("nothing is about %s: %+v", about, found)
		}
	}
}

// TestRightsAreNamed: what may not be seen is unknown, with the right that is missing; what was not to be had now, too,
// with what it would take.
func TestRightsAreNamed(t *testing.T) {
	for want, err := range map[string]error{
		"ask for the right to get secrets in namespace shop": forbidden("secrets", "no"),
		"try again; it takes the right to get secrets":       errors.New("connection refused"),
		"create secret generic outrider-oss":                 apierrors.NewNotFound(schema.GroupResource{Resource: "secrets"}, "outrider-oss"),
	} {
		var s section
		judgeSecret(&s, key{"shop", policy.Credentials{Kind: policy.CredentialsSecret, Name: "outrider-oss"}}, nil, err, "", "")
		if len(s.findings) != 1 || !strings.Contains(s.findings[0].Remedy, want) {
			t.Errorf("%v: the remedy has no %q: %+v", err, want, s.findings)
		}
	}
}
