package control_test

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	v1 "github.com/aliyun/aliyun-oss-go-sdk/oss"

	"outrider.dev/e2e/devcloud/devtest"
	"outrider.dev/e2e/devcloud/oss"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

type client struct {
	t   *testing.T
	url string
}

func (c client) do(method, path, body string) (int, string) {
	c.t.Helper()
	req, err := http.NewRequestWithContext(c.t.Context(), method, c.url+path, strings.NewReader(body))
	must(c.t, err)
	resp, err := http.DefaultClient.Do(req)
	must(c.t, err)
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	must(c.t, err)
	return resp.StatusCode, string(data)
}

func (c client) put(path, body string) {
	c.t.Helper()
	if status, text := c.do("PUT", "/control/"+path, body); status != 204 {
		c.t.Fatalf("PUT %s %s: %d %s", path, body, status, text)
	}
}

func (c client) remove(path string) {
	c.t.Helper()
	if status, text := c.do("DELETE", "/control/"+path, ""); status != 204 {
		c.t.Fatalf("DELETE %s: %d %s", path, status, text)
	}
}

func (c client) get(path string) string {
	c.t.Helper()
	status, text := c.do("GET", path, "")
	if status != 200 {
		c.t.Fatalf("GET %s: %d %s", path, status, text)
	}
	return text
}

func bucket(t *testing.T, cloud *devtest.Cloud, id, secret string) *v1.Bucket {
	t.Helper()
	client, err := v1.New(cloud.Endpoint, id, secret)
	must(t, err)
	b, err := client.Bucket(cloud.Bucket)
	must(t, err)
	return b
}

func start(t *testing.T) (*devtest.Cloud, client, *v1.Bucket) {
	t.Helper()
	cloud := devtest.Start(t)
	return cloud, client{t, cloud.MetadataURL}, bucket(t, cloud, cloud.AccessKeyID, cloud.AccessKeySecret)
}

func TestFaults(t *testing.T) {
	cloud, c, b := start(t)
	c.put("faults", `[{"op":"put","prefix":"a/","count":1,"kind":"status","status":500},{"op":"get","kind":"delay","delay":"1ms"}]`)
	if err := b.PutObject("a/k", strings.NewReader("x")); err == nil {
		t.Error("the fault did not fire")
	}
	must(t, b.PutObject("a/k", strings.NewReader("x")))
	var state []oss.FaultState
	must(t, json.Unmarshal([]byte(c.get("/control/faults")), &state))
	if len(state) != 2 || state[0].Fired != 1 || state[1].Fault.Delay != time.Millisecond {
		t.Errorf("faults %+v", state)
	}
	c.remove("faults")
	if n := len(cloud.OSS.Faults()); n != 0 {
		t.Errorf("%d faults after DELETE", n)
	}
	c.put("metadata-faults", `[{"prefix":"/latest","kind":"status","status":503}]`)
	if status, _ := c.do("GET", "/latest/meta-data/instance-id", ""); status != 503 {
		t.Errorf("metadata fault: %d", status)
	}
	c.remove("metadata-faults")
	c.get("/latest/meta-data/instance-id")
}

func TestInstance(t *testing.T) {
	cloud, c, _ := start(t)
	spot := "/latest/meta-data/instance/spot/termination-time"
	c.put("spot-termination", "2026-11-23T17:03:00Z")
	if got := c.get(spot); got != "2026-11-23T17:03:00Z" {
		t.Errorf("termination %q", got)
	}
	c.put("spot-termination", "in 120s")
	at, err := time.Parse(time.RFC3339, c.get(spot))
	if left := time.Until(at); err != nil || left < 60*time.Second || left > 120*time.Second {
		t.Errorf("in %v, %v", left, err)
	}
	c.remove("spot-termination")
	if status, _ := c.do("GET", spot, ""); status != 404 {
		t.Errorf("a notice that was taken back: %d", status)
	}
	c.put("metadata", `{"instance_id":"i-other","role":"worker"}`)
	c.put("metadata", `{"http_tokens":"off"}`)
	if got := cloud.Metadata.Settings(); got.InstanceID != "i-other" || got.Role != "worker" || got.HTTPTokens != "off" {
		t.Errorf("settings %+v", got)
	}
}

