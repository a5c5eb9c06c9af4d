package archive_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/archive/archivetest"
	"outrider.dev/sidecar/internal/wal"
)

// What WAL-G 3.0.9 wrote for a backup of a server with a tablespace, and for a delta on it.
const (
	walgSentinel = `{"LSN":184549416,"PgVersion":150020,"FinishLSN":184549632,"SystemIdentifier":7711211053247943853,
"UncompressedSize":183533213,"CompressedSize":10670044,"DataCatalogSize":183660087,
"Spec":{"base_prefix":"/srv/pg/d1","tablespaces":["16384"],"16384":{"loc":"/srv/pg/ts1","link":"pg_tblspc/16384"}},
"Version":2,"StartTime":"2026-11-23T03:57:39.699644Z","FinishTime":"2026-11-23T03:57:41.655301Z",
"DateFmt":"%Y-%m-%dT%H:%M:%S.%fZ","Hostname":"vm","DataDir":"/srv/pg/d1","IsPermanent":false}`
	walgDelta = `{"LSN":201326632,"PgVersion":150020,"FinishLSN":201326848,"SystemIdentifier":18446744073709551615,
"UncompressedSize":1,"CompressedSize":2,"DeltaLSN":184549416,"DeltaFrom":"base_00000001000000000000000B",
"DeltaFullName":"base_00000001000000000000000B","DeltaCount":1,
"Version":2,"StartTime":"2026-11-23T03:58:39Z","FinishTime":"2026-11-23T03:58:41Z",
"DateFmt":"%Y-%m-%dT%H:%M:%S.%fZ","Hostname":"vm","DataDir":"/srv/pg/d1","IsPermanent":true}`
	walgMetadata = `{"start_time":"2026-11-23T03:57:39.699644Z","finish_time":"2026-11-23T03:57:41.655301Z","date_fmt":"%Y-%m-%dT%H:%M:%S.%fZ",
"hostname":"vm","data_dir":"/srv/pg/d1","pg_version":150020,"start_lsn":184549416,"finish_lsn":184549632,
"is_permanent":false,"system_identifier":7711211053247943853,"uncompressed_size":183533213,"compressed_size":10670044}`
)

// literal decodes JSON so that numbers stay as they are written.
func literal(t *testing.T, text string) map[string]any {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	var m map[string]any
	if err := d.Decode(&m); err != nil {
		t.Fatal(err)
	}
	return m
}

func TestWALGDocumentsComeBackAsTheyWere(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		doc  any
	}{
		"sentinel": {walgSentinel, &archive.Sentinel{}}, "delta": {walgDelta, &archive.Sentinel{}}, "metadata": {walgMetadata, &archive.Metadata{}},
	} {
		if err := json.Unmarshal([]byte(c.text), c.doc); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		back, err := json.Marshal(c.doc)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if diff := cmp.Diff(literal(t, c.text), literal(t, string(back))); diff != "" {
			t.Errorf("%s (-WAL-G's +ours):\n%s", name, diff)
		}
	}
}

func TestOldAndHandMadeSentinels(t *testing.T) {
	bucket := archivetest.Memory()
	a := archive.New(bucket)
	name := "base_00000001000000000000000B"
	for text, want := range map[string]archive.Sentinel{
		`{}`:                                 {},
		`{"LSN":null,"FinishLSN":null}`:      {},
		`{"FilesMetadataDisabled":true}`:     {FilesMetadataDisabled: true},
		`{"unknown":{"x":1},"PgVersion":14}`: {PgVersion: 14},
		`{"spec":null,"Files":{}}`:           {},
	} {
		bucket.SetBytes("basebackups_005/"+name+"_backup_stop_sentinel.json", []byte(text))
		b, err := a.Backup(t.Context(), name)
		if err != nil {
			t.Errorf("%s: %v", text, err)
		}
		if diff := cmp.Diff(want, b.Sentinel); diff != "" {
			t.Errorf("%s (-want +got):\n%s", text, diff)
		}
		if b.Start() != 0 || b.Stop() != 0 || b.Delta() || b.Timeline() != 1 || b.Manifest != nil {
			t.Errorf("%s: %+v", text, b)
		}
	}
	for _, text := range []string{``, `[]`, `{"LSN":"0/B000028"}`, `{"LSN":-1}`, `{"LSN":1`, `{"Spec":{"tablespaces":["x"]}}`, `{"Spec":{"tablespaces":["1"]}}`} {
		bucket.SetBytes("basebackups_005/"+name+"_backup_stop_sentinel.json", []byte(text))
		if _, err := a.Backup(t.Context(), name); !errors.Is(err, archive.ErrCorrupt) || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%q: %v, want %v", text, err, archive.ErrCorrupt)
		}
	}
}

