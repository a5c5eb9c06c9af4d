package archive

import (
	"time"

	"outrider.dev/sidecar/internal/wal"
)

// Format is the number of the layout that this program writes into its documents. A reader refuses a higher one.
const Format = 1

// Cluster is outrider/cluster.json: whose history this root holds. Created once, never changed.
type Cluster struct {
	Format           int             `json:"format"`
	SystemIdentifier uint64          `json:"system_identifier,string"`
	SegmentSize      wal.SegmentSize `json:"wal_segment_size"`
	CreatedAt        time.Time       `json:"created_at"`
	CreatedBy        Identity        `json:"created_by"`
}

// Identity says who a writer is. Instance alone decides whether two identities are the same writer.
type Identity struct {
	Instance   string `json:"instance"` // unique for one pod (its uid) or one data directory on one boot of a machine
	Pod        string `json:"pod,omitempty"`
	Namespace  string `json:"namespace,omitempty"`
	Node       string `json:"node,omitempty"`
	Kubernetes string `json:"kubernetes_cluster,omitempty"` // uid of the cluster's kube-system namespace
	Host       string `json:"host,omitempty"`
	Version    string `json:"version,omitempty"`
}

// Epoch is outrider/epochs/<n>.json: the claim of one writer to be the only one. Created once, never changed.
type Epoch struct {
	Format    int       `json:"format"`
	Number    uint64    `json:"epoch"`
	Writer    Identity  `json:"writer"`
	ClaimedAt time.Time `json:"claimed_at"`
	ModTime   time.Time `json:"-"` // of the object, by the store's clock; zero in a claim that was not read
	// Timeline and Since say from where on the epoch owns an existing timeline. Both are zero in the claim of a
	// restore, which will own what it promotes to: its TimelineClaim says so later.
	Timeline wal.Timeline `json:"timeline,omitempty"`
	Since    wal.LSN      `json:"since,omitempty"`
	// Replaces says that the writer replaces whatever an earlier epoch has sealed past Since, even where it is equal: until
	// then such an object counts only up to there. Writers of old took over what was equal, and then it counts whole.
	Replaces bool `json:"replaces,omitempty"`
	// TakeOver is the id of the other Kubernetes cluster whose epoch was continued on request.
	TakeOver string `json:"take_over,omitempty"`
}

// TimelineClaim is outrider/timelines/<tli>.json: which epoch owns a timeline. Created once, before the timeline's
// .history file, whose content cannot tell two racing restores apart.
type TimelineClaim struct {
	Format    int          `json:"format"`
	Timeline  wal.Timeline `json:"timeline"`
	Epoch     uint64       `json:"epoch"`
	Parent    wal.Timeline `json:"parent,omitempty"` // 0 for the first timeline of a root
	Switch    wal.LSN      `json:"switch"`           // where the parent was left; for a first timeline, where shipping began
	ClaimedAt time.Time    `json:"claimed_at"`
	ModTime   time.Time    `json:"-"` // as in Epoch
	// Instance is the writer that claimed it. The timeline is claimed before the epoch, so that only one of two racing
	// writers takes an epoch: both may expect the same number.
	Instance string `json:"instance,omitempty"`
	// Target is the restore target that led here when it was not the latest position. A later restore with the same
	// target finds it fulfilled and continues this timeline instead of undoing what was written since.
	Target string `json:"restore_target,omitempty"`
	// From is the other root that was restored from, if any.
	From string `json:"restored_from,omitempty"`
}

// Receipt is outrider/receipts/<n>.json: how epoch n ended. It is replaced while the epoch's owner goes on.
type Receipt struct {
	Format int    `json:"format"`
	Epoch  uint64 `json:"epoch"`
	// Clean is the proof that nothing is missing: pg_control says shut down, and Durable is at or past CheckpointEnd.
	Clean bool `json:"clean"`
	// Running says that it has not ended: its owner has come back after a stop, and what the receipt of that stop said
	// holds no longer.
	Running bool `json:"running,omitempty"`
	// Superseded says that another writer had claimed a higher epoch before the receipt was written. What that one went on
	// from its claims say.
	Superseded    bool         `json:"superseded,omitempty"`
	Reason        string       `json:"reason"` // in words, why it is clean or not
	Timeline      wal.Timeline `json:"timeline"`
	Durable       wal.LSN      `json:"durable"`
	Checkpoint    wal.LSN      `json:"checkpoint,omitempty"`     // start of the shutdown checkpoint record
	CheckpointEnd wal.LSN      `json:"checkpoint_end,omitempty"` // end of that record
	LocalEnd      wal.LSN      `json:"local_end,omitempty"`      // end of the valid WAL that was seen locally
	State         string       `json:"control_state,omitempty"`
	NoticeAt      *time.Time   `json:"notice_at,omitempty"`
	PreparedAt    *time.Time   `json:"prepared_at,omitempty"`
	FinishedAt    time.Time    `json:"finished_at"`
	Writer        Identity     `json:"writer"`
	// StartedAgain says that a server was let start on the same disk after this stop. The stop was as it says; of what came
	// after it only the next receipt or epoch tells.
	StartedAgain *StartedAgain `json:"started_again,omitempty"`
}

