package kubectl

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// expect wants a finding with this outcome and text, and a remedy in each that is not well.
func expect(t *testing.T, findings []Finding, o Outcome, text string) {
	t.Helper()
	found := false
	for _, f := range findings {
		found = found || f.Outcome == o && strings.Contains(f.Text, text)
		if f.Outcome != OK && f.Remedy == "" {
			t.Errorf("there is no remedy in %+v", f)
		}
	}
	if found {
		return
	}
	t.Errorf("no finding is %s and says %q:\n%+v", o, text, findings)
}

// forbidden is the answer of an API server to who may not.
func forbidden(resource, why string) error {
	return apierrors.NewForbidden(schema.GroupResource{Resource: resource}, "it", errors.New(why))
}

func TestVersions(t *testing.T) {
	for minor, want := range map[string]Outcome{"28": Failed, "29": OK, "31+": OK, "x": Unknown} {
		var s section
		judgeVersion(&s, "1", minor)
		expect(t, s.findings, want, "")
	}
}

func TestDeployments(t *testing.T) {
	for _, test := range []struct {
		want, have int32
		outcome    Outcome
	}{{2, 2, OK}, {2, 1, Warning}, {2, 0, Failed}, {1, 1, Warning}, {0, 0, Failed}} {
		var s section
		judgeDeployment(&s, "deployment", &appsv1.Deployment{
			Spec: appsv1.DeploymentSpec{Replicas: new(test.want)}, Status: appsv1.DeploymentStatus{AvailableReplicas: test.have},
		})
		expect(t, s.findings, test.outcome, "replicas are available")
	}
}

// authority is a certificate that expires at until.
func authority(t *testing.T, until time.Time) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: until.Add(-24 * 365 * time.Hour), NotAfter: until}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func TestBundles(t *testing.T) {
	now := time.Now()
	old, tired, fresh := authority(t, now.Add(-time.Hour)), authority(t, now.Add(time.Hour)), authority(t, now.Add(24*90*time.Hour))
	for name, test := range map[string]struct {
		bundle  []byte
		outcome Outcome
		text    string
	}{
		"none":       {nil, Failed, "no authority"},
		"expired":    {old, Failed, "expired"},
		"expiring":   {tired, Warning, "expires"},
		"changing":   {append(old, fresh...), OK, "valid until"},
		"valid":      {fresh, OK, "valid until"},
		"other text": {[]byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), Failed, "can be read"},
	} {
		t.Run(name, func(t *testing.T) {
			var s section
			judgeBundle(&s, "bundle", test.bundle, now)
			expect(t, s.findings, test.outcome, test.text)
		})
	}
}

func TestNamespaces(t *testing.T) {
	protect := func(value string) map[string]string { return map[string]string{protectLabel: value} }
	for name, test := range map[string]struct {
		place   place
		outcome Outcome // "" for nothing to say
		text    string
	}{
		"well":           {shop, OK, "are valid"},
		"typo":           {place{name: "a", labels: protect("true")}, Failed, "says true"},
		"no label":       {place{name: "a", annotations: shop.annotations}, Warning, "no label"},
		"not ours":       {place{name: "a"}, "", ""},
		"left out":       {place{name: "a", labels: protect("disabled")}, "", ""},
		"bad policy":     {place{name: "a", labels: protect("enabled"), annotations: map[string]string{"outrider.dev/rpo": "soon"}}, Failed, "outrider.dev/rpo"},
		"no archive yet": {place{name: "a", labels: protect("enabled")}, OK, "are valid"},
		"not to be read": {place{name: "a", trouble: errors.New("forbidden")}, Unknown, "forbidden"},
	} {
		t.Run(name, func(t *testing.T) {
			var s section
			judgePlace(&s, test.place, configuration{})
			if test.outcome == "" {
				if len(s.findings) != 0 {
					t.Errorf("found %+v", s.findings)
				}
				return
			}
			expect(t, s.findings, test.outcome, test.text)
		})
	}
	var s section
	judgeConfiguration(&s, configuration{Policy: map[string]string{"retention": "7d"}})
	expect(t, s.findings, OK, "1 defaults")
	s = section{}
	judgeConfiguration(&s, configuration{Policy: map[string]string{"retention": "7"}})
	expect(t, s.findings, Failed, "retention")
}

func TestTrials(t *testing.T) {
	protected := guarded(t, "orders-0", running, waiting)
	for _, test := range []struct {
		made    *corev1.Pod
		err     error
		outcome Outcome
	}{
		{protected, nil, OK},
		{server("orders-0"), nil, Failed},
		{nil, errors.New(`failed calling webhook "pods.outrider.dev": x509: unknown authority`), Failed},
		{nil, errors.New(`admission webhook "pods.outrider.dev" denied the request`), Warning},
		{nil, errors.New("connection refused"), Unknown},
		{nil, forbidden("pods", `User "x" cannot create resource "pods"`), Unknown},
		{nil, forbidden("pods", "violates PodSecurity"), Warning},
	} {
		var s section
		judgeTrial(&s, "trial", test.made, test.err)
		expect(t, s.findings, test.outcome, "")
	}
}