func TestBackups(t *testing.T) {
	bucket := archivetest.Memory()
	a := archive.New(bucket)
	names := []string{
		"base_000000020000000000000005", "base_00000001000000000000000C", "base_00000001000000000000000D_D_00000001000000000000000C",
		"base_0000000100000001000000FF",
	}
	for _, name := range names {
		if err := a.CommitBackup(t.Context(), archive.Manifest{Name: name, SystemIdentifier: 1 << 63}, archive.Metadata{}, archive.Sentinel{}); err != nil {
			t.Fatal(err)
		}
	}
	// None of these is a snapshot.
	for _, key := range []string{
		"base_00000001000000000000000E/tar_partitions/part_001.tar.zst", "base_00000001000000000000000F/outrider.json", "sentinel.json",
		"base_00000001000000000000000a_backup_stop_sentinel.json", "base_0000000100000000000000AA_00000028_backup_stop_sentinel.json",
	} {
		bucket.SetBytes("basebackups_005/"+key, []byte("{}"))
	}
	all, err := a.Backups(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, b := range all {
		got = append(got, b.Name)
		if b.Manifest == nil || b.Manifest.SystemIdentifier != 1<<63 || b.ModTime.IsZero() {
			t.Errorf("%s: manifest %+v, time %v", b.Name, b.Manifest, b.ModTime)
		}
	}
	if diff := cmp.Diff([]string{names[1], names[2], names[3], names[0]}, got); diff != "" {
		t.Errorf("by timeline and start, whatever was written last (-want +got):\n%s", diff)
	}
	if _, err := a.Backup(t.Context(), "../x"); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a name that is none: %v", err)
	}
	if _, err := a.Backup(t.Context(), "base_00000001000000000000000F"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a snapshot that was not finished: %v, want %v", err, fs.ErrNotExist)
	}
	// A sentinel or manifest that could not be read is not a snapshot that is not there.
	for _, key := range []string{"_backup_stop_sentinel.json", "/outrider.json"} {
		outage(bucket, "open", key)
		if _, err := a.Backups(t.Context()); !errors.Is(err, errOutage) {
			t.Errorf("%s cannot be read: %v, want %v", key, err, errOutage)
		}
	}
}

var errOutage = errors.New("outage")

// outage makes an operation fail on keys that end in suffix.
func outage(b *archivetest.Bucket, operation, suffix string) {
	b.Fault(func(op, key string) error {
		if op == operation && strings.HasSuffix(key, suffix) {
			return errOutage
		}
		return nil
	})
}

func TestOurDocumentsComeBack(t *testing.T) {
	a := archive.New(archivetest.Memory())
	ctx, at := t.Context(), time.Date(2026, 11, 23, 4, 5, 6, 789_123_456, time.FixedZone("x", 3600))
	stored := at.UTC().Truncate(time.Microsecond)
	e := archive.Epoch{Number: 3, Writer: archive.Identity{Instance: "i", Pod: "p"}, ClaimedAt: at, Timeline: 2, Since: 0xFFFFFFFFFFFFFFFE}
	if err := a.ClaimEpoch(ctx, e); err != nil {
		t.Fatal(err)
	}
	e.Format, e.ClaimedAt = archive.Format, stored
	got, err := a.Epoch(ctx, 3)
	if all, lerr := a.Epochs(ctx); lerr != nil || len(all) != 1 || all[0] != got || time.Since(got.ModTime).Abs() > time.Minute {
		t.Errorf("epochs %+v, %v", all, lerr)
	}
	got.ModTime = time.Time{} // is the store's
	if err != nil || !cmp.Equal(got, e) {
		t.Errorf("epoch %+v, %v", got, err)
	}
	c := archive.Cluster{SystemIdentifier: 1<<64 - 1, SegmentSize: mib, CreatedAt: at}
	if err := a.ClaimCluster(ctx, c); err != nil {
		t.Fatal(err)
	}
	c.Format, c.CreatedAt = archive.Format, stored
	if got, err := a.Cluster(ctx); err != nil || !cmp.Equal(got, c) {
		t.Errorf("cluster %+v, %v", got, err)
	}
	r := archive.Receipt{Epoch: 3, Clean: true, Reason: "x", Durable: 1 << 63, FinishedAt: at}
	for _, clean := range []bool{false, true} {
		r.Clean = clean
		if err := a.PutReceipt(ctx, r); err != nil {
			t.Fatal(err)
		}
	}
	r.Format, r.FinishedAt = archive.Format, stored
	if got, err := a.Receipt(ctx, 3); err != nil || !cmp.Equal(got, r) {
		t.Errorf("receipt %+v, %v", got, err)
	}
	if err := a.Beat(ctx, archive.Heartbeat{Epoch: 3, Durable: 5, Interval: 1.5}); err != nil {
		t.Fatal(err)
	}
	h, info, err := a.Heartbeat(ctx, 3)
	if err != nil || h.Durable != 5 || h.Interval != 1.5 || info.SeenAt.IsZero() || info.LastModified.IsZero() {
		t.Errorf("heartbeat %+v, %+v, %v", h, info, err)
	}
	for _, missing := range []func() error{
		func() error { _, err := a.Epoch(ctx, 4); return err },
		func() error { _, err := a.Receipt(ctx, 4); return err },
		func() error { _, _, err := a.Heartbeat(ctx, 4); return err },
		func() error { _, err := archive.New(archivetest.Memory()).Cluster(ctx); return err },
	} {
		if err := missing(); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%v, want %v", err, fs.ErrNotExist)
		}
	}
}

