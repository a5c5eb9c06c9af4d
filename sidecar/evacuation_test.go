package main

import (
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"outrider.dev/e2e/devcloud/devtest"
)

// A notice makes the sidecar report it, and ask for its pod to be moved, whatever state it is in, until the notice is
// withdrawn or the pod is stopped. That nobody is there to answer changes nothing else.
func TestNoticeAsksForEvacuation(t *testing.T) {
	t.Parallel()
	cloud := devtest.Start(t)
	release := time.Now().Add(5 * time.Minute).UTC().Truncate(time.Second)
	var calls, wrong, broken, reported, withdrawn atomic.Int64
	webhook := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var q struct {
			Kind      string    `json:"kind"`
			ReleaseAt time.Time `json:"release_at"`
		}
		err := json.NewDecoder(r.Body).Decode(&q)
		if r.URL.Path == "/v1/reports" && err == nil && r.Header.Get("Authorization") == "Bearer a.b.c" {
			switch {
			case q.Kind == "notice" && q.ReleaseAt.Equal(release):
				reported.Add(1)
			case q.Kind == "notice_withdrawn":
				withdrawn.Add(1)
			}
			fmt.Fprint(w, `{"outcome":"noted","message":"Events are written"}`)
			return
		}
		if err != nil || !q.ReleaseAt.Equal(release) || r.Header.Get("Authorization") != "Bearer a.b.c" {
			wrong.Add(1)
		}
		calls.Add(1)
		if broken.Load() > 0 {
			panic(http.ErrAbortHandler)
		}
		fmt.Fprint(w, `{"outcome":"waiting","message":"for a budget"}`)
	}))
	defer webhook.Close()
	dir := t.TempDir()
	token := filepath.Join(dir, "token")
	if err := os.WriteFile(token, []byte("a.b.c"), 0o600); err != nil {
		t.Fatal(err)
	}
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: webhook.Certificate().Raw})
	cmd := shellFor(cloud, testRoot).with("PGDATA="+dir, "PGHOST=127.0.0.1", "PGPORT=1", "OUTRIDER_METADATA_URL="+cloud.MetadataURL,
		"OUTRIDER_EVACUATION_URL="+webhook.URL+"/v1/evacuations", "OUTRIDER_EVACUATION_CA="+string(ca), "OUTRIDER_EVACUATION_TOKEN_FILE="+token,
	).command(t, "run", "--listen", "127.0.0.1:0")
	var out lockedBuffer
	cmd.Stderr = &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	defer func() { _ = cmd.Process.Kill() }()
	wait := func(what string, ok func() bool) {
		t.Helper()
		for end := time.Now().Add(time.Minute); !ok(); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%s: not within a minute\n%s", what, out.String())
			}
		}
	}
	said := func(text string) func() bool { return func() bool { return strings.Contains(out.String(), text) } }

	wait("a sidecar that asks for notices", func() bool {
		n := 0
		for _, results := range cloud.Metadata.Requests() {
			for _, k := range results {
				n += k
			}
		}
		return n > 0
	})
	if calls.Load() != 0 {
		t.Error("it asks without a notice")
	}
	cloud.Metadata.SetSpotTermination(release)
	wait("a second call", func() bool { return calls.Load() >= 2 })
	wait("a report of the notice", func() bool { return reported.Load() == 1 })
	wait("the journal", said("evacuation_answered"))
	broken.Store(1)
	wait("a failure in the journal", said("evacuation_failed"))
	cloud.Metadata.SetSpotTermination(time.Time{})
	wait("the withdrawal", said("notice_withdrawn"))
	wait("a report of the withdrawal", func() bool { return withdrawn.Load() == 1 })
	before := calls.Load()
	cloud.Metadata.SetSpotTermination(release)
	wait("calls after the notice came back", func() bool { return calls.Load() > before+1 })
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("%v\n%s", err, out.String())
		}
	case <-time.After(time.Minute):
		t.Fatalf("it does not end\n%s", out.String())
	}
	if wrong.Load() > 0 {
		t.Errorf("%d of %d calls were wrong", wrong.Load(), calls.Load())
	}
	if strings.Contains(out.String(), "a.b.c") {
		t.Errorf("the token is in the log:\n%s", out.String())
	}
}
