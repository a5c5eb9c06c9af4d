//go:build e2e

package mission_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"outrider.dev/e2e/cluster/local"
	"outrider.dev/e2e/devcloud/oss"
	"outrider.dev/e2e/ledger"
	"outrider.dev/e2e/world"
)

// The other region, as manifests/examples/another-region names it.
const (
	farRegion  = "cn-shanghai"
	farDomain  = "oss-cn-shanghai-internal.aliyuncs.com"
	farBucket  = "backups-shanghai"
	farAddress = "10.200.0.3"

	segmentSize = 16 << 20
)

// TestAnotherRegion loses a region: its archive is replicated late and out of order into a bucket of another one. A cluster
// there may not go on with the database before a person says so, then it has the longest beginning that came through whole,
// tells exactly what is missing, and goes on. What comes through later changes nothing.
func TestAnotherRegion(t *testing.T) {
	ours(t, "has names lead to a second region, and gives the cluster another identity")
	far := openRegion(t)                     // it is there longer than the database
	d := setUp(t, "testdata/orders", "shop") // as the other region's manifest says
	d.untilProtected()
	random := rand.New(rand.NewPCG(world.Number(t, "OUTRIDER_SEED", uint64(time.Now().UnixNano())), 0))
	stop := d.load()
	d.exec("SELECT pg_switch_wal()")
	d.until("a segment with many chunks", func(context.Context) error { return d.manyChunks() })
	kill, gone := d.loseRegion()
	stop()
	late := replicate(t, far, d.root, random)
	t.Logf("the region is lost; of the WAL, %v come through late", late)

	identify(t, "another-cluster")
	d.install("testdata/another-region", "oss://"+farBucket+"/prod", "oss://"+farBucket+"/"+d.prefix(),
		"oss-endpoint: ", "oss-endpoint: http://")
	said := d.refused("another Kubernetes cluster", "take-over")
	was := regexp.MustCompile(`set take-over to "([^"]+)"`).FindStringSubmatch(said)
	if was == nil {
		t.Fatalf("the refusal does not say what to set:\n%s", said)
	}
	kubectl(t, "-n", d.namespace, "patch", "statefulset/orders", "-p",
		fmt.Sprintf(`{"spec":{"template":{"metadata":{"annotations":{"outrider.dev/take-over":%q}}}}}`, was[1]))
	began := time.Now()
	kubectl(t, "-n", d.namespace, "delete", "pod", d.pod, "--wait=false", "--ignore-not-found")
	d.up(began, began)
	d.tookOver(late)
	d.note("the region was lost %.1f s before the first write", time.Since(gone).Seconds())

	report := d.compare(d.book, ledger.Options{Kill: kill, RPO: time.Hour})
	if err := report.Err(); err != nil || report.Lost == 0 || report.Present == 0 {
		t.Errorf("the ledger: %v; %d of %d rows are there", err, report.Present, report.Acknowledged)
	}
	if age := report.OldestLostAge; age != nil {
		d.note("%d of %d rows lost, the oldest %.1f s before the region was: as late as the replication", report.Lost, report.Acknowledged, *age)
	}
	found := *d.figures
	d.goesOn(far, late)
	*d.figures = found
}

// manyChunks is nil if the last segment of WAL has many chunks and room for more: what is complete lies there as a whole, and its
// chunks go.
func (d *database) manyChunks() error {
	chunks := chunksOf(d.t, d.root)
	if len(chunks) < 20 {
		return fmt.Errorf("there are %d", len(chunks))
	}
	var end uint64
	_, to, _ := strings.Cut(path.Base(chunks[len(chunks)-1]), "-")
	_, _ = fmt.Sscanf(to, "%x", &end) // as in position
	if at := end % segmentSize; at > segmentSize/2 {
		d.exec("SELECT pg_switch_wal()")
		return fmt.Errorf("the segment is full up to %d", at)
	}
	return nil
}

// tookOver fails the test unless the restore has told exactly what is missing: each chunk that did not come through.
func (d *database) tookOver(late []string) {
	d.t.Helper()
	said := d.restoreLog()
	for _, key := range late {
		from, to := bounds(key)
		if want := fmt.Sprintf("has no WAL from %s to %s", from, to); !strings.Contains(said, want) {
			d.t.Errorf("the restore does not say that it %s:\n%s", want, said)
		}
	}
	if from, _ := bounds(late[0]); !strings.Contains(said, `"end":"`+from+`"`) {
		d.t.Errorf("the restore does not end at %s:\n%s", from, said)
	}
	for line := range strings.Lines(said) {
		if strings.Contains(line, `"missing":"`) {
			d.t.Log(strings.TrimSpace(line))
		}
	}
}

// restoreLog is what the restore said in the pod that is there.
func (d *database) restoreLog() string {
	d.t.Helper()
	return kubectl(d.t, "-n", d.namespace, "logs", d.pod, "-c", "outrider-restore")
}

// goesOn has what was late come through, and the pod deleted: the database goes on from where it was taken over.
func (d *database) goesOn(far *oss.Server, late []string) {
	d.t.Helper()
	d.untilProtected()
	for _, key := range late {
		if err := field.Cloud.OSS.Replicate(local.Bucket, key, far, farBucket); err != nil {
			d.t.Fatal(err)
		}
	}
	d.book = filepath.Join(d.t.TempDir(), "journal")
	there := d.ledger
	defer func() { d.ledger = there }()
	var err error
	if d.ledger, err = ledger.Open(d.book); err != nil {
		d.t.Fatal(err)
	}
	defer d.ledger.Close()
	d.load()()
	first := d.here()
	began := time.Now()
	kubectl(d.t, "-n", d.namespace, "delete", "pod", d.pod, "--wait=false")
	d.back(first, began)
	d.nothingLost()
}

