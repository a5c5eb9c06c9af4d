package kubectl

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"outrider.dev/sidecar/policy"
)

// soon is when a certificate that has not been renewed becomes a warning: the webhook does so when a third of its life is
// left, which is later only for those that are short on purpose.
const soon = 7 * policy.Day

// whyNotRenewed is the remedy for certificates: the webhook makes and publishes them itself.
const whyNotRenewed = "the webhook writes it: kubectl -n " + systemNamespace + " logs deployment/" + webhookName + " says why it did not"

// checkServing looks at the certificate that the webhook shows.
func (c *Cluster) checkServing(ctx context.Context, s *section, now time.Time) {
	const about = "certificate of the webhook"
	secret, err := c.client.CoreV1().Secrets(systemNamespace).Get(ctx, servingName, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		s.add(Failed, about, "there is no Secret "+servingName+" to keep it in", applyAll)
	case err != nil:
		s.unknown(about, "get the Secret "+servingName+" in namespace "+systemNamespace, err)
	default:
		judgeServing(s, about, secret, now)
	}
}

func judgeServing(s *section, about string, secret *corev1.Secret, now time.Time) {
	text := secret.Data[corev1.TLSCertKey]
	if len(text) == 0 {
		s.add(Failed, about, "the webhook has made none yet", whyNotRenewed)
		return
	}
	// The first one is the server's, others would be those that signed it.
	all, err := certificates(text)
	if err != nil || len(all) == 0 {
		s.add(Failed, about, fmt.Sprintf("it cannot be read: %v", err), whyNotRenewed)
		return
	}
	judgeExpiry(s, about, "it", all[0].NotAfter, now)
}

// judgeBundle looks at the authorities with which the API server recognises the webhook.
func judgeBundle(s *section, about string, bundle []byte, now time.Time) {
	all, err := certificates(bundle)
	if err != nil {
		s.add(Failed, about, "its caBundle holds no certificate that can be read: "+err.Error(), whyNotRenewed)
		return
	}
	var last time.Time
	for _, cert := range all {
		if now.After(cert.NotBefore) && cert.NotAfter.After(last) {
			last = cert.NotAfter
		}
	}
	if last.IsZero() {
		s.add(Failed, about, "its caBundle holds no authority, so that the API server cannot recognise the webhook", whyNotRenewed)
		return
	}
	judgeExpiry(s, about, "the last authority in its caBundle", last, now)
}

func judgeExpiry(s *section, about, what string, until, now time.Time) {
	switch {
	case now.After(until):
		s.add(Failed, about, what+" expired at "+stamp(until), whyNotRenewed)
	case until.Sub(now) < soon:
		s.add(Warning, about, what+" expires at "+stamp(until)+" and has not been renewed", whyNotRenewed)
	default:
		s.ok(about, what+" is valid until "+stamp(until))
	}
}

// certificates reads all that are in PEM. What is no PEM is passed over.
func certificates(text []byte) (all []*x509.Certificate, err error) {
	for rest := text; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return all, nil
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		all = append(all, cert)
	}
}