// StartedAgain is who let a server start on the disk of an epoch that had ended, and when.
type StartedAgain struct {
	At     time.Time `json:"at"`
	Writer Identity  `json:"writer"`
}

// Heartbeat is outrider/heartbeats/<n>.json. It lets a restore wait politely for a predecessor that lives, or is coming
// to its end; no safety rests on it. Its age is judged by the store's clock.
type Heartbeat struct {
	Format   int          `json:"format"`
	Epoch    uint64       `json:"epoch"`
	Timeline wal.Timeline `json:"timeline"`
	Durable  wal.LSN      `json:"durable"`
	// Interval is the longest time until the next one, in seconds.
	Interval float64 `json:"interval_seconds"`
	// Leaving is for how many seconds from now the writer may need to come to an orderly end; 0 if it has not been asked to.
	Leaving float64 `json:"leaving_seconds,omitempty"`
}

// Entry is one line of the flight recorder, outrider/journal/<n>/<time>-<event>.json. Created once.
type Entry struct {
	Time  time.Time      `json:"time"`
	Epoch uint64         `json:"epoch"`
	Event string         `json:"event"` // a constant such as "notice" or "snapshot_taken"
	Attrs map[string]any `json:"attrs,omitempty"`
}

// Sentinel is WAL-G's <backup>_backup_stop_sentinel.json, version 2 of its format. LSNs and the system identifier are
// numbers there. Keys that WAL-G does not know are ignored by it.
type Sentinel struct {
	LSN                   *uint64 `json:"LSN"`
	FinishLSN             *uint64 `json:"FinishLSN"`
	PgVersion             int     `json:"PgVersion"`
	SystemIdentifier      *uint64 `json:"SystemIdentifier"`
	UncompressedSize      int64   `json:"UncompressedSize"`
	CompressedSize        int64   `json:"CompressedSize"`
	DataCatalogSize       int64   `json:"DataCatalogSize,omitempty"`
	FilesMetadataDisabled bool    `json:"FilesMetadataDisabled,omitempty"`
	// Spec names the tablespaces; absent where there are none.
	Spec *TablespaceSpec `json:"Spec,omitempty"`
	// The next four are all set in a delta and all absent in a full snapshot.
	DeltaLSN      *uint64 `json:"DeltaLSN,omitempty"`
	DeltaFrom     *string `json:"DeltaFrom,omitempty"`
	DeltaFullName *string `json:"DeltaFullName,omitempty"`
	DeltaCount    *int    `json:"DeltaCount,omitempty"`

	Version     int       `json:"Version"`
	StartTime   time.Time `json:"StartTime"`
	FinishTime  time.Time `json:"FinishTime"`
	DateFmt     string    `json:"DateFmt"`
	Hostname    string    `json:"Hostname"`
	DataDir     string    `json:"DataDir"`
	IsPermanent bool      `json:"IsPermanent"`
}

// Metadata is WAL-G's basebackups_005/<backup>/metadata.json, which several of its commands cannot do without.
type Metadata struct {
	StartTime        time.Time `json:"start_time"`
	FinishTime       time.Time `json:"finish_time"`
	DateFmt          string    `json:"date_fmt"`
	Hostname         string    `json:"hostname"`
	DataDir          string    `json:"data_dir"`
	PgVersion        int       `json:"pg_version"`
	StartLSN         uint64    `json:"start_lsn"`
	FinishLSN        uint64    `json:"finish_lsn"`
	IsPermanent      bool      `json:"is_permanent"`
	SystemIdentifier *uint64   `json:"system_identifier"`
	UncompressedSize int64     `json:"uncompressed_size"`
	CompressedSize   int64     `json:"compressed_size"`
}

