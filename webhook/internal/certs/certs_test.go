package certs

import (
	"bytes"
	"context"
	"crypto/x509"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	corev1 "k8s.io/api/core/v1"
)

// memory is a Cluster that keeps objects as the API server does: a write of what has changed is a conflict, and what is
// published is seen by an API server some time later.
type memory struct {
	mu      sync.Mutex
	version int
	secret  *corev1.Secret
	regs    map[string]*Registration
	history []published // of all registrations together
	down    error
}

type published struct {
	at      time.Time
	bundles map[string][][]byte
}

func newMemory(webhooks map[string]int) *memory {
	m := &memory{secret: &corev1.Secret{}, regs: map[string]*Registration{}}
	for name, n := range webhooks {
		m.regs[name] = &Registration{Kind: mutating, Name: name, Bundles: make([][]byte, n)}
	}
	m.touch()
	return m
}

func (m *memory) touch() string {
	m.version++
	at := published{at: time.Now(), bundles: map[string][][]byte{}}
	for name, r := range m.regs {
		at.bundles[name] = slices.Clone(r.Bundles)
	}
	m.history = append(m.history, at)
	return fmt.Sprint(m.version)
}

func (m *memory) Secret(context.Context) (*corev1.Secret, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.down != nil {
		return nil, m.down
	}
	return m.secret.DeepCopy(), nil
}

func (m *memory) UpdateSecret(_ context.Context, s *corev1.Secret) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s.ResourceVersion != m.secret.ResourceVersion {
		return fmt.Errorf("%w: %s is not %s", ErrConflict, s.ResourceVersion, m.secret.ResourceVersion)
	}
	m.secret = s.DeepCopy()
	m.secret.ResourceVersion = m.touch()
	return nil
}

func (m *memory) Registrations(context.Context) ([]Registration, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var list []Registration
	for _, r := range m.regs {
		c := *r
		c.Bundles = slices.Clone(r.Bundles)
		list = append(list, c)
	}
	return list, nil
}

func (m *memory) Publish(_ context.Context, r Registration, bundle []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	is := m.regs[r.Name]
	if is.Version != r.Version {
		return fmt.Errorf("%w: %s", ErrConflict, r.Name)
	}
	for i := range is.Bundles {
		is.Bundles[i] = bundle
	}
	is.Version = m.touch()
	return nil
}

// seen are the bundles that an API server knows which is late by a delay.
func (m *memory) seen(delay time.Duration) map[string][][]byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	var last map[string][][]byte
	for _, p := range m.history {
		if time.Since(p.at) < delay {
			break
		}
		last = p.bundles
	}
	return last
}

// entry is one of the Secret's.
func (m *memory) entry(name string) []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.secret.Data[name]
}

func (m *memory) entries() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Sorted(maps.Keys(m.secret.Data))
}

// quiet tells whether nothing has changed for a while.
func (m *memory) quiet(d time.Duration) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return time.Since(m.history[len(m.history)-1].at) > d
}

const (
	day   = 24 * time.Hour
	delay = 3 * time.Second // of API servers
)

func keeper(m *memory, reg prometheus.Registerer) *Keeper {
	return New(Config{
		Cluster: m, DNSNames: []string{"outrider-webhook.outrider-system.svc", "outrider-webhook"},
		Durations: func() Durations {
			return Durations{CA: 30 * time.Minute, Leaf: 10 * time.Minute, Settle: 4 * time.Second}
		},
		Log: slog.New(slog.DiscardHandler), Metrics: reg,
	})
}

// accepted tells whether somebody who trusts a bundle would talk to the server that serves what k serves.
func accepted(k *Keeper, bundle []byte) error {
	c, err := k.Certificate(nil)
	if err != nil {
		return err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(bundle)
	_, err = c.Leaf.Verify(x509.VerifyOptions{DNSName: "outrider-webhook.outrider-system.svc", Roots: pool, CurrentTime: time.Now()})
	return err
}

// begin runs keepers until the test ends.
func begin(t *testing.T, keepers ...*Keeper) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for _, k := range keepers {
		wg.Go(func() {
			if err := k.Run(ctx); err != nil {
				t.Errorf("Run: %v", err)
			}
		})
	}
	t.Cleanup(func() { cancel(); wg.Wait() })
}