func TestDatabasesAreJudged(t *testing.T) {
	asked := func(pod *corev1.Pod, r *Report) Database {
		d := one(t, shop, pod)
		d.told(r, nil)
		return d
	}
	judge := func(d Database, where place) []Finding {
		return checkDatabases([]Database{d}, []place{where}, configuration{}, time.Now())
	}
	fine := guarded(t, "orders-0", ended(0, ""), running)
	fine.Annotations[protectLabel] = "enabled"
	fine.Spec.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceEphemeralStorage: {}}
	for state, want := range map[string]Outcome{
		"protected": OK, "lagging": Warning, "no_snapshot": Warning, "not_protected": Failed, "superseded": Failed, "something new": Failed,
	} {
		expect(t, judge(asked(fine, &Report{State: state, Reason: "because"}), shop), want, state+": because")
	}
	expect(t, judge(asked(fine, &Report{State: "protected", SnapshotTrouble: "bad pages"}), shop), Failed, "bad pages")
	expect(t, judge(one(t, shop, server("orders-0")), shop), Failed, StateUnprotected)
	strange := server("orders-0")
	strange.Spec.Containers[0].Image = "corp/postgres-custom:1"
	expect(t, judge(one(t, shop, strange), shop), Warning, StateSuspected+": container postgres (corp/postgres-custom:1) looks like PostgreSQL")

	well := &Report{State: "protected"}
	expect(t, judge(asked(fine, well), place{name: "shop"}), Failed, "has lost its label")
	hasty := guarded(t, "orders-0", ended(0, ""), running)
	hasty.Spec.TerminationGracePeriodSeconds = new(int64(5))
	hasty.Spec.Tolerations = []corev1.Toleration{{Operator: corev1.TolerationOpExists}}
	found := judge(asked(hasty, well), shop)
	expect(t, found, Warning, "terminationGracePeriodSeconds is 5")
	expect(t, found, Warning, "for ever")
	expect(t, found, Warning, "does not say outrider.dev/protect: enabled")
	wrong := shop
	wrong.annotations = map[string]string{"outrider.dev/archive": "oss://b/p", "outrider.dev/rpo": "soon"}
	expect(t, judge(asked(fine, well), wrong), Failed, "made anew, it would be refused")
}

func TestBudgets(t *testing.T) {
	d := one(t, shop, guarded(t, "orders-0", ended(0, ""), running))
	d.told(&Report{State: "protected"}, nil)
	budget := func(name string, allowed, desired int32) policyv1.PodDisruptionBudget {
		return policyv1.PodDisruptionBudget{
			ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "shop"},
			Spec:       policyv1.PodDisruptionBudgetSpec{Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "orders"}}},
			Status:     policyv1.PodDisruptionBudgetStatus{DisruptionsAllowed: allowed, DesiredHealthy: desired, ExpectedPods: 1},
		}
	}
	for name, test := range map[string]struct {
		budgets []policyv1.PodDisruptionBudget
		outcome Outcome
		text    string
	}{
		"none":      {nil, OK, ""},
		"allowing":  {[]policyv1.PodDisruptionBudget{budget("a", 1, 0)}, OK, ""},
		"never":     {[]policyv1.PodDisruptionBudget{budget("a", 0, 1)}, Failed, "never allows"},
		"not now":   {[]policyv1.PodDisruptionBudget{budget("a", 0, 0)}, Warning, "no disruption now"},
		"two of it": {[]policyv1.PodDisruptionBudget{budget("a", 1, 0), budget("b", 1, 0)}, Failed, "a, b all apply"},
	} {
		t.Run(name, func(t *testing.T) {
			s := section{}
			judgeBudgets(&s, []Database{d}, test.budgets)
			expect(t, s.findings, test.outcome, test.text)
		})
	}
}

func TestCheckupText(t *testing.T) {
	c := Checkup{Findings: []Finding{
		{Section: "webhook", About: "deployment", Outcome: OK, Text: "2 of 2"},
		{Section: "databases", About: "shop/orders-0", Outcome: Warning, Text: "lagging", Remedy: "wait"},
	}}
	if !c.Well() {
		t.Error("a warning alone is not well")
	}
	c.Findings = append(c.Findings, Finding{Section: "databases", About: "shop/users-0", Outcome: Unknown})
	if c.Well() {
		t.Error("what could not be told is taken for well")
	}
	var b strings.Builder
	if err := c.Text(&b); err != nil {
		t.Fatal(err)
	}
	const want = `webhook
-------
√ deployment: 2 of 2

databases
---------
‼ shop/orders-0: lagging
    → wait
? shop/users-0

3 checked: 1 ok, 1 with a warning, 0 failed, 1 unknown
`
	if b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
}
