package metadata

import (
	"crypto/rand"
	"encoding/base64"
	"net/http"
	"strconv"
	"time"
)

// The headers of the hardened mode.
const (
	tokenHeader = "X-aliyun-ecs-metadata-token"
	ttlHeader   = "X-aliyun-ecs-metadata-token-ttl-seconds"
	maxTTL      = 21600 // seconds
)

// newToken answers PUT /latest/api/token.
func (s *Server) newToken(r *http.Request) (int, string) {
	if s.Settings().HTTPTokens == TokensOff {
		return http.StatusNotFound, "not found\n"
	}
	if r.Method != http.MethodPut {
		return http.StatusMethodNotAllowed, "method not allowed\n"
	}
	if r.Header.Get("X-Forwarded-For") != "" {
		return http.StatusForbidden, "a token is not given through a proxy\n"
	}
	ttl, err := strconv.Atoi(r.Header.Get(ttlHeader))
	if err != nil || ttl < 1 || ttl > maxTTL {
		return http.StatusBadRequest, ttlHeader + " has to be between 1 and 21600\n"
	}
	b := make([]byte, 30)
	_, _ = rand.Read(b) // never fails
	token := base64.URLEncoding.EncodeToString(b)
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	for t, end := range s.tokens {
		if now.After(end) {
			delete(s.tokens, t)
		}
	}
	s.tokens[token] = now.Add(time.Duration(ttl) * time.Second)
	return http.StatusOK, token
}

// checkToken tells whether the request may pass: 200, or the status and text to refuse it with.
func (s *Server) checkToken(r *http.Request) (int, string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	token := r.Header.Get(tokenHeader)
	switch {
	case s.settings.HTTPTokens == TokensOff:
		return http.StatusOK, ""
	case token == "" && s.settings.HTTPTokens == TokensRequired:
		return http.StatusForbidden, "a metadata token is required\n"
	case token == "":
		return http.StatusOK, ""
	case !s.now().Before(s.tokens[token]):
		return http.StatusUnauthorized, "the metadata token is unknown or has expired\n"
	}
	return http.StatusOK, ""
}

// ForgetTokens makes all tokens given out so far invalid, as a replaced instance would.
func (s *Server) ForgetTokens() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.tokens)
}