func TestKeys(t *testing.T) {
	cloud, c, _ := start(t)
	c.put("keys", `{"add":[{"id":"w","secret":"s","rules":[{"actions":["oss:GetObject"]}]}],"roles":{"worker":[{"actions":["oss:GetObject"]}]}}`)
	if err := bucket(t, cloud, "w", "s").PutObject("k", strings.NewReader("x")); err == nil || !strings.Contains(err.Error(), "AccessDenied") {
		t.Errorf("beyond the rules: %v", err)
	}
	if text := c.get("/control/keys"); !strings.Contains(text, `"id": "w"`) || strings.Contains(text, cloud.AccessKeySecret) {
		t.Errorf("keys %s", text)
	}
	c.put("keys", `{"revoke":["w"]}`)
	if _, ok := cloud.Keys.Lookup("w"); ok {
		t.Error("the key was not revoked")
	}
	c.put("sts", `{"lifetime_seconds":5}`)
	status, text := c.do("POST", "/sts/?Action=AssumeRoleWithOIDC&RoleArn=acs:ram::1:role/worker&OIDCProviderArn=p&OIDCToken=t&RoleSessionName=s&Format=JSON", "")
	if all := cloud.Keys.All(); status != 200 || len(all) != 2 || time.Until(all[1].Expires) > 5*time.Second {
		t.Errorf("%d %s, keys %+v", status, text, all)
	}
}

func TestBucketsAndCounters(t *testing.T) {
	cloud, c, b := start(t)
	must(t, b.PutObject("k", strings.NewReader("x")))
	c.put("versioning", `{"bucket":"`+cloud.Bucket+`","status":"Enabled"}`)
	must(t, b.PutObject("k", strings.NewReader("y"), v1.ForbidOverWrite(true)))
	c.put("worm", `{"bucket":"`+cloud.Bucket+`","enabled":true}`)
	if err := b.DeleteObject("k"); err == nil {
		t.Error("deleted from a locked bucket")
	}
	text := c.get("/control/requests?recent=1")
	for _, part := range []string{`"PutObject"`, `"FileImmutable": 1`, `"metadata"`, `"operation": "DeleteObject"`, `"objects": 1`} {
		if !strings.Contains(text, part) {
			t.Errorf("no %s in %s", part, text)
		}
	}
	c.remove("requests")
	if n := cloud.Requests().Total(); n != 0 {
		t.Errorf("%d requests after the reset", n)
	}
}

// TestMistakes: a wrong request is refused with a reason and changes nothing.
func TestMistakes(t *testing.T) {
	cloud, c, _ := start(t)
	c.put("faults", `[{"kind":"delay","delay":"1ms"}]`)
	for _, v := range []struct{ path, body, reason string }{
		{"faults", `{}`, "JSON"},
		{"faults", `[{"kind":"hang"},{"kind":"hagn"}]`, "hagn"},
		{"faults", `[{"kind":"delay","delay":"5"}]`, "delay"},
		{"faults", `[{"kind":"hang","opp":"put"}]`, "opp"},
		{"faults", `[] []`, "behind"},
		{"spot-termination", "tomorrow", "RFC 3339"},
		{"spot-termination", "in a while", "duration"},
		{"metadata", `{"http_tokens":"maybe"}`, "optional"},
		{"metadata", `{"instanceid":"x"}`, "instanceid"},
		{"metadata-faults", `[{"kind":"x"}]`, "kind"},
		{"keys", `{"add":[{"id":"new","secret":"s"}],"revoke":["nobody"]}`, "nobody"},
		{"keys", `{"add":[{"id":"new"}]}`, "secret"},
		{"versioning", `{"bucket":"no-such-bucket","status":"Enabled"}`, "no such bucket"},
		{"versioning", `{"bucket":"` + cloud.Bucket + `","status":"enabled"}`, "Suspended"},
	} {
		if status, text := c.do("PUT", "/control/"+v.path, v.body); status != 400 || !strings.Contains(text, v.reason) {
			t.Errorf("PUT %s %s: %d %s", v.path, v.body, status, text)
		}
	}
	if len(cloud.OSS.Faults()) != 1 {
		t.Error("a refused request changed the faults")
	}
	if _, ok := cloud.Keys.Lookup("new"); ok {
		t.Error("half of a refused request was done")
	}
	for _, v := range [][2]string{{"GET", "/control/nothing"}, {"POST", "/control/faults"}} {
		if status, _ := c.do(v[0], v[1], ""); status != 404 {
			t.Errorf("%s: %d", v, status)
		}
	}
	if status, _ := c.do("GET", "/control/requests?recent=x", ""); status != 400 {
		t.Errorf("recent=x: %d", status)
	}
}
