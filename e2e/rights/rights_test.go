package rights

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"outrider.dev/e2e/devcloud/keys"
	"outrider.dev/e2e/stage"
	"outrider.dev/e2e/world"
)

var programs *world.Programs

func TestMain(m *testing.M) {
	os.Exit(world.Run(m, func(p *world.Programs) { programs = p }))
}

// roles are the policies, each as an access key of the same name.
var roles = []string{"writer", "reader", "drill", "janitor"}

// A whole life with the rights of the documents, each of which is enough for its part, and for nothing more.
func TestRightsAreEnoughAndNoMore(t *testing.T) {
	w := world.NewPlain(t, programs, 1)
	w.Root = "oss://" + stage.Bucket + "/prod/shop/orders-0"
	hire(w)
	everything := w.Cloud
	as := func(role string) *stage.Cloud {
		return everything.With("OSS_ACCESS_KEY_ID="+role, "OSS_ACCESS_KEY_SECRET=s")
	}

	// The writer claims, ships, takes snapshots, gives one up, seals, stops, and restores what it wrote. A drill proves it.
	w.Cloud = as("writer")
	p := w.Database("first")
	o := w.Protect(p)
	stop := w.Load(p)
	env := p.Env()
	// Noise does not compress: its parts are large enough for an upload in several pieces.
	world.Must(t, p.Exec(w.Deadline(world.Long), "create table noise as select md5(random()::text) || md5(random()::text) from generate_series(1, 350000)"))
	w.Faults(`{"op":"complete","kind":"status","status":403,"code":"UserDisable"}`)
	if out, err := do(w, "writer", env, "backup", "--full", "--pgdata", p.Data); err == nil {
		t.Errorf("the snapshot went through: %s", out)
	}
	w.Faults()
	if out, err := do(w, "writer", env, "backup", "--full", "--pgdata", p.Data); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	stop()
	w.StopServer(p, syscall.SIGINT)
	w.Finish(o)
	p = w.Restore("second")
	w.NothingLost(p)
	w.StopServer(p, syscall.SIGINT)
	if out, err := do(w, "drill", nil, "drill", "--dir", w.Stage.Dir, "--bindir", w.Stage.BinDir()); err != nil {
		t.Errorf("drill: %v: %s", err, out)
	}

	// The reader looks, and restores elsewhere.
	w.Cloud = as("reader")
	for _, verb := range []string{"list", "verify", "why"} {
		if out, err := do(w, "reader", nil, verb); err != nil {
			t.Errorf("%s: %v: %s", verb, err, out)
		}
	}
	w.NothingLost(w.Restore("third"))
	log := requests(w)
	if log["writer"]["AbortMultipartUpload ok"] == 0 {
		t.Error("no upload was given up")
	}
	// With every snapshot the sidecar tries to apply the retention, which is the janitor's, and says so.
	delete(log["writer"], "DeleteMultipleObjects AccessDenied")
	noneRefused(t, log)
	if log["writer"]["DeleteMultipleObjects ok"] == 0 || strings.Contains(journal(w), "/outrider/tail/") {
		t.Error("the writer could not delete its chunks")
	}

	// The writer cannot delete what the janitor may, even if it has every reason to.
	w.Faults(`{"op":"*","kind":"clock_skew","skew":"3h"}`)
	expire := []string{"expire", "--retention", "1h", "--min-backups", "1"}
	before := objects(w, everything)
	if out, err := do(w, "writer", nil, expire...); err == nil || !strings.Contains(out+err.Error(), "oss:DeleteObject") {
		t.Errorf("the writer expires: %v: %s", err, out)
	}
	left := objects(w, everything)
	for key := range before {
		if _, there := left[key]; !there && !strings.HasPrefix(key, "outrider/tail/") {
			t.Errorf("the writer has deleted %s", key)
		}
	}
	w.Control(http.MethodDelete, "requests", "")
	if out, err := do(w, "janitor", nil, expire...); err != nil {
		t.Errorf("the janitor does not expire: %v: %s", err, out)
	}
	noneRefused(t, requests(w))
	if after := objects(w, everything); len(after) >= len(before) {
		t.Errorf("the janitor left %d of %d objects", len(after), len(before))
	}
	w.Faults()

	// Nobody writes, or lists, in another's place.
	for _, role := range roles {
		for _, root := range []string{"oss://" + stage.Bucket + "/other/shop/orders-0", "oss://" + stage.Bucket + "/production/x"} {
			cmd := w.Stage.Outrider(as(role), root, "list")
			if out, err := stage.Run(w.Deadline(world.Long), cmd); err == nil {
				t.Errorf("%s lists %s: %s", role, root, out)
			}
		}
	}
}

// hire makes the access keys.
func hire(w *world.World) {
	w.T.Helper()
	var body struct {
		Add []keys.Key `json:"add"`
	}
	for _, role := range roles {
		body.Add = append(body.Add, keys.Key{ID: role, Secret: "s", Rules: readPolicy(w.T, role+".json").rules(w.T)})
	}
	text, err := json.Marshal(body)
	world.Must(w.T, err)
	w.Control(http.MethodPut, "keys", string(text))
}

// do runs outrider with a role's key.
func do(w *world.World, role string, env []string, args ...string) (string, error) {
	w.T.Helper()
	cmd := w.Stage.Outrider(w.Cloud.With("OSS_ACCESS_KEY_ID="+role, "OSS_ACCESS_KEY_SECRET=s"), w.Root, args...)
	cmd.Env = append(cmd.Env, env...)
	return stage.Run(w.Deadline(world.Long), cmd)
}

// requests counts, from the log of the stand-in cloud, what each key asked for and how that ended.
func requests(w *world.World) map[string]map[string]int {
	w.T.Helper()
	raw, err := w.Cloud.Control(w.Deadline(world.Long), http.MethodGet, "requests?recent=0", "")
	world.Must(w.T, err)
	var log struct {
		Recent []struct {
			Operation, Result string
			AccessKeyID       string `json:"access_key_id"`
		}
	}
	world.Must(w.T, json.Unmarshal(raw, &log))
	found := map[string]map[string]int{}
	for _, r := range log.Recent {
		if found[r.AccessKeyID] == nil {
			found[r.AccessKeyID] = map[string]int{}
		}
		found[r.AccessKeyID][r.Operation+" "+r.Result]++
	}
	return found
}

func noneRefused(t *testing.T, log map[string]map[string]int) {
	t.Helper()
	n := 0
	for role, results := range log {
		for what := range results {
			if n++; strings.HasSuffix(what, " AccessDenied") {
				t.Errorf("%s: %s", role, what)
			}
		}
	}
	if n == 0 {
		t.Error("nothing was asked for")
	}
}

// journal is what all programs have logged about missing rights.
func journal(w *world.World) string {
	w.T.Helper()
	paths, err := filepath.Glob(filepath.Join(w.Stage.Dir, "*-outrider-*.log"))
	world.Must(w.T, err)
	var lines []string
	for _, path := range paths {
		b, err := os.ReadFile(path)
		world.Must(w.T, err)
		for line := range strings.Lines(string(b)) {
			if strings.Contains(line, "oss:DeleteObject") {
				lines = append(lines, line)
			}
		}
	}
	if len(lines) == 0 {
		w.T.Error("the sidecar does not say that it may not apply the retention")
	}
	return strings.Join(lines, "")
}

func objects(w *world.World, c *stage.Cloud) map[string]string {
	w.T.Helper()
	all, err := c.Objects(w.Deadline(world.Long), w.Root)
	world.Must(w.T, err)
	return all
}