// Two replicas live through several authorities. At no moment would an API server, which is late by what a cluster is late
// by, refuse one of them that says that it is ready.
func TestNobodyIsRefusedWhileAuthoritiesChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(map[string]int{"pods": 1, "workloads": 2})
		reg := prometheus.NewRegistry()
		keepers := []*Keeper{keeper(m, reg), keeper(m, nil)}
		begin(t, keepers...)
		ready, checked := 0, 0
		authorities, leaves := map[string]bool{}, map[string]bool{}
		for start := time.Now(); time.Since(start) < time.Hour; {
			time.Sleep(500 * time.Millisecond)
			if m.quiet(15*time.Second) && time.Since(start)%time.Minute != 0 {
				continue // what can go wrong, goes wrong around a change
			}
			synctest.Wait()
			for i, k := range keepers {
				if err := k.Ready(); err != nil {
					if time.Since(start) > 20*time.Second {
						t.Fatalf("replica %d is not ready after %s: %v", i, time.Since(start), err)
					}
					continue
				}
				ready++
				for name, bundles := range m.seen(delay) {
					for _, b := range bundles {
						checked++
						if err := accepted(k, b); err != nil {
							t.Fatalf("after %s an API server refuses replica %d, by %s: %v", time.Since(start), i, name, err)
						}
					}
				}
				c, _ := k.Certificate(nil)
				leaves[string(c.Leaf.Raw)] = true
			}
			authorities[string(m.entry(caCert))] = true
		}
		if len(authorities) < 3 || len(leaves) < 7 || ready == 0 || checked == 0 {
			t.Errorf("%d authorities and %d certificates were seen in %d looks", len(authorities), len(leaves), ready)
		}
		if n := testutil.CollectAndCount(reg, "outrider_webhook_certificate_expiry_timestamp_seconds"); n != 2 {
			t.Errorf("%d expiries are exported", n)
		}
	})
}

// A pod keeps the list that it was given when it was admitted. It is good for as long as the authority that signed at that
// moment had to sign, and through the next change.
func TestBundleOfPodsOutlivesAChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(map[string]int{"pods": 1})
		k := keeper(m, nil)
		begin(t, k)
		time.Sleep(time.Minute)
		first := m.entry(caCert)
		for m.entry(nextCert) == nil {
			time.Sleep(time.Minute)
		}
		time.Sleep(time.Minute)
		given := k.Bundle()
		for bytes.Equal(m.entry(caCert), first) {
			time.Sleep(time.Minute)
		}
		time.Sleep(8 * time.Minute) // the first authority has expired
		synctest.Wait()
		if err := accepted(k, []byte(given)); err != nil {
			t.Errorf("the pod does not trust the webhook after the change: %v", err)
		}
		if err := accepted(k, first); err == nil {
			t.Error("the first authority alone is still enough: nothing has changed")
		}
	})
}

// Somebody deletes the contents of the Secret. What is served goes on being served until its successor is trusted.
func TestLostSecretIsReplacedWithoutARefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(map[string]int{"pods": 1, "workloads": 1})
		keepers := []*Keeper{keeper(m, nil), keeper(m, nil)}
		begin(t, keepers...)
		time.Sleep(time.Minute)
		m.mu.Lock()
		m.secret.Data = nil
		m.secret.ResourceVersion = m.touch()
		m.mu.Unlock()
		before, _ := keepers[0].Certificate(nil)
		for range 600 {
			time.Sleep(100 * time.Millisecond)
			synctest.Wait()
			for i, k := range keepers {
				for name, b := range m.seen(delay) {
					if err := accepted(k, b[0]); err != nil {
						t.Fatalf("an API server refuses replica %d, by %s: %v", i, name, err)
					}
				}
			}
		}
		if after, _ := keepers[0].Certificate(nil); after.Leaf.Equal(before.Leaf) {
			t.Error("the certificate has not been replaced")
		}
	})
}

