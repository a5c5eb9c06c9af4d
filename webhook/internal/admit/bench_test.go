package admit

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"outrider.dev/webhook/internal/inject"
)

// discard is a ResponseWriter that keeps nothing.
type discard struct{ header http.Header }

func (d discard) Header() http.Header         { return d.header }
func (d discard) Write(b []byte) (int, error) { return len(b), nil }
func (d discard) WriteHeader(int)             {}

// BenchmarkAdmission is the server's side of an admission, from the bytes of the request to those of the answer, without
// network and TLS. The p99 is what the design bounds by 5 ms.
func BenchmarkAdmission(b *testing.B) {
	for _, name := range []string{"plain", "crowded"} {
		pod := benchPod(name)
		b.Run(name, func(b *testing.B) {
			handler := New(Config{
				Namespaces: known{"shop": {"outrider.dev/archive": "oss://backups/prod", "outrider.dev/oss-endpoint": "oss-cn-hangzhou.aliyuncs.com"}},
				Input: func(ns string, a map[string]string) inject.Input {
					in := input(ns, a)
					in.Evacuation = inject.Evacuation{URL: "https://outrider-webhook.outrider-system.svc/v1/evacuations", CA: strings.Repeat("x", 2400)}
					return in
				},
				Log: slog.New(slog.NewJSONHandler(discard{}, nil)),
			}).Pods()
			body := string(review(b, "pods", "CREATE", "shop", pod, ""))
			took := make([]time.Duration, 0, b.N)
			b.ReportAllocs()
			for b.Loop() {
				req := httptest.NewRequestWithContext(b.Context(), http.MethodPost, "/mutate-pod", strings.NewReader(body))
				req.Header.Set("Content-Type", "application/json")
				begin := time.Now()
				handler.ServeHTTP(discard{http.Header{}}, req)
				took = append(took, time.Since(begin))
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
			b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
		})
	}
}

// benchPod is a StatefulSet's pod: as plain as people have it, or with ten neighbours that each have much in them.
func benchPod(name string) string {
	pod := `
metadata:
  name: orders-0
  generateName: orders-
  labels: {app: orders, statefulset.kubernetes.io/pod-name: orders-0}
  ownerReferences: [{apiVersion: apps/v1, kind: StatefulSet, name: orders, uid: u, controller: true}]
spec:
  volumes: [{name: data, persistentVolumeClaim: {claimName: data-orders-0}}]
  containers:
  - {name: postgres, image: "postgres:16", volumeMounts: [{name: data, mountPath: /var/lib/postgresql/data}]}
`
	if name == "plain" {
		return pod
	}
	var b strings.Builder
	b.WriteString(pod)
	for i := range 10 {
		fmt.Fprintf(&b, "  - name: neighbour-%d\n    image: \"registry.example.com/neighbour:%d\"\n    env:\n", i, i)
		for j := range 40 {
			fmt.Fprintf(&b, "    - {name: VARIABLE_%d, valueFrom: {secretKeyRef: {name: secret-%d, key: key-%d}}}\n", j, i, j)
		}
		b.WriteString("    volumeMounts:\n")
		for j := range 10 {
			fmt.Fprintf(&b, "    - {name: data, mountPath: /mnt/%d, subPath: dir-%d}\n", j, j)
		}
	}
	return b.String()
}
