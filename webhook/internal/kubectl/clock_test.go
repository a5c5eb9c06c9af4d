package kubectl

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"k8s.io/client-go/rest"
)

// TestClockIsReadFromAnswers: no request is made for it.
func TestClockIsReadFromAnswers(t *testing.T) {
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Date", time.Now().UTC().Add(-time.Hour).Format(http.TimeFormat))
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"major": "1", "minor": "33"}`)) // the test sees what was read
	}))
	defer api.Close()
	c, err := NewCluster(&rest.Config{Host: api.URL})
	if err != nil {
		t.Fatal(err)
	}
	if c.clock.ahead.Load() != nil {
		t.Error("the clock is known before anything was asked")
	}
	if _, err := c.client.Discovery().ServerVersion(); err != nil {
		t.Fatal(err)
	}
	if ahead := c.clock.ahead.Load(); ahead == nil || (*ahead-time.Hour).Abs() > time.Minute {
		t.Errorf("the clock is ahead by %v, want an hour", ahead)
	}
}
