// Package sts is a stand-in for the one operation of Alibaba Cloud's Security Token Service that pods use:
// AssumeRoleWithOIDC, which changes a service account's token into a temporary access key.
package sts

import (
	"encoding/base64"
	"encoding/json"
	"encoding/xml"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"outrider.dev/e2e/devcloud/keys"
)

// Server answers AssumeRoleWithOIDC. All methods are safe for concurrent use.
type Server struct {
	Keys *keys.Store
	Now  func() time.Time // nil is time.Now
	Log  *slog.Logger     // nil is silence

	lifetime atomic.Int64 // seconds, instead of what is asked for, if not 0
	calls    atomic.Int64
}

// SetLifetime gives new keys this lifetime whatever the client asks for; 0 ends that. The real service refuses
// anything under 15 minutes, which is too long for most tests.
func (s *Server) SetLifetime(d time.Duration) { s.lifetime.Store(int64(d / time.Second)) }

// Calls counts requests since the last ResetCalls.
func (s *Server) Calls() int { return int(s.calls.Load()) }

// ResetCalls sets the count to zero.
func (s *Server) ResetCalls() { s.calls.Store(0) }

type credentialsDoc struct {
	AccessKeyID     string `json:"AccessKeyId" xml:"AccessKeyId"`
	AccessKeySecret string
	SecurityToken   string
	Expiration      string
}

type userDoc struct {
	AssumedRoleID string `json:"AssumedRoleId" xml:"AssumedRoleId"`
	ARN           string `json:"Arn" xml:"Arn"`
}

type assumeDoc struct {
	XMLName         xml.Name       `json:"-" xml:"AssumeRoleWithOIDCResponse"`
	RequestID       string         `json:"RequestId" xml:"RequestId"`
	AssumedRoleUser userDoc        `json:"AssumedRoleUser" xml:"AssumedRoleUser"`
	Credentials     credentialsDoc `json:"Credentials" xml:"Credentials"`
}

type errorDoc struct {
	XMLName   xml.Name `json:"-" xml:"Error"`
	RequestID string   `json:"RequestId" xml:"RequestId"`
	HostID    string   `json:"HostId" xml:"HostId"`
	Code      string
	Message   string
}

func (s *Server) now() time.Time {
	if s.Now == nil {
		return time.Now()
	}
	return s.Now()
}

// ServeHTTP answers one request; parameters may be in the query or in a form.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.calls.Add(1)
	doc, status := s.assume(r)
	if s.Log != nil {
		s.Log.Debug("sts request", "status", status)
	}
	var body []byte
	var err error
	if strings.EqualFold(r.FormValue("Format"), "JSON") {
		w.Header().Set("Content-Type", "application/json;charset=utf-8")
		body, err = json.Marshal(doc)
	} else {
		w.Header().Set("Content-Type", "text/xml;charset=utf-8")
		body, err = xml.Marshal(doc)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.WriteHeader(status)
	_, _ = w.Write(body) // a client that has gone is no error of ours
}

func (s *Server) assume(r *http.Request) (doc any, status int) {
	refuse := func(status int, code, message string) (any, int) {
		return errorDoc{RequestID: "00000000-0000-0000-0000-000000000000", HostID: r.Host, Code: code, Message: message}, status
	}
	if action := r.FormValue("Action"); action != "AssumeRoleWithOIDC" {
		return refuse(400, "InvalidAction.NotFound", "The specified action is not found: "+strconv.Quote(action)+". This stand-in knows AssumeRoleWithOIDC only.")
	}
	for _, name := range []string{"RoleArn", "OIDCProviderArn", "OIDCToken", "RoleSessionName"} {
		if r.FormValue(name) == "" {
			return refuse(400, "MissingParameter."+name, "The parameter "+name+" is needed but was not provided.")
		}
	}
	role, ok := roleName(r.FormValue("RoleArn"))
	if !ok {
		return refuse(400, "InvalidParameter.RoleArn", "The parameter RoleArn is not of the form acs:ram::<account>:role/<name>.")
	}
	now := s.now()
	if expired(r.FormValue("OIDCToken"), now) {
		return refuse(400, "AuthenticationFail.OIDCToken.Expired", "This OIDC token has expired.")
	}
	seconds := 3600
	if text := r.FormValue("DurationSeconds"); text != "" {
		var err error
		if seconds, err = strconv.Atoi(text); err != nil || seconds < 900 || seconds > 43200 {
			return refuse(400, "InvalidParameter.DurationSeconds", "The parameter DurationSeconds has to be between 900 and 43200.")
		}
	}
	if fixed := s.lifetime.Load(); fixed > 0 {
		seconds = int(fixed)
	}
	k, err := s.Keys.Issue(role, now, time.Duration(seconds)*time.Second)
	if err != nil {
		return refuse(500, "InternalError", err.Error())
	}
	session := r.FormValue("RoleSessionName")
	return assumeDoc{
		RequestID:       "00000000-0000-0000-0000-000000000000",
		AssumedRoleUser: userDoc{"300000000000000001:" + session, strings.Replace(r.FormValue("RoleArn"), ":role/", ":assumed-role/", 1) + "/" + session},
		Credentials:     credentialsDoc{k.ID, k.Secret, k.Token, k.Expires.Format(time.RFC3339)},
	}, 200
}

func roleName(arn string) (string, bool) {
	_, name, ok := strings.Cut(arn, ":role/")
	return name, ok && strings.HasPrefix(arn, "acs:ram::") && name != ""
}

// expired looks at the exp claim of a token that is a JWT. Signatures are not verified.
func expired(token string, now time.Time) bool {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return false
	}
	data, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return false
	}
	var claims struct {
		Exp float64 `json:"exp"`
	}
	return json.Unmarshal(data, &claims) == nil && claims.Exp > 0 && now.Unix() >= int64(claims.Exp)
}
