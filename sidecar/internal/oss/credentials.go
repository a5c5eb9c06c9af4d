package oss

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	sdk "github.com/aliyun/aliyun-oss-go-sdk/oss"
)

// Keys is one set of credentials.
type Keys struct {
	ID, Secret string
	Token      string    // the security token of temporary credentials, else empty
	Expires    time.Time // zero: never
}

func (k Keys) expired(now time.Time) bool { return !k.Expires.IsZero() && !now.Before(k.Expires) }

// Credentials hands out keys. Implementations are safe for concurrent use.
type Credentials interface {
	// Keys returns keys that are valid now. It is asked before every request, so it must be quick as a rule.
	Keys(ctx context.Context) (Keys, error)
	// Reject says that OSS has refused k, and tells whether the next call of Keys may return others.
	Reject(k Keys) bool
}

// currentKeys hands the SDK, which knows no context, the keys that were fetched for the request at hand.
type currentKeys struct{ keys atomic.Pointer[Keys] }

var _ sdk.CredentialsProviderE = (*currentKeys)(nil)

func (c *currentKeys) store(k Keys) { c.keys.Store(&k) }

func (c *currentKeys) load() Keys {
	if k := c.keys.Load(); k != nil {
		return *k
	}
	return Keys{}
}

// GetCredentials implements the SDK's interface; it uses the other form.
func (c *currentKeys) GetCredentials() sdk.Credentials { return sdkKeys{c.load()} }

// GetCredentialsE implements the SDK's interface.
func (c *currentKeys) GetCredentialsE() (sdk.Credentials, error) {
	k := c.load()
	if k.ID == "" || k.Secret == "" {
		return nil, errors.New("the credentials are empty")
	}
	return sdkKeys{k}, nil
}

type sdkKeys struct{ keys Keys }

func (k sdkKeys) GetAccessKeyID() string     { return k.keys.ID }
func (k sdkKeys) GetAccessKeySecret() string { return k.keys.Secret }
func (k sdkKeys) GetSecurityToken() string   { return k.keys.Token }

const (
	// fetchTimeout bounds one fetch of temporary credentials.
	fetchTimeout = 20 * time.Second
	// fetchPause is the least time between two fetches in the background.
	fetchPause = 15 * time.Second
)

// temporary caches credentials that expire. At half their life they are renewed in the background; the old ones go on
// being used for as long as they are valid, so that an outage of STS shorter than that is not noticed.
type temporary struct {
	source string // for messages
	fetch  func(ctx context.Context) (Keys, error)
	now    func() time.Time

	mu      sync.Mutex
	keys    Keys
	renewAt time.Time
	running chan struct{} // closed when the fetch under way has ended; nil if there is none
	err     error         // of the last fetch
}

func newTemporary(source string, fetch func(context.Context) (Keys, error)) *temporary {
	return &temporary{source: source, fetch: fetch, now: time.Now}
}

// Keys implements Credentials. It waits only if there are no valid keys.
func (t *temporary) Keys(ctx context.Context) (Keys, error) {
	t.mu.Lock()
	now := t.now()
	valid := t.keys.ID != "" && !t.keys.expired(now)
	if valid && now.Before(t.renewAt) {
		defer t.mu.Unlock()
		return t.keys, nil
	}
	if t.running == nil {
		t.start(ctx)
	}
	keys, running := t.keys, t.running
	t.mu.Unlock()
	if valid {
		return keys, nil
	}
	select {
	case <-running:
	case <-ctx.Done():
		return Keys{}, fmt.Errorf("waiting for credentials from %s: %w", t.source, context.Cause(ctx))
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.keys.ID == "" || t.keys.expired(t.now()) {
		return Keys{}, fmt.Errorf("fetching credentials from %s: %w", t.source, t.err)
	}
	return t.keys, nil
}

// start fetches keys on a goroutine for which Close waits. The caller holds the lock.
func (t *temporary) start(ctx context.Context) {
	running := make(chan struct{})
	t.running = running
	// Others will need the keys even if this caller goes away.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), fetchTimeout)
	go func() {
		defer cancel()
		keys, err := t.fetch(ctx)
		if err == nil && (keys.ID == "" || keys.Secret == "" || keys.expired(t.now())) {
			err = errors.New("the answer holds no valid keys")
		}
		t.mu.Lock()
		defer t.mu.Unlock()
		now := t.now()
		t.err, t.renewAt = err, now.Add(fetchPause)
		if err == nil {
			t.keys = keys
			if half := now.Add(keys.Expires.Sub(now) / 2); half.After(t.renewAt) {
				t.renewAt = half
			}
		}
		t.running = nil
		close(running)
	}()
}

// Reject implements Credentials.
func (t *temporary) Reject(k Keys) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.keys == k {
		t.keys = Keys{}
	}
	return true
}

// Close waits for a fetch that is under way.
func (t *temporary) Close() error {
	t.mu.Lock()
	running := t.running
	t.mu.Unlock()
	if running != nil {
		<-running
	}
	return nil
}
