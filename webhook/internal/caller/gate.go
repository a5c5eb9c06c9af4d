package caller

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"golang.org/x/time/rate"

	"outrider.dev/webhook/internal/inject"
)

// ErrOften is that the API server is not asked about this token now. Its text is for the caller.
var ErrOften = errors.New("too many calls at once: ask again")

// leeway is how far clocks may be apart; that of the API server (k8s.io/kubernetes, pkg/serviceaccount).
const leeway = time.Minute

// Gate decides whose token is worth a TokenReview. Anybody can call, and reviews are few: what cannot be a token of a sidecar
// costs none, one address cannot use up those of all others, and all of them together have a bound. It is safe for
// concurrent use.
type Gate struct {
	sources *Limiter
	all     *rate.Limiter
}

// NewGate makes one that lets through so many tokens in a second, and burst at once; of these one address gets a fifth.
// Pods on the node's network, and those behind a translation, share one.
func NewGate(perSecond, burst int) *Gate {
	const share = 5
	return &Gate{sources: NewLimiter(time.Second*share/time.Duration(perSecond), burst/share), all: rate.NewLimiter(rate.Limit(perSecond), burst)}
}

// Enter is nil for a token that the API server may be asked about, ErrInvalid or ErrOften for another.
func (g *Gate) Enter(r *http.Request, token string, now time.Time) error {
	if !plausible(token, now) {
		return ErrInvalid
	}
	source, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		source = r.RemoteAddr
	}
	if !g.sources.Allow(now, source) || !g.all.AllowN(now, 1) {
		return ErrOften
	}
	return nil
}

// plausible tells whether a token says of itself that it is for this door and has not expired. Whether that is true, only
// its signature tells.
func plausible(token string, now time.Time) bool {
	parts := strings.Split(token, ".")
	if len(parts) != 3 || parts[2] == "" {
		return false
	}
	var header struct {
		Algorithm string `json:"alg"`
	}
	var claims struct {
		Audience audience `json:"aud"`
		Expires  float64  `json:"exp"`
	}
	if !decode(parts[0], &header) || header.Algorithm == "" || !decode(parts[1], &claims) {
		return false
	}
	return slices.Contains(claims.Audience, inject.Audience) && now.Add(-leeway).Unix() < int64(claims.Expires)
}

func decode(part string, into any) bool {
	raw, err := base64.RawURLEncoding.DecodeString(part)
	return err == nil && json.Unmarshal(raw, into) == nil
}

// audience is one or several (RFC 7519, section 4.1.3).
type audience []string

// UnmarshalJSON implements json.Unmarshaler.
func (a *audience) UnmarshalJSON(raw []byte) error {
	var one string
	if json.Unmarshal(raw, &one) == nil {
		*a = audience{one}
		return nil
	}
	var several []string
	err := json.Unmarshal(raw, &several)
	*a = several
	return err
}
