// Package verify reads an archive back and tells whether what it promises is there: every part of every snapshot, the
// chains of deltas, and of each branch the WAL from its oldest snapshot on, without a gap and with the content that was
// once recorded.
//
// What is wrong is a Problem and part of the report. An error means that something could not be told.
package verify

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"

	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/wal"
)

// Kind says what sort of problem it is. The words are stable.
type Kind string

// The kinds of problems.
const (
	DocumentDamaged    Kind = "document_damaged"    // a JSON document or .history file cannot be read
	HistoryConflict    Kind = "history_conflict"    // claims and histories contradict each other
	NoSnapshot         Kind = "no_snapshot"         // the newest branch has none that a restore could begin with
	SnapshotUnusable   Kind = "snapshot_unusable"   // WAL that it needs to become consistent is missing
	ParentMissing      Kind = "parent_missing"      // a delta without what it is built on
	PartMissing        Kind = "part_missing"        //
	PartSize           Kind = "part_size"           // a part has another size than the manifest says
	PartDamaged        Kind = "part_damaged"        // a part has other bytes than the manifest says, or is no tar
	PartForeign        Kind = "part_foreign"        // an object among the parts that is none: stock WAL-G stumbles over it
	BadPages           Kind = "bad_pages"           // the database had damaged pages when the snapshot was taken
	WALGap             Kind = "wal_gap"             // WAL is missing between a snapshot and the end of its branch
	SegmentDamaged     Kind = "segment_damaged"     //
	ChunkDamaged       Kind = "chunk_damaged"       //
	WrongWAL           Kind = "wrong_wal"           // an object holds WAL that belongs to another place or database
	ReceiptUnsupported Kind = "receipt_unsupported" // a receipt promises WAL that is not there
	WALLost            Kind = "wal_lost"            // one of the last two writers said that more was durable than is there
)

// Problem is one thing that is wrong.
type Problem struct {
	Kind   Kind   `json:"kind"`
	Object string `json:"object"` // the key, or what the problem is about
	Detail string `json:"detail"`
}

// Snapshot is what was found out about one snapshot.
type Snapshot struct {
	Name      string       `json:"name"`
	Timeline  wal.Timeline `json:"timeline"`
	Parts     int          `json:"parts"`
	Bytes     int64        `json:"stored_bytes"`
	Checksums Checksums    `json:"page_checksums"`
}

// Checksums is what is known about the pages in a snapshot.
type Checksums string

// The values of Checksums.
const (
	PagesVerified  Checksums = "verified"
	PagesUnchecked Checksums = "off" // the server has no page checksums
	PagesBad       Checksums = "bad"
	PagesUnknown   Checksums = "unknown" // the snapshot has no manifest: it is WAL-G's
)

// PagesOf judges the pages of a snapshot by its manifest.
func PagesOf(b archive.Backup) Checksums {
	switch {
	case b.Manifest == nil:
		return PagesUnknown
	case len(b.Manifest.Checksums.Bad) > 0:
		return PagesBad
	case b.Manifest.Checksums.Enabled:
		return PagesVerified
	}
	return PagesUnchecked
}

// Branch is what was found out about one branch.
type Branch struct {
	Timeline wal.Timeline  `json:"timeline"`
	Newest   bool          `json:"newest"`
	From     wal.LSN       `json:"from,omitempty"` // first restorable position; 0 if there is none
	To       wal.LSN       `json:"to"`             // end of its WAL
	Gaps     []archive.Gap `json:"gaps,omitempty"`
}

// Report is the outcome.
type Report struct {
	Quick     bool       `json:"quick"`
	Snapshots []Snapshot `json:"snapshots"`
	Branches  []Branch   `json:"branches"`
	Objects   int        `json:"objects_read"` // whose content was read
	Bytes     int64      `json:"bytes_decoded"`
	Problems  []Problem  `json:"problems"`
}

// Options says how to verify.
type Options struct {
	// Quick looks at listings and documents only and reads no content.
	Quick bool
	// Jobs is how many objects are read at a time; at least 1. Each takes some megabytes of memory.
	Jobs int
	// Progress is told the sum of decoded bytes done so far and in total, by one goroutine at a time; it may be nil.
	Progress func(done, total int64)
}

// verifier collects the report.
type verifier struct {
	w     *archive.WAL
	o     Options
	inv   *archive.Inventory // nil if it could not be read
	said  archive.Promises   // before the inventory was read
	sysid uint64             // 0 if nobody recorded it
	all   []archive.Backup

	mu     sync.Mutex
	zeros  map[wal.Segment]zeros
	report Report
	total  int64
}

// Run verifies an archive.
func Run(ctx context.Context, w *archive.WAL, o Options) (Report, error) {
	o.Jobs = max(o.Jobs, 1)
	v := &verifier{w: w, o: o, zeros: map[wal.Segment]zeros{}, report: Report{Quick: o.Quick, Snapshots: []Snapshot{}, Branches: []Branch{}, Problems: []Problem{}}}
	err := v.run(ctx)
	slices.SortFunc(v.report.Problems, func(x, y Problem) int {
		return cmp.Or(cmp.Compare(x.Object, y.Object), cmp.Compare(x.Kind, y.Kind), cmp.Compare(x.Detail, y.Detail))
	})
	return v.report, err
}

func (v *verifier) run(ctx context.Context) error {
	if err := v.readDocuments(ctx); err != nil {
		return err
	}
	work, err := v.checkSnapshots(ctx)
	if err != nil {
		return err
	}
	if v.inv != nil {
		work = append(work, v.checkBranches()...)
		if err := v.checkReceipts(ctx); err != nil {
			return err
		}
	}
	if v.o.Quick {
		return nil
	}
	if err := v.read(ctx, work); err != nil {
		return err
	}
	v.checkZeros()
	return nil
}

// readDocuments reads what can be read; a document that is damaged does not keep the others from being looked at.
func (v *verifier) readDocuments(ctx context.Context) error {
	c, err := v.w.Cluster(ctx)
	if err == nil {
		v.sysid = c.SystemIdentifier
	} else if !errors.Is(err, fs.ErrNotExist) && !v.damaged("outrider/cluster.json", err) {
		return err
	}
	names, err := v.w.BackupNames(ctx)
	if err != nil {
		return err
	}
	for _, name := range names {
		b, err := v.w.Backup(ctx, name)
		switch {
		case err == nil:
			v.all = append(v.all, b)
		case errors.Is(err, fs.ErrNotExist) || v.damaged(name, err): // expired meanwhile, or noted
		default:
			return err
		}
	}
	if v.said, err = v.w.Promises(ctx); err != nil && !v.damaged("what the last writers said was durable", err) {
		return err
	}
	inv, err := v.w.Inventory(ctx)
	switch {
	case err == nil:
		v.inv = inv
	case !v.damaged("the documents of the WAL", err):
		return err
	}
	return nil
}

// damaged notes a document that cannot be read, and tells whether that is what the error means.
func (v *verifier) damaged(object string, err error) bool {
	if !errors.Is(err, archive.ErrCorrupt) {
		return false
	}
	v.note(DocumentDamaged, object, err.Error())
	return true
}

func (v *verifier) note(k Kind, object, detail string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	p := Problem{Kind: k, Object: object, Detail: detail}
	if !slices.Contains(v.report.Problems, p) {
		v.report.Problems = append(v.report.Problems, p)
	}
}

func (v *verifier) notef(k Kind, object, format string, args ...any) {
	v.note(k, object, fmt.Sprintf(format, args...))
}
