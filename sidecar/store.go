package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"

	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/oss"
	"outrider.dev/sidecar/internal/wal"
	"outrider.dev/sidecar/policy"
)

// openArchive opens the archive that flags and environment name, as openNamed does.
func (a *app) openArchive(ctx context.Context) (*archive.Archive, error) {
	p, _, err := a.policyOf(append(placeKeys(), "storage-class", "encryption")...)
	if err != nil {
		return nil, err
	}
	r, err := a.openNamed(ctx, p, p.Archive)
	return r.Archive, err
}

// openRoot opens the root of one database, be it our own or that of another one: once, however often it is asked for
// while the store is away. It sends nothing.
func (a *app) openRoot(ctx context.Context, p policy.Policy, root string) (*oss.Bucket, *archive.Archive, error) {
	root, err := policy.ParseRoot(root)
	if err != nil {
		return nil, nil, usagef("the archive %w", err)
	}
	a.opened.Lock()
	defer a.opened.Unlock()
	if b := a.buckets[root]; b != nil {
		return b, archive.New(tellingBucket{b}), nil
	}
	credentials, err := a.credentials(p)
	if err != nil {
		return nil, nil, usagef("opening %s: %w", root, err)
	}
	b, err := oss.Open(ctx, oss.Config{
		Location: root, Endpoint: p.OSSEndpoint, Region: p.OSSRegion, Credentials: credentials,
		StorageClass: p.StorageClass, Encryption: p.Encryption, UserAgent: "outrider/" + version(),
		Log: a.log, Registerer: a.reg,
	})
	if err != nil {
		return nil, nil, usagef("opening %s: %w", root, err)
	}
	a.buckets[root] = b
	return b, archive.New(tellingBucket{b}), nil
}

// credentials chooses where keys come from: what the policy says, else what the environment has.
func (a *app) credentials(p policy.Policy) (oss.Credentials, error) {
	role := p.Credentials.Name
	switch p.Credentials.Kind {
	case policy.CredentialsRRSA:
		return a.rrsa(role, p.OSSRegion)
	case policy.CredentialsRAMRole:
		return oss.RAMRoleCredentials(role, a.setting(envMetadataURL))
	case policy.CredentialsSecret: // whose keys the pod has as variables
	default:
		if _, ok := a.lookup(envKeyID); !ok && a.setting("ALIBABA_CLOUD_OIDC_TOKEN_FILE") != "" {
			return a.rrsa("", p.OSSRegion)
		}
	}
	if idFile, secretFile := a.setting(envKeyID+"_FILE"), a.setting(envKeySecret+"_FILE"); idFile != "" || secretFile != "" {
		return oss.FileCredentials(idFile, secretFile, a.setting(envToken+"_FILE"))
	}
	id, secret := a.setting(envKeyID), a.setting(envKeySecret)
	if id == "" || secret == "" {
		return nil, fmt.Errorf("there are no credentials: set %s and %s (with %s if they are temporary), or --credentials rrsa:ROLE or ram-role:NAME",
			envKeyID, envKeySecret, envToken)
	}
	return oss.StaticCredentials(id, secret, a.setting(envToken))
}

// rrsa takes a role for the pod's service account, with the variables that ACK's identity webhook sets.
func (a *app) rrsa(role, region string) (oss.Credentials, error) {
	if arn := a.setting("ALIBABA_CLOUD_ROLE_ARN"); arn != "" && (role == "" || !isARN(role)) {
		role = arn
	}
	session := a.setting("OUTRIDER_POD")
	if session == "" {
		session, _ = os.Hostname() // only a name in an audit log
	}
	return oss.OIDCCredentials(oss.OIDC{
		RoleARN: role, ProviderARN: a.setting("ALIBABA_CLOUD_OIDC_PROVIDER_ARN"),
		TokenFile: a.setting("ALIBABA_CLOUD_OIDC_TOKEN_FILE"), Session: session, Region: region,
		STSEndpoint: a.setting("ALIBABA_CLOUD_STS_ENDPOINT"), VPC: a.setting("ALIBABA_CLOUD_VPC_ENDPOINT_ENABLED") == "true",
	})
}

func isARN(role string) bool { return len(role) > 4 && role[:4] == "acs:" }

// openWAL opens the archive as one with segments of the size that it has. An archive that is proven empty is
// errNothing; one with snapshots and no WAL has the usual size.
func (a *app) openWAL(ctx context.Context) (*archive.WAL, error) {
	arch, err := a.openArchive(ctx)
	if err != nil {
		return nil, err
	}
	z, err := arch.SegmentSize(ctx)
	if errors.Is(err, fs.ErrNotExist) {
		empty, eerr := arch.Empty(ctx)
		if eerr != nil {
			return nil, eerr
		}
		if empty {
			return nil, coded{fmt.Errorf("%s is empty: nothing was ever archived there, or the location is wrong", a.setting("OUTRIDER_ARCHIVE")), errNothing}
		}
		z, err = wal.DefaultSegmentSize, nil
	}
	if err != nil {
		return nil, err
	}
	return arch.WAL(z), nil
}

// tellingBucket marks every error that is no answer of the store, so that "it could not be told" has an exit code of
// its own.
type tellingBucket struct{ archive.Bucket }

func tell(ctx context.Context, err error) error {
	var local *fs.PathError
	switch {
	case err == nil, ctx.Err() != nil, errors.As(err, &local):
		return err
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrExist), errors.Is(err, fs.ErrPermission),
		errors.Is(err, oss.ErrConfiguration), errors.Is(err, archive.ErrCorrupt), errors.Is(err, archive.ErrConflict):
		return err
	}
	return coded{err, errStore}
}

// Open implements archive.Reader.
func (t tellingBucket) Open(ctx context.Context, key string, r archive.Range) (io.ReadCloser, archive.ObjectInfo, error) {
	body, o, err := t.Bucket.Open(ctx, key, r)
	if err != nil {
		return nil, o, tell(ctx, err)
	}
	return tellingReader{ReadCloser: body, ctx: ctx}, o, nil
}

type tellingReader struct {
	io.ReadCloser
	ctx context.Context //nolint:containedctx // a reader has none, and lives as long as the call that opened it
}

func (r tellingReader) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	if err == nil || err == io.EOF {
		return n, err
	}
	return n, tell(r.ctx, err)
}

// Stat implements archive.Reader.
func (t tellingBucket) Stat(ctx context.Context, key string) (archive.ObjectInfo, error) {
	o, err := t.Bucket.Stat(ctx, key)
	return o, tell(ctx, err)
}

// List implements archive.Reader.
func (t tellingBucket) List(ctx context.Context, prefix, after string) iter.Seq2[archive.ObjectInfo, error] {
	return func(yield func(archive.ObjectInfo, error) bool) {
		for o, err := range t.Bucket.List(ctx, prefix, after) {
			if !yield(o, tell(ctx, err)) {
				return
			}
		}
	}
}

// Put implements archive.Writer.
func (t tellingBucket) Put(ctx context.Context, key string, body []byte, o archive.PutOptions) error {
	return tell(ctx, t.Bucket.Put(ctx, key, body, o))
}

// Upload implements archive.Writer.
func (t tellingBucket) Upload(ctx context.Context, key string, body io.Reader, o archive.PutOptions) (archive.ObjectInfo, error) {
	info, err := t.Bucket.Upload(ctx, key, body, o)
	return info, tell(ctx, err)
}

// Remove implements archive.Writer.
func (t tellingBucket) Remove(ctx context.Context, keys ...string) error {
	return tell(ctx, t.Bucket.Remove(ctx, keys...))
}
