package inject

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"

	"outrider.dev/sidecar/policy"
)

func field(name, path string) corev1.EnvVar {
	return corev1.EnvVar{Name: name, ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: path}}}
}

// shared are the variables of both injected containers: who this is, and what is wanted.
func (w *work) shared(mounts []corev1.VolumeMount) []corev1.EnvVar {
	env := []corev1.EnvVar{
		field("OUTRIDER_POD", "metadata.name"),
		field("OUTRIDER_POD_UID", "metadata.uid"),
		field("OUTRIDER_NAMESPACE", "metadata.namespace"),
		field("OUTRIDER_NODE", "spec.nodeName"),
	}
	if id := w.in.KubernetesCluster; id != "" {
		env = append(env, corev1.EnvVar{Name: "OUTRIDER_KUBERNETES_CLUSTER", Value: id})
	}
	for _, v := range w.policy.Env() {
		name, value, _ := strings.Cut(v, "=")
		env = append(env, corev1.EnvVar{Name: name, Value: literal(value)})
	}
	if url := w.in.MetadataURL; url != "" {
		env = append(env, corev1.EnvVar{Name: "OUTRIDER_METADATA_URL", Value: url})
	}
	return slices.Concat(env, w.credentials(), w.subPathVariables(mounts))
}

// unrepeated leaves out what was defined in the same way before, because two things refer to it.
func unrepeated(env []corev1.EnvVar) (out []corev1.EnvVar) {
	for _, e := range env {
		if !slices.ContainsFunc(out, func(o corev1.EnvVar) bool { return equality.Semantic.DeepEqual(o, e) }) {
			out = append(out, e)
		}
	}
	return out
}

// subPathVariables are those that the mounts' subPathExpr name: without them the container would not start.
func (w *work) subPathVariables(mounts []corev1.VolumeMount) []corev1.EnvVar {
	c := copier{from: w.pg()}
	for _, m := range mounts {
		for _, name := range references(m.SubPathExpr) {
			c.referred(name)
		}
	}
	return c.variables()
}

// tokenFile is the service account's token for RAM, in identityDir.
const ramToken = "ram-token"

// credentials are how OSS is entered. The keys of a Secret have the names of the variables. It is optional: one that is
// missing must not keep a database with data from starting, and is reported by the sidecar.
func (w *work) credentials() (env []corev1.EnvVar) {
	add := func(name, value string) {
		if value != "" {
			env = append(env, corev1.EnvVar{Name: name, Value: value})
		}
	}
	switch c := w.policy.Credentials; c.Kind {
	case policy.CredentialsSecret:
		for _, name := range []string{"OSS_ACCESS_KEY_ID", "OSS_ACCESS_KEY_SECRET", "OSS_SESSION_TOKEN"} {
			env = append(env, corev1.EnvVar{Name: name, ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{
				LocalObjectReference: corev1.LocalObjectReference{Name: c.Name}, Key: name, Optional: new(true),
			}}})
		}
	case policy.CredentialsRRSA:
		add("ALIBABA_CLOUD_ROLE_ARN", w.roleARN())
		add("ALIBABA_CLOUD_OIDC_PROVIDER_ARN", w.in.RRSA.ProviderARN)
		add("ALIBABA_CLOUD_OIDC_TOKEN_FILE", identityDir+"/"+ramToken)
		add("ALIBABA_CLOUD_STS_ENDPOINT", w.in.RRSA.STSEndpoint)
		if w.in.RRSA.VPC {
			add("ALIBABA_CLOUD_VPC_ENDPOINT_ENABLED", "true")
		}
	case policy.CredentialsRAMRole: // the node's, from the metadata service
	}
	return env
}

// roleARN completes the name of a role with the account of the identity provider.
func (w *work) roleARN() string {
	role := w.policy.Credentials.Name
	if strings.HasPrefix(role, "acs:") {
		return role
	}
	account := strings.Split(w.in.RRSA.ProviderARN, ":") // acs:ram::ACCOUNT:oidc-provider/NAME
	return "acs:ram::" + account[3] + ":role/" + role
}

// checkRRSA refuses the credentials that the webhook cannot make.
func (w *work) checkRRSA() error {
	if w.policy.Credentials.Kind != policy.CredentialsRRSA {
		return nil
	}
	parts := strings.Split(w.in.RRSA.ProviderARN, ":")
	if len(parts) != 5 || parts[0] != "acs" || parts[3] == "" || !strings.HasPrefix(parts[4], "oidc-provider/") {
		return refuse(BadPolicy, "credentials (%s) are %s, and the webhook's configuration names no OIDC provider for them (it has %q): set rrsa.oidcProvider to acs:ram::ACCOUNT:oidc-provider/NAME",
			w.sources["credentials"], w.policy.Credentials, w.in.RRSA.ProviderARN)
	}
	return nil
}
