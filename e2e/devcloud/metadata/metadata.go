// Package metadata is a stand-in for the instance metadata service of Alibaba Cloud ECS, the one at 100.100.100.200.
package metadata

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"outrider.dev/e2e/devcloud/keys"
)

// Settings describe the instance. The zero value of a field means its default.
type Settings struct {
	InstanceID   string `json:"instance_id"`   // i-devcloud0000000001
	Region       string `json:"region"`        // cn-hangzhou
	Zone         string `json:"zone"`          // <region>-h
	InstanceType string `json:"instance_type"` // ecs.g7.large
	PrivateIPv4  string `json:"private_ipv4"`  // 172.16.0.10
	Role         string `json:"role"`          // RAM role of the instance; "" is none
	RoleLifetime int    `json:"role_lifetime"` // of the role's keys, seconds; 21600. New ones appear when a third, at most half an hour, is left
	HTTPTokens   string `json:"http_tokens"`   // optional, required, or off: a service that knows no tokens
}

// The values of Settings.HTTPTokens.
const (
	TokensOff      = "off"
	TokensOptional = "optional"
	TokensRequired = "required"
)

func (s *Settings) complete() error {
	setDefault(&s.InstanceID, "i-devcloud0000000001")
	setDefault(&s.Region, "cn-hangzhou")
	setDefault(&s.Zone, s.Region+"-h")
	setDefault(&s.InstanceType, "ecs.g7.large")
	setDefault(&s.PrivateIPv4, "172.16.0.10")
	setDefault(&s.HTTPTokens, TokensOptional)
	if s.RoleLifetime == 0 {
		s.RoleLifetime = 21600
	}
	switch {
	case s.HTTPTokens != TokensOff && s.HTTPTokens != TokensOptional && s.HTTPTokens != TokensRequired:
		return fmt.Errorf("http_tokens %q: allowed are off, optional and required", s.HTTPTokens)
	case s.RoleLifetime < 0:
		return fmt.Errorf("role_lifetime %d: seconds cannot be negative", s.RoleLifetime)
	case strings.ContainsAny(s.Role, "/ \n"):
		return fmt.Errorf("role %q: not a role name", s.Role)
	}
	return nil
}

func setDefault(field *string, value string) {
	if *field == "" {
		*field = value
	}
}

// Config of a Server. Keys is required.
type Config struct {
	Settings Settings
	Keys     *keys.Store
	Now      func() time.Time // nil is time.Now
	Log      *slog.Logger     // nil is silence
}

// Server answers as the metadata service of one instance. All methods are safe for concurrent use.
type Server struct {
	keys *keys.Store
	now  func() time.Time
	log  *slog.Logger

	mu          sync.Mutex
	settings    Settings
	termination time.Time
	tokens      map[string]time.Time // by token: when it ends
	roleKey     keys.Key
	faults      []*armedFault
	requests    map[string]map[string]int
}

// New makes a server without a termination notice.
func New(cfg Config) (*Server, error) {
	s := &Server{keys: cfg.Keys, now: cfg.Now, log: cfg.Log, tokens: map[string]time.Time{}, requests: map[string]map[string]int{}}
	if s.now == nil {
		s.now = time.Now
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	err := s.Set(cfg.Settings)
	return s, err
}

// Set changes the instance. Nothing changes if the settings are not valid.
func (s *Server) Set(settings Settings) error {
	if err := settings.complete(); err != nil {
		return fmt.Errorf("metadata settings: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settings = settings
	s.roleKey = keys.Key{}
	return nil
}

// Settings returns how the instance is described now.
func (s *Server) Settings() Settings {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.settings
}

// SetSpotTermination announces the end of the instance, to the second; the zero time takes the notice back.
func (s *Server) SetSpotTermination(at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.termination = at
}

// SpotTermination returns the announced end, or the zero time.
func (s *Server) SpotTermination() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.termination
}

// Requests counts requests by path and status since the last reset. What a fault did stands in place of the status.
func (s *Server) Requests() map[string]map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[string]map[string]int{}
	for path, results := range s.requests {
		out[path] = map[string]int{}
		for k, n := range results {
			out[path][k] = n
		}
	}
	return out
}

// ResetRequests sets all counts to zero.
func (s *Server) ResetRequests() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests = map[string]map[string]int{}
}

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	result := s.serve(w, r)
	s.log.Debug("metadata request", "path", r.URL.Path, "result", result)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.requests[r.URL.Path] == nil {
		s.requests[r.URL.Path] = map[string]int{}
	}
	s.requests[r.URL.Path][result]++
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) string {
	if f := s.findFault(r); f != nil {
		if done := f.apply(w, r); done {
			return string(f.Kind)
		}
	}
	status, body := s.answer(r)
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(body)) // a client that has gone is no error of ours
	return fmt.Sprint(status)
}

func (s *Server) answer(r *http.Request) (int, string) {
	if r.URL.Path == "/latest/api/token" {
		return s.newToken(r)
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return http.StatusMethodNotAllowed, "method not allowed\n"
	}
	if status, message := s.checkToken(r); status != http.StatusOK {
		return status, message
	}
	path, ok := strings.CutPrefix(r.URL.Path, "/latest/meta-data/")
	if !ok {
		return http.StatusNotFound, "not found\n"
	}
	return s.value(path)
}

// value gives the answer for a path below /latest/meta-data/.
func (s *Server) value(path string) (int, string) {
	set := s.Settings()
	switch path {
	case "":
		return 200, "instance-id\ninstance/\nprivate-ipv4\nram/\nregion-id\nzone-id\n"
	case "instance-id":
		return 200, set.InstanceID
	case "region-id":
		return 200, set.Region
	case "zone-id":
		return 200, set.Zone
	case "private-ipv4":
		return 200, set.PrivateIPv4
	case "instance/instance-type":
		return 200, set.InstanceType
	case "instance/spot/termination-time":
		if at := s.SpotTermination(); !at.IsZero() {
			return 200, at.UTC().Format(time.RFC3339)
		}
	case "ram/security-credentials", "ram/security-credentials/":
		if set.Role != "" {
			return 200, set.Role
		}
	case "ram/security-credentials/" + set.Role:
		return s.credentials()
	}
	return http.StatusNotFound, "not found\n"
}

// credentials gives the key of the instance's role, a new one when the present one comes near its end.
func (s *Server) credentials() (int, string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now, lifetime := s.now(), time.Duration(s.settings.RoleLifetime)*time.Second
	if s.roleKey.Expires.Sub(now) < min(lifetime/3, 30*time.Minute) {
		k, err := s.keys.Issue(s.settings.Role, now, lifetime)
		if err != nil {
			return http.StatusInternalServerError, err.Error()
		}
		s.roleKey = k
	}
	k := s.roleKey
	body, err := json.MarshalIndent(map[string]string{
		"AccessKeyId": k.ID, "AccessKeySecret": k.Secret, "SecurityToken": k.Token, "Code": "Success",
		"Expiration":  k.Expires.Format(time.RFC3339),
		"LastUpdated": k.Expires.Add(-lifetime).Format(time.RFC3339),
	}, "", "  ")
	if err != nil {
		return http.StatusInternalServerError, err.Error()
	}
	return 200, string(body)
}