func TestJournal(t *testing.T) {
	a := archive.New(archivetest.Memory())
	base := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, ms := range []int{5, 1, 900, 3000} {
		e := archive.Entry{Epoch: 7, Time: base.Add(time.Duration(ms) * time.Millisecond), Event: "notice", Attrs: map[string]any{"ms": ms}}
		if err := a.Record(t.Context(), e); err != nil {
			t.Fatal(err)
		}
		if err := a.Record(t.Context(), e); err != nil {
			t.Errorf("the same entry again: %v", err)
		}
	}
	if err := a.Record(t.Context(), archive.Entry{Epoch: 70, Time: base, Event: "other"}); err != nil {
		t.Fatal(err)
	}
	entries, err := a.Journal(t.Context(), 7)
	if err != nil {
		t.Fatal(err)
	}
	var got []float64
	for _, e := range entries {
		got = append(got, e.Attrs["ms"].(float64))
	}
	if diff := cmp.Diff([]float64{1, 5, 900, 3000}, got); diff != "" {
		t.Errorf("in the order in which it happened (-want +got):\n%s", diff)
	}
}

// Of a journal the keys alone tell what there is to choose from.
func TestJournalIsChosenFrom(t *testing.T) {
	bucket := archivetest.Memory()
	a := archive.New(bucket)
	base := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for i, event := range []string{"shipping", "snapshot_taken", "notice"} {
		if err := a.Record(t.Context(), archive.Entry{Epoch: 7, Time: base.Add(time.Duration(i) * time.Hour), Event: event, Attrs: map[string]any{"n": i}}); err != nil {
			t.Fatal(err)
		}
	}
	for _, odd := range []string{"x.json", "readme.txt"} {
		if err := bucket.Put(t.Context(), "outrider/journal/0000000007/"+odd, []byte("x"), archive.PutOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	list, err := a.JournalIndex(t.Context(), 7)
	if err != nil {
		t.Fatal(err)
	}
	var events []string
	for _, n := range list {
		events = append(events, n.Event)
	}
	if diff := cmp.Diff([]string{"shipping", "snapshot_taken", "notice", ""}, events); diff != "" {
		t.Fatalf("the index (-want +got):\n%s", diff)
	}
	entries, err := a.JournalEntries(t.Context(), []archive.Noted{list[2], list[0]})
	if err != nil || len(entries) != 2 || entries[0].Event != "notice" || entries[1].Attrs["n"] != 0.0 {
		t.Errorf("the chosen entries are %+v, %v", entries, err)
	}
	if none, err := a.JournalIndex(t.Context(), 8); err != nil || len(none) != 0 {
		t.Errorf("the journal of an epoch without one: %v, %v", none, err)
	}
}

func TestDocumentsThatCannotBeReadAreNotMissing(t *testing.T) {
	bucket := archivetest.Memory()
	a := archive.New(bucket)
	read := map[string]func(context.Context) error{
		"outrider/cluster.json":              func(ctx context.Context) error { _, err := a.Cluster(ctx); return err },
		"outrider/epochs/0000000001.json":    func(ctx context.Context) error { _, err := a.Epochs(ctx); return err },
		"outrider/timelines/0000000001.json": func(ctx context.Context) error { _, err := a.Timelines(ctx); return err },
		"outrider/receipts/0000000001.json":  func(ctx context.Context) error { _, err := a.Receipt(ctx, 1); return err },
		"outrider/journal/0000000001/x.json": func(ctx context.Context) error { _, err := a.Journal(ctx, 1); return err },
	}
	for key, f := range read {
		for _, body := range []string{"", "{", "null x", `{"epoch":"x","time":5,"system_identifier":1}`, "<html>"} {
			bucket.SetBytes(key, []byte(body))
			if err := f(t.Context()); !errors.Is(err, archive.ErrCorrupt) || errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s is %q: %v, want %v", key, body, err, archive.ErrCorrupt)
			}
		}
		bucket.SetBytes(key, []byte(`{"format":2}`))
		if err := f(t.Context()); err == nil || errors.Is(err, archive.ErrCorrupt) || !strings.Contains(err.Error(), "newer outrider") {
			t.Errorf("%s of a later format: %v, want one that says so", key, err)
		}
	}
	bucket.SetBytes("outrider/cluster.json", bytes.Repeat([]byte(" "), 64<<20+1))
	if _, err := a.Cluster(t.Context()); !errors.Is(err, archive.ErrCorrupt) {
		t.Errorf("a document without end: %v, want %v", err, archive.ErrCorrupt)
	}
	// A document under another's name would make a writer of one epoch the owner of another.
	bucket.SetBytes("outrider/epochs/0000000001.json", []byte(`{"format":1,"epoch":2}`))
	if _, err := a.Epochs(t.Context()); !errors.Is(err, archive.ErrCorrupt) {
		t.Errorf("epoch 2 in the place of 1: %v, want %v", err, archive.ErrCorrupt)
	}
	bucket.SetBytes("outrider/timelines/0000000001.json", []byte(`{"format":1,"timeline":3}`))
	if _, err := a.Timelines(t.Context()); !errors.Is(err, archive.ErrCorrupt) {
		t.Errorf("timeline 3 in the place of 1: %v, want %v", err, archive.ErrCorrupt)
	}
}

func TestEmpty(t *testing.T) {
	bucket := archivetest.Memory()
	a := archive.New(bucket)
	if empty, err := a.Empty(t.Context()); !empty || err != nil {
		t.Errorf("nothing there: %v, %v", empty, err)
	}
	bucket.SetBytes(archive.ProbeKey, []byte("x"))
	if empty, err := a.Empty(t.Context()); !empty || err != nil {
		t.Errorf("only the probe there: %v, %v", empty, err)
	}
	bucket.SetBytes("outrider/receipts/0000000001.json", []byte("{}"))
	if empty, err := a.Empty(t.Context()); empty || err != nil {
		t.Errorf("a receipt there: %v, %v", empty, err)
	}
	bucket.Fault(func(string, string) error { return errOutage })
	if empty, err := a.Empty(t.Context()); empty || !errors.Is(err, errOutage) {
		t.Errorf("could not tell: %v, %v; want %v", empty, err, errOutage)
	}
}

func TestEpochAfter(t *testing.T) {
	bucket := archivetest.Memory()
	a := archive.New(bucket)
	for _, n := range []uint64{1, 2, 10} {
		if err := a.ClaimEpoch(t.Context(), archive.Epoch{Number: n}); err != nil {
			t.Fatal(err)
		}
	}
	for n, want := range map[uint64]bool{0: true, 1: true, 2: true, 9: true, 10: false, 11: false} {
		if got, err := a.EpochAfter(t.Context(), n); err != nil || got != want {
			t.Errorf("above %d: %v, %v; want %v", n, got, err, want)
		}
	}
	bucket.Fault(func(string, string) error { return errOutage })
	if _, err := a.EpochAfter(t.Context(), 10); !errors.Is(err, errOutage) {
		t.Errorf("could not tell: %v, want %v", err, errOutage)
	}
}

func TestSegmentSizesInBackupNames(t *testing.T) {
	for _, z := range []wal.SegmentSize{mib, 16 * mib, 1024 * mib} {
		seg := wal.Segment{Timeline: 5, Number: uint64(1<<32/int64(z))*3 - 1}
		b := archive.Backup{StartSegment: seg.Name(z), Name: archive.BackupName(seg, z)}
		if b.Timeline() != 5 {
			t.Errorf("segments of %d bytes: %s is on timeline %d, want 5", z, b.Name, b.Timeline())
		}
	}
}