// A registration that was applied anew has no authorities. That is seen, said and mended.
func TestRegistrationThatWasAppliedAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(map[string]int{"pods": 1})
		k := keeper(m, nil)
		begin(t, k)
		time.Sleep(time.Minute)
		m.mu.Lock()
		m.regs["workloads"] = &Registration{Kind: validating, Name: "workloads", Bundles: [][]byte{[]byte("nonsense"), nil}}
		m.regs["pods"].Bundles[0] = nil
		m.regs["pods"].Version = m.touch()
		m.mu.Unlock()
		time.Sleep(longest + time.Second)
		synctest.Wait()
		if err := k.Ready(); err != nil {
			t.Errorf("not ready: %v", err)
		}
		for name, list := range m.seen(0) {
			for i, b := range list {
				if err := accepted(k, b); err != nil {
					t.Errorf("%s[%d]: %v", name, i, err)
				}
			}
		}
	})
}

// Without an API server what was known holds until it expires, and then a probe says so.
func TestAPIServerAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(map[string]int{"pods": 1})
		reg := prometheus.NewRegistry()
		k := keeper(m, reg)
		begin(t, k)
		time.Sleep(time.Minute)
		m.mu.Lock()
		m.down = fmt.Errorf("no route to host")
		m.mu.Unlock()
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		if err := k.Ready(); err != nil {
			t.Errorf("not ready: %v", err)
		}
		if v := testutil.ToFloat64(k.metrics.errors); v < 50 {
			t.Errorf("%v errors are counted", v)
		}
		time.Sleep(5 * time.Minute)
		if err := k.Ready(); err == nil {
			t.Error("ready with an expired certificate")
		}
	})
}

// Before anything is known nothing is served, and the reason is what hinders it.
func TestNotReadyBeforeAnythingIsKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(nil)
		m.down = fmt.Errorf("the Secret does not exist")
		k := keeper(m, nil)
		begin(t, k)
		time.Sleep(time.Second)
		synctest.Wait()
		if _, err := k.Certificate(nil); err == nil || k.Ready() == nil {
			t.Errorf("a certificate: %v; ready: %v", err, k.Ready())
		} else if got := k.Ready().Error(); got != "the Secret does not exist" {
			t.Errorf("the reason is %q", got)
		}
	})
}

// What others wrote into the Secret stays, what is damaged is replaced.
func TestDamagedSecret(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(map[string]int{"pods": 1})
		m.secret.Data = map[string][]byte{
			caCert: []byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), caKey: []byte("x"), formerCert: []byte("y"), "theirs": []byte("z"),
		}
		k := keeper(m, nil)
		begin(t, k)
		time.Sleep(time.Minute)
		synctest.Wait()
		if err := k.Ready(); err != nil {
			t.Fatalf("not ready: %v", err)
		}
		if got := m.entries(); !slices.Equal(got, []string{caCert, caKey, "theirs", leafCert, leafKey}) {
			t.Errorf("the Secret has %v", got)
		}
		served, _ := k.Certificate(nil)
		m.mu.Lock()
		m.secret.Data[formerCert], m.secret.Data[nextCert] = []byte("y"), []byte("z")
		m.mu.Unlock()
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := m.entries(); !slices.Equal(got, []string{caCert, caKey, "theirs", leafCert, leafKey}) {
			t.Errorf("after more damage the Secret has %v", got)
		}
		if c, _ := k.Certificate(nil); !c.Leaf.Equal(served.Leaf) {
			t.Error("damage elsewhere changed the certificate that is served")
		}
	})
}

// Authorities of others in a registration are not passed on to pods.
func TestForeignAuthoritiesGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		other := New(Config{DNSNames: []string{"x"}})
		a, err := other.maker().CreateCACert(time.Now(), time.Now().Add(day))
		if err != nil {
			t.Fatal(err)
		}
		foreign := other.maker()
		foreign.CAName = "somebody-else"
		b, err := foreign.CreateCACert(time.Now(), time.Now().Add(day))
		if err != nil {
			t.Fatal(err)
		}
		m := newMemory(map[string]int{"pods": 1})
		m.regs["pods"].Bundles[0] = slices.Concat(a.CertPEM, b.CertPEM)
		k := keeper(m, nil)
		begin(t, k)
		time.Sleep(time.Minute)
		synctest.Wait()
		list, err := decode([]byte(k.Bundle()))
		if err != nil || len(list) != 2 || slices.ContainsFunc(list, func(c *x509.Certificate) bool { return c.Subject.CommonName != authorityName }) {
			t.Errorf("%d authorities, %v; want ours and the one that was there of ours", len(list), err)
		}
	})
}