// DateFmt is the constant that WAL-G writes beside its times.
const DateFmt = "%Y-%m-%dT%H:%M:%S.%fZ"

// Manifest is basebackups_005/<backup>/outrider.json: what a snapshot of ours consists of. It is written before the
// sentinel, so a snapshot that exists has one, and a missing or short part is an error instead of a silent hole.
type Manifest struct {
	Format           int               `json:"format"`
	Name             string            `json:"name"`
	Epoch            uint64            `json:"epoch"`
	Timeline         wal.Timeline      `json:"timeline"`
	Start            wal.LSN           `json:"start"`
	Stop             wal.LSN           `json:"stop"`
	StartTime        time.Time         `json:"start_time"`
	StopTime         time.Time         `json:"stop_time"`
	SystemIdentifier uint64            `json:"system_identifier,string"`
	SegmentSize      wal.SegmentSize   `json:"wal_segment_size"`
	ServerVersion    int               `json:"server_version_num"`
	CatalogVersion   uint32            `json:"catalog_version"`
	Parts            []Part            `json:"parts"`
	Files            int               `json:"files"`
	RawSize          int64             `json:"raw_size"`
	StoredSize       int64             `json:"stored_size"`
	Checksums        ChecksumVerdict   `json:"page_checksums"`
	Tablespaces      []Tablespace      `json:"tablespaces,omitempty"`
	Extensions       map[string]string `json:"extensions,omitempty"` // "database/extension" to version
	Preload          string            `json:"shared_preload_libraries,omitempty"`
	Collations       map[string]string `json:"collation_versions,omitempty"` // database to version
	// Delta is nil in a full snapshot.
	Delta *Delta `json:"delta,omitempty"`
	// FileList is the list of files that a delta can be built on; nil if there is none.
	FileList *Object `json:"file_list,omitempty"`
	// FilesMetadata is what a delta cannot be restored without; nil in a full snapshot.
	FilesMetadata *Object `json:"files_metadata,omitempty"`
}

// Delta is what the manifest of a snapshot says that holds only what changed since another one.
type Delta struct {
	Parent string `json:"parent"` // name of the snapshot that it is built on
	Full   string `json:"full"`   // name of the one at the bottom of the chain
	Count  int    `json:"count"`  // deltas in the chain, this one included
	// Since is where the parent begins: pages that were changed from there on are in it.
	Since wal.LSN `json:"since"`

	WholeFiles     int   `json:"whole_files"`   // stored from beginning to end
	PatchedFiles   int   `json:"patched_files"` // of which only pages are stored
	UnchangedFiles int   `json:"unchanged_files"`
	ChangedPages   int64 `json:"changed_pages"` // of the patched files
	ChangedBytes   int64 `json:"changed_bytes"` // of files and pages that are stored, before compression
	DataBytes      int64 `json:"data_bytes"`    // of all files

	// ChainRaw and ChainStored are bytes of all parts of the chain, this snapshot's included.
	ChainRaw    int64 `json:"chain_raw_size"`
	ChainStored int64 `json:"chain_stored_size"`
}

// Restored is how many bytes of parts a restore has to unpack and to fetch.
func (m Manifest) Restored() (raw, stored int64) {
	if m.Delta != nil {
		return m.Delta.ChainRaw, m.Delta.ChainStored
	}
	return m.RawSize, m.StoredSize
}

// Part is one tar of a snapshot.
type Part struct {
	Name    string `json:"name"` // below tar_partitions/, with its extension
	Size    int64  `json:"size"`
	CRC64   uint64 `json:"crc64,string"` // CRC-64/XZ of the stored object
	RawSize int64  `json:"raw_size"`     // of the tar stream
	Files   int    `json:"files"`
}

// ChecksumVerdict is what reading the pages of a snapshot found.
type ChecksumVerdict struct {
	Enabled bool  `json:"enabled"`
	Pages   int64 `json:"pages_verified,omitempty"`
	// Inherited are pages of files that a delta takes over from its parent, which has verified them.
	Inherited int64    `json:"pages_inherited,omitempty"`
	Bad       []string `json:"bad_pages,omitempty"` // "path:block", at most 100
}

// Tablespace is a symbolic link below pg_tblspc.
type Tablespace struct {
	OID      uint32 `json:"oid"`
	Location string `json:"location"`
}
