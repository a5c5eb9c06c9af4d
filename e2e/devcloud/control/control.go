// Package control puts everything but OSS itself behind one handler: the metadata service under /latest/, STS under
// /sts/, and under /control/ the switches that tests and people use.
//
//	GET PUT DELETE  /control/faults             OSS faults: an array of oss.Fault
//	GET PUT DELETE  /control/metadata-faults    an array of metadata.Fault
//	GET PUT DELETE  /control/spot-termination   an RFC 3339 time, or "in 120s"
//	GET PUT         /control/metadata           metadata.Settings; fields that are not sent stay as they are
//	GET PUT         /control/keys               {"add": [keys.Key], "revoke": [id], "roles": {name: [keys.Rule]}}
//	    PUT         /control/sts                {"lifetime_seconds": 30}; 0 is what the client asks for
//	    PUT         /control/versioning         {"bucket": name, "status": "Enabled", "Suspended" or ""}
//	    PUT         /control/worm               {"bucket": name, "enabled": true}
//	GET     DELETE  /control/requests           counters; ?recent=N adds the latest N requests
//
// For example, every second upload of a segment is applied but not acknowledged, and the next three listings fail:
//
//	[{"op": "put", "prefix": "pg/wal_005/", "kind": "reset_after", "probability": 0.5, "seed": 1},
//	 {"op": "list", "kind": "status", "status": 503, "count": 3}]
package control

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"outrider.dev/e2e/devcloud/keys"
	"outrider.dev/e2e/devcloud/metadata"
	"outrider.dev/e2e/devcloud/oss"
	"outrider.dev/e2e/devcloud/sts"
)

// Handler routes to its parts, all of which are required.
type Handler struct {
	OSS      *oss.Server
	Metadata *metadata.Server
	STS      *sts.Server
	Keys     *keys.Store
	Now      func() time.Time
}

// ServeHTTP answers one request.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch path := r.URL.Path; {
	case strings.HasPrefix(path, "/control/"):
		h.control(w, r, strings.TrimPrefix(path, "/control/"))
	case path == "/sts" || strings.HasPrefix(path, "/sts/"):
		h.STS.ServeHTTP(w, r)
	default:
		h.Metadata.ServeHTTP(w, r)
	}
}

// control finds the switch and reports errors as 400 with a text.
func (h *Handler) control(w http.ResponseWriter, r *http.Request, name string) {
	body, err := io.ReadAll(io.LimitReader(r.Body, 8<<20))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	do, known := h.switches()[r.Method+" "+name]
	if !known {
		http.Error(w, fmt.Sprintf("there is no %s %s", r.Method, r.URL.Path), http.StatusNotFound)
		return
	}
	answer, err := do(r, body)
	if err != nil {
		http.Error(w, fmt.Sprintf("%s %s: %v", r.Method, r.URL.Path, err), http.StatusBadRequest)
		return
	}
	if answer == nil {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	text, err := json.MarshalIndent(answer, "", "  ")
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(append(text, '\n')) // a client that has gone is no error of ours
}

type action func(r *http.Request, body []byte) (answer any, err error)

func (h *Handler) switches() map[string]action {
	return map[string]action{
		"GET faults":              func(*http.Request, []byte) (any, error) { return h.OSS.Faults(), nil },
		"PUT faults":              h.putFaults,
		"DELETE faults":           func(*http.Request, []byte) (any, error) { return nil, h.OSS.SetFaults() },
		"GET metadata-faults":     func(*http.Request, []byte) (any, error) { return h.Metadata.Faults(), nil },
		"PUT metadata-faults":     h.putMetadataFaults,
		"DELETE metadata-faults":  func(*http.Request, []byte) (any, error) { return nil, h.Metadata.SetFaults() },
		"GET spot-termination":    h.getTermination,
		"PUT spot-termination":    h.putTermination,
		"DELETE spot-termination": func(*http.Request, []byte) (any, error) { h.Metadata.SetSpotTermination(time.Time{}); return nil, nil },
		"GET metadata":            func(*http.Request, []byte) (any, error) { return h.Metadata.Settings(), nil },
		"PUT metadata":            h.putMetadata,
		"GET keys":                h.getKeys,
		"PUT keys":                h.putKeys,
		"PUT sts":                 h.putSTS,
		"PUT versioning":          h.putVersioning,
		"PUT worm":                h.putWORM,
		"GET requests":            h.getRequests,
		"DELETE requests":         h.deleteRequests,
	}
}

// decode reads one JSON value and nothing else; unknown fields are errors, for they are typing errors.
func decode(body []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return fmt.Errorf("the body is not the JSON expected: %w", err)
	}
	if dec.More() {
		return fmt.Errorf("there is something behind the JSON value")
	}
	return nil
}

