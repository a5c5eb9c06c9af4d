package oss

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/aliyun/credentials-go/credentials/providers"
)

// OIDC is a role that a Kubernetes service account may take (RRSA). What is empty except STSEndpoint is an error:
// nothing is taken from the environment, where the node's own role might be found.
type OIDC struct {
	RoleARN     string // ALIBABA_CLOUD_ROLE_ARN
	ProviderARN string // ALIBABA_CLOUD_OIDC_PROVIDER_ARN
	TokenFile   string // ALIBABA_CLOUD_OIDC_TOKEN_FILE; read again for every renewal
	Session     string // who we are in the audit log: the pod's name
	// STSEndpoint is a host; it is always spoken to by https. Empty means that of Region, or the central one.
	STSEndpoint string
	Region      string
	// VPC uses the endpoint inside the VPC (ALIBABA_CLOUD_VPC_ENDPOINT_ENABLED).
	VPC bool
}

// roleLifetime is what every role allows: its maximum session is at least an hour.
const roleLifetime = time.Hour

// OIDCCredentials returns credentials of a role, cached and renewed. It asks nobody yet.
func OIDCCredentials(o OIDC) (Credentials, error) {
	if o.RoleARN == "" || o.ProviderARN == "" || o.TokenFile == "" {
		return nil, errors.New("RRSA needs the role's ARN, the provider's ARN and the token file: are ALIBABA_CLOUD_ROLE_ARN, ALIBABA_CLOUD_OIDC_PROVIDER_ARN and ALIBABA_CLOUD_OIDC_TOKEN_FILE set?")
	}
	o.Session = sessionName(o.Session)
	return newTemporary("STS for "+o.RoleARN, o.fetch), nil
}

// fetch takes the role. A new provider is built each time, because one that is kept renews only three minutes before
// the end and does not say when that is. It ends by its own timeouts (15 s), as it knows no context.
func (o OIDC) fetch(context.Context) (Keys, error) {
	b := providers.NewOIDCCredentialsProviderBuilder().
		WithRoleArn(o.RoleARN).WithOIDCProviderARN(o.ProviderARN).WithOIDCTokenFilePath(o.TokenFile).
		WithRoleSessionName(o.Session).WithDurationSeconds(int(roleLifetime.Seconds())).
		WithStsRegionId(o.Region).WithEnableVpc(o.VPC).WithSTSEndpoint(o.STSEndpoint).
		WithHttpOptions(&providers.HttpOptions{ConnectTimeout: 5000, ReadTimeout: 10000})
	begin := time.Now()
	p, err := b.Build()
	if err != nil {
		return Keys{}, fmt.Errorf("preparing to take role %s: %w", o.RoleARN, err)
	}
	c, err := p.GetCredentials()
	if err != nil {
		return Keys{}, fmt.Errorf("taking role %s (does its trust policy name this service account?): %w", o.RoleARN, err)
	}
	// Counted by our clock from before the request, so that a clock that is wrong does not matter.
	return Keys{ID: c.AccessKeyId, Secret: c.AccessKeySecret, Token: c.SecurityToken, Expires: begin.Add(roleLifetime)}, nil
}

// sessionName makes s one that STS takes: 2 to 64 letters, digits and . @ - _.
func sessionName(s string) string {
	name := []byte(s)
	for i, c := range name {
		ok := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '.' || c == '@' || c == '-' || c == '_'
		if !ok {
			name[i] = '-'
		}
	}
	if len(name) > 64 {
		name = name[:64]
	}
	if len(name) < 2 {
		return "outrider"
	}
	return string(name)
}
