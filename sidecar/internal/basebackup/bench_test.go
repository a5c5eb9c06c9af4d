package basebackup

import (
	"context"
	"fmt"
	"hash/crc64"
	"io"
	"log/slog"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"outrider.dev/e2e/pgtest"
	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/archive/archivetest"
)

// BenchmarkTake copies a database of pgbench's shape with page checksums. The archive keeps nothing, so what is
// measured is reading, verifying, compressing and the server's part of it.
func BenchmarkTake(b *testing.B) {
	s := pgtest.Start(b, pgtest.Options{InitdbArgs: []string{"-k"}, Settings: map[string]string{"fsync": "off", "max_wal_size": "4GB"}})
	s.Exec(`CREATE TABLE accounts AS SELECT i AS aid, i % 100 AS bid, (random() * 10000)::int AS abalance, md5(i::text) || repeat(' ', 52) AS filler
		FROM generate_series(1, 3000000) i`, `CREATE INDEX ON accounts (aid)`, `VACUUM ANALYZE accounts`, `CHECKPOINT`)
	for name, workers := range map[string]int{"workers=1": 1, "workers=2": 2} {
		b.Run(name, func(b *testing.B) {
			cfg := Config{
				PGDATA: s.DataDir, Server: server{s}, WAL: &durable{}, Workers: workers,
				Archive: newAbyss(), Log: slog.New(slog.DiscardHandler),
			}
			var raw, stored int64
			before, began := cpu(), time.Now()
			for b.Loop() {
				m, err := New(cfg).Take(context.Background())
				if err != nil {
					b.Fatal(err)
				}
				raw += m.RawSize
				stored += m.StoredSize
			}
			b.ReportMetric(float64(raw)/(1<<20)/time.Since(began).Seconds(), "MiB/s")
			b.ReportMetric((cpu()-before).Seconds()/(float64(raw)/(1<<30)), "cpu-s/GiB")
			b.ReportMetric(float64(raw)/float64(stored), "ratio")
		})
	}
}

// BenchmarkDelta copies what 1 % of changed rows leave behind, in a table of one piece and in one of many pieces of which
// one is written to. The full snapshot of the same database is beside it.
func BenchmarkDelta(b *testing.B) {
	for name, tables := range map[string]int{"pieces=1": 1, "pieces=20": 20} {
		s := pgtest.Start(b, pgtest.Options{InitdbArgs: []string{"-k"}, Settings: map[string]string{
			"fsync": "off", "max_wal_size": "4GB", "autovacuum": "off",
		}})
		const rows = 3_000_000
		for i := range tables {
			s.Exec(fmt.Sprintf(`CREATE TABLE accounts%d AS SELECT i AS aid, i %% 100 AS bid, (random() * 10000)::int AS abalance, md5(i::text) || repeat(' ', 52) AS filler
				FROM generate_series(1, %d) i`, i, rows/tables), fmt.Sprintf("CREATE INDEX ON accounts%d (aid)", i))
		}
		s.Exec("VACUUM ANALYZE", "CHECKPOINT")
		time.Sleep(settleMargin + 500*time.Millisecond) // nothing is timed here: files come to rest
		store := newAbyss()
		cfg := Config{PGDATA: s.DataDir, Server: server{s}, WAL: &durable{}, Archive: store, Lists: store, Log: slog.New(slog.DiscardHandler)}
		take := func(known []archive.Backup) archive.Backup {
			cfg.Known = known
			m, err := New(cfg).Take(context.Background())
			if err != nil {
				b.Fatal(err)
			}
			k, err := store.Backup(context.Background(), m.Name)
			if err != nil {
				b.Fatal(err)
			}
			return k
		}
		full := take(nil)
		s.Exec(fmt.Sprintf("UPDATE accounts0 SET abalance = abalance + 1 WHERE aid BETWEEN %d AND %d", rows/tables/2, rows/tables/2+rows/100), "CHECKPOINT")
		time.Sleep(settleMargin + 500*time.Millisecond)
		for kind, known := range map[string][]archive.Backup{"full": nil, "delta": {full}} {
			b.Run(name+"/"+kind, func(b *testing.B) {
				before := cpu()
				var last archive.Backup
				for b.Loop() {
					last = take(known)
				}
				if last.Delta() != (known != nil) {
					b.Fatalf("%s is of the wrong kind", last.Name)
				}
				b.ReportMetric((cpu()-before).Seconds()/float64(b.N), "cpu-s/op")
				b.ReportMetric(float64(last.Manifest.StoredSize)/(1<<20), "stored-MiB")
				b.ReportMetric(float64(last.Manifest.RawSize)/(1<<20), "raw-MiB")
			})
		}
	}
}

// abyss keeps of what is uploaded the sizes alone, with the checksum that a store asks for.
type abyss struct {
	*archive.Archive
	mu    sync.Mutex
	parts map[string][]archive.Part
}

func newAbyss() *abyss {
	return &abyss{Archive: archive.New(sink{archivetest.Memory()}), parts: map[string][]archive.Part{}}
}

func (a *abyss) UploadPart(ctx context.Context, backup, name string, raw io.Reader) (archive.Part, error) {
	p, err := a.Archive.UploadPart(ctx, backup, name, raw)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.parts[backup] = append(a.parts[backup], p)
	return p, err
}

func (a *abyss) Parts(_ context.Context, backup string) ([]archive.Part, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.parts[backup], nil
}

type sink struct{ *archivetest.Bucket }

func (s sink) Upload(ctx context.Context, key string, body io.Reader, o archive.PutOptions) (archive.ObjectInfo, error) {
	if !strings.Contains(key, "/tar_partitions/") {
		return s.Bucket.Upload(ctx, key, body, o)
	}
	sum := crc64.New(crc64.MakeTable(crc64.ECMA))
	n, err := io.CopyBuffer(sum, struct{ io.Reader }{body}, make([]byte, 1<<20))
	return archive.ObjectInfo{Size: n, CRC64: sum.Sum64()}, err
}

// cpu is what this process has used, the server not included.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
