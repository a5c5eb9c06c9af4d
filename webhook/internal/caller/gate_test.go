package caller_test

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"outrider.dev/webhook/internal/caller"
)

// token is one with these claims, signed by nobody.
func token(claims string) string {
	part := base64.RawURLEncoding.EncodeToString
	return part([]byte(`{"alg":"ES256"}`)) + "." + part([]byte(claims)) + ".c2lnbmF0dXJl"
}

func from(t *testing.T, address string) *http.Request {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", nil)
	r.RemoteAddr = address
	return r
}

// The API server is asked about tokens that could be a sidecar's, and about no others.
func TestWhatIsWorthAReview(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	valid := func(audience string) string { return fmt.Sprintf(`{"aud":%s,"exp":%d}`, audience, now.Unix()+60) }
	for name, c := range map[string]struct {
		token string
		want  error
	}{
		"a sidecar's":            {token(valid(`["outrider.dev"]`)), nil},
		"one audience":           {token(valid(`"outrider.dev"`)), nil},
		"one audience of two":    {token(valid(`["vault","outrider.dev"]`)), nil},
		"a clock that is behind": {token(fmt.Sprintf(`{"aud":["outrider.dev"],"exp":%d}`, now.Unix()-30)), nil},
		"another audience":       {token(valid(`["https://kubernetes.default.svc"]`)), caller.ErrInvalid},
		"no audience":            {token(`{"exp":1900000000}`), caller.ErrInvalid},
		"an odd audience":        {token(valid(`{"a":1}`)), caller.ErrInvalid},
		"expired":                {token(fmt.Sprintf(`{"aud":["outrider.dev"],"exp":%d}`, now.Unix()-61)), caller.ErrInvalid},
		"without an end":         {token(`{"aud":["outrider.dev"]}`), caller.ErrInvalid},
		"no JSON":                {token(`x`), caller.ErrInvalid},
		"no base64":              {"a.b.c", caller.ErrInvalid},
		"no signature":           {token(valid(`["outrider.dev"]`))[:60] + "..", caller.ErrInvalid},
	} {
		if err := caller.NewGate(50, 100).Enter(from(t, "10.0.0.1:7"), c.token, now); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

// Whoever makes tokens up is refused by the API server only; others must get through meanwhile.
func TestOneAddressDoesNotStarveOthers(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	forged := token(`{"aud":["outrider.dev"],"exp":1900000000}`)
	g := caller.NewGate(50, 100)
	let := 0
	for port := range 1000 {
		if g.Enter(from(t, fmt.Sprintf("10.0.0.66:%d", port)), forged, now) == nil {
			let++
		}
	}
	if let != 20 {
		t.Errorf("one address had %d tokens reviewed at once", let)
	}
	if err := g.Enter(from(t, "10.0.0.7:1"), forged, now); err != nil {
		t.Errorf("another address: %v", err)
	}
	if err := g.Enter(from(t, "[fd00::7]:1"), forged, now); err != nil {
		t.Errorf("an address of IPv6: %v", err)
	}
	if err := g.Enter(from(t, "10.0.0.66:1"), forged, now.Add(time.Second)); err != nil {
		t.Errorf("the first one, a second later: %v", err)
	}
	let = 0
	for host := range 250 {
		if g.Enter(from(t, fmt.Sprintf("10.0.1.%d:1", host)), forged, now) == nil {
			let++
		}
	}
	if let > 100 {
		t.Errorf("all together had %d tokens reviewed at once", let)
	}
}