// loseRegion takes the region away at once: its OSS, and the database.
func (d *database) loseRegion() (kill ledger.Instant, at time.Time) {
	d.t.Helper()
	kill, at = d.mark(), time.Now()
	setFaults(d.t, oss.Fault{Bucket: local.Bucket, Kind: oss.ResetBefore})
	kubectl(d.t, "-n", d.namespace, "delete", "statefulset/orders", "--cascade=orphan")
	kubectl(d.t, "-n", d.namespace, "delete", "pod", d.pod, "--grace-period=0", "--force")
	kubectl(d.t, "delete", "namespace", d.namespace, "--wait=true", "--timeout=180s")
	return kill, at
}

// openRegion opens the other region's OSS.
func openRegion(t *testing.T) *oss.Server {
	t.Helper()
	if out, err := exec.Command("ip", "addr", "replace", farAddress+"/14", "dev", "outrider0").CombinedOutput(); err != nil {
		t.Fatalf("an address for the other region: %v: %s", err, out)
	}
	far, err := oss.New(oss.Config{
		Dir: t.TempDir(), Region: farRegion, Domain: farDomain, Keys: field.Cloud.Keys, Buckets: []string{farBucket}, NoSync: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp4", net.JoinHostPort(farAddress, "80"))
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: far, ReadHeaderTimeout: time.Minute}
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	after(t, func() {
		_ = server.Close()
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
		if err := far.Close(); err != nil {
			t.Error(err)
		}
	})
	field.Names.Set("*."+farDomain, netip.MustParseAddr(farAddress))
	return far
}

// replicate copies all objects in disorder, but for two of the last chunks of WAL, which it returns in their order.
func replicate(t *testing.T, far *oss.Server, root string, random *rand.Rand) (late []string) {
	t.Helper()
	objects, err := field.Cloud.OSS.Objects(local.Bucket, root+"/")
	if err != nil {
		t.Fatal(err)
	}
	var keys []string
	for _, o := range objects {
		keys = append(keys, o.Key)
	}
	chunks := chunksOf(t, root)
	if len(chunks) < 20 {
		t.Fatalf("the segment has been completed before the region was lost: of the next one there are %d chunks", len(chunks))
	}
	late = []string{chunks[len(chunks)-6], chunks[len(chunks)-3]}
	random.Shuffle(len(keys), func(i, j int) { keys[i], keys[j] = keys[j], keys[i] })
	for _, key := range keys {
		if slices.Contains(late, key) {
			continue
		}
		if err := field.Cloud.OSS.Replicate(local.Bucket, key, far, farBucket); err != nil {
			t.Fatal(err)
		}
	}
	return late
}

// chunksOf are the keys of the chunks of the last segment of WAL, in their order.
func chunksOf(t *testing.T, root string) []string {
	t.Helper()
	objects, err := field.Cloud.OSS.Objects(local.Bucket, root+"/outrider/tail/")
	if err != nil {
		t.Fatal(err)
	}
	var keys []string
	for _, o := range objects {
		if len(keys) > 0 && path.Dir(keys[0]) != path.Dir(o.Key) {
			keys = nil
		}
		keys = append(keys, o.Key)
	}
	return keys
}

// bounds are the positions in the name of a chunk, as people write them.
func bounds(key string) (from, to string) {
	from, to, _ = strings.Cut(strings.TrimSuffix(key[strings.LastIndex(key, "/")+1:], ".zst"), "-")
	return position(from), position(to)
}

func position(hex string) string {
	var n uint64
	_, _ = fmt.Sscanf(hex, "%x", &n) // a wrong one is found nowhere
	return fmt.Sprintf("%X/%X", n>>32, uint32(n))
}

// identify gives the cluster another id until the test ends.
func identify(t *testing.T, id string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "config.yaml")
	configure := func(ctx context.Context, content string) error {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			return err
		}
		manifest, err := field.Kubectl(ctx, "-n", "outrider-system", "create", "configmap", "outrider-webhook", "--from-file", file, "--dry-run=client", "-o", "yaml").Output()
		if err != nil {
			return err
		}
		replace := field.Kubectl(ctx, "replace", "-f", "-")
		replace.Stdin = strings.NewReader(string(manifest))
		if out, err := replace.CombinedOutput(); err != nil {
			return fmt.Errorf("replacing the configuration: %w: %s", err, out)
		}
		for _, args := range [][]string{{"restart"}, {"status", "--timeout=120s"}} {
			args = append([]string{"-n", "outrider-system", "rollout", args[0], "deployment/outrider-webhook"}, args[1:]...)
			if out, err := field.Kubectl(ctx, args...).CombinedOutput(); err != nil {
				return fmt.Errorf("kubectl %v: %w: %s", args, err, out)
			}
		}
		return nil
	}
	content, err := os.ReadFile("testdata/install/config.yaml")
	if err != nil {
		t.Fatal(err)
	}
	after(t, func() {
		ctx, cancel := context.WithTimeout(context.Background(), long)
		defer cancel()
		if err := configure(ctx, string(content)); err != nil {
			t.Error(err)
		}
	})
	if err := configure(t.Context(), string(content)+"kubernetesCluster: "+id+"\n"); err != nil {
		t.Fatal(err)
	}
}