func (h *Handler) putFaults(_ *http.Request, body []byte) (any, error) {
	var faults []oss.Fault
	if err := decode(body, &faults); err != nil {
		return nil, err
	}
	return nil, h.OSS.SetFaults(faults...)
}

func (h *Handler) putMetadataFaults(_ *http.Request, body []byte) (any, error) {
	var faults []metadata.Fault
	if err := decode(body, &faults); err != nil {
		return nil, err
	}
	return nil, h.Metadata.SetFaults(faults...)
}

func (h *Handler) getTermination(*http.Request, []byte) (any, error) {
	if at := h.Metadata.SpotTermination(); !at.IsZero() {
		return map[string]string{"at": at.UTC().Format(time.RFC3339)}, nil
	}
	return map[string]string{}, nil
}

func (h *Handler) putTermination(_ *http.Request, body []byte) (any, error) {
	text := strings.Trim(strings.TrimSpace(string(body)), `"`)
	if in, ok := strings.CutPrefix(text, "in "); ok {
		d, err := time.ParseDuration(in)
		if err != nil {
			return nil, err
		}
		h.Metadata.SetSpotTermination(h.Now().Add(d))
		return nil, nil
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return nil, fmt.Errorf("neither an RFC 3339 time nor \"in <duration>\": %w", err)
	}
	h.Metadata.SetSpotTermination(at)
	return nil, nil
}

func (h *Handler) putMetadata(_ *http.Request, body []byte) (any, error) {
	settings := h.Metadata.Settings()
	if err := decode(body, &settings); err != nil {
		return nil, err
	}
	return nil, h.Metadata.Set(settings)
}

// getKeys lists keys and rights without the secrets.
func (h *Handler) getKeys(*http.Request, []byte) (any, error) {
	all := h.Keys.All()
	for i := range all {
		all[i].Secret = ""
		if all[i].Token != "" {
			all[i].Token = "(hidden)"
		}
	}
	return all, nil
}

func (h *Handler) putKeys(_ *http.Request, body []byte) (any, error) {
	var change struct {
		Add    []keys.Key             `json:"add"`
		Revoke []string               `json:"revoke"`
		Roles  map[string][]keys.Rule `json:"roles"`
	}
	if err := decode(body, &change); err != nil {
		return nil, err
	}
	return nil, h.Keys.Change(change.Add, change.Revoke, change.Roles)
}

func (h *Handler) putSTS(_ *http.Request, body []byte) (any, error) {
	var v struct {
		Lifetime int `json:"lifetime_seconds"`
	}
	if err := decode(body, &v); err != nil {
		return nil, err
	}
	h.STS.SetLifetime(time.Duration(v.Lifetime) * time.Second)
	return nil, nil
}

func (h *Handler) putVersioning(_ *http.Request, body []byte) (any, error) {
	var v struct {
		Bucket string `json:"bucket"`
		Status string `json:"status"`
	}
	if err := decode(body, &v); err != nil {
		return nil, err
	}
	return nil, h.OSS.SetVersioning(v.Bucket, v.Status)
}

func (h *Handler) putWORM(_ *http.Request, body []byte) (any, error) {
	var v struct {
		Bucket  string `json:"bucket"`
		Enabled bool   `json:"enabled"`
	}
	if err := decode(body, &v); err != nil {
		return nil, err
	}
	return nil, h.OSS.SetWORM(v.Bucket, v.Enabled)
}

func (h *Handler) getRequests(r *http.Request, _ []byte) (any, error) {
	var doc struct {
		oss.Requests
		Metadata map[string]map[string]int `json:"metadata"`
		STS      int                       `json:"sts"`
		Recent   []oss.Request             `json:"recent,omitempty"`
	}
	doc.Requests, doc.Metadata, doc.STS = h.OSS.Requests(), h.Metadata.Requests(), h.STS.Calls()
	if text := r.URL.Query().Get("recent"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 0 {
			return nil, fmt.Errorf("recent=%s is not a number", text)
		}
		doc.Recent = h.OSS.Recent(n)
	}
	return doc, nil
}

func (h *Handler) deleteRequests(*http.Request, []byte) (any, error) {
	h.OSS.ResetRequests()
	h.Metadata.ResetRequests()
	h.STS.ResetCalls()
	return nil, nil
}
