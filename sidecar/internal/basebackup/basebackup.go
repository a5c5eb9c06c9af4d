package basebackup

import (
	"context"
	"io"
	"log/slog"
	"time"

	"golang.org/x/time/rate"

	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/wal"
)

// Facts are what the server knows about itself and a snapshot has to record.
type Facts struct {
	SystemIdentifier uint64
	VersionNum       int // server_version_num
	CatalogVersion   uint32
	SegmentSize      wal.SegmentSize
	BlockSize        int
	RelSegSize       int64 // blocks in one file of a relation
	DataChecksums    bool
	DataDirectory    string // as the server sees it
	Preload          string
	Extensions       map[string]string // "database/extension" to version
	Collations       map[string]string // database to version
	// Databases tells databases apart that had the same object id one after the other, by that id; nil if unknown.
	Databases map[uint32]string
}

// Server is what a snapshot wants from the server.
type Server interface {
	Facts(ctx context.Context) (Facts, error)
	// Begin brings the server into backup mode on a session of its own. It fails while another such session exists.
	Begin(ctx context.Context, label string) (Session, error)
}

// Session is a server in backup mode. It is used by one goroutine at a time. Abort may be called after
// Stop, and again.
type Session interface {
	Start() wal.Position
	// InsertLSN is the end of the WAL now; no page can be newer. An error means that backup mode is lost.
	InsertLSN(ctx context.Context) (wal.LSN, error)
	// Stop leaves backup mode without waiting for any archiving.
	Stop(ctx context.Context) (End, error)
	Abort()
}

// End is what leaving backup mode returns.
type End struct {
	Stop          wal.LSN
	Label         string // content of backup_label
	TablespaceMap string // content of tablespace_map
}

// Archive is where snapshots go.
type Archive interface {
	ClaimBackup(ctx context.Context, name string, c archive.BackupClaim) error
	UploadPart(ctx context.Context, backup, name string, raw io.Reader) (archive.Part, error)
	Parts(ctx context.Context, backup string) ([]archive.Part, error)
	CommitBackup(ctx context.Context, m archive.Manifest, meta archive.Metadata, s archive.Sentinel) error
}

// Lists keeps what the next snapshot tells changes from.
type Lists interface {
	// Backup reads one snapshot; fs.ErrNotExist if it does not exist.
	Backup(ctx context.Context, name string) (archive.Backup, error)
	FileList(ctx context.Context, backup string, want archive.Object) (archive.FileList, error)
	PutFileList(ctx context.Context, backup string, l archive.FileList) (archive.Object, error)
	PutFilesMetadata(ctx context.Context, backup string, m archive.FilesMetadata) (archive.Object, error)
}

// Durable waits until all WAL before a position is in the archive. Shipping has to have begun before a snapshot does:
// that the WAL from its start on is there is taken from the fact that what is durable has no gaps.
type Durable interface {
	WaitDurable(ctx context.Context, p wal.Position) error
}

// Progress is how far an attempt is. Totals are estimates: files grow, shrink and vanish.
type Progress struct {
	Files, TotalFiles int64
	Bytes, TotalBytes int64 // of files, before compression
}

// Config says what to copy, where to, and at what cost.
type Config struct {
	PGDATA   string // as this process sees it
	Epoch    uint64 // the writer's, for claim and manifest
	Instance string // the writer's, for the claim
	Hostname string // for the sentinel

	Server  Server
	Archive Archive
	WAL     Durable
	// Lists may be nil: then each snapshot is full, and none can be built on it.
	Lists Lists

	// Known are the snapshots of the history that the server is in, in any order. A snapshot may become a delta on the
	// newest of them, see plan in delta.go. Full forbids that.
	Known []archive.Backup
	Full  bool

	// Workers is how many parts are read, compressed and stored at a time, each with about 40 MiB of memory, of which
	// three quarters are buffers of the upload. 0 is 2.
	Workers int
	// PartSize is the size before compression at which a part is closed; a file is never split. 0 chooses: enough parts
	// for a restore in parallel, each between 32 and 256 MiB.
	PartSize int64
	// ReadRate bounds reading in bytes per second; 0 does not.
	ReadRate int64

	Log      *slog.Logger
	Metrics  *Metrics       // from NewMetrics; nil counts for nobody
	Progress func(Progress) // called twice a second and at the end by one goroutine; may be nil
}

const (
	defaultWorkers   = 2
	progressInterval = 500 * time.Millisecond
	// watchInterval is how often an attempt asks whether backup mode still holds: without asking, hours of copying after
	// a restart of the server would be found to be worthless at the end.
	watchInterval = 5 * time.Second
	watchTimeout  = 30 * time.Second
	claimAttempts = 5
	// settleMargin is the tick of the coarsest clock of any file system that can hold a database, and some.
	settleMargin = 2 * time.Second
)

// Taker takes snapshots. It is safe for concurrent use, but a server lets only one be taken at a time.
type Taker struct {
	cfg     Config
	limiter *rate.Limiter // nil without a limit
	watch   time.Duration
	margin  time.Duration
}

// New makes a Taker.
func New(cfg Config) *Taker {
	if cfg.Workers <= 0 {
		cfg.Workers = defaultWorkers
	}
	if cfg.Metrics == nil {
		cfg.Metrics = NewMetrics(nil)
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	t := &Taker{cfg: cfg, watch: watchInterval, margin: settleMargin}
	if cfg.ReadRate > 0 {
		t.limiter = rate.NewLimiter(rate.Limit(cfg.ReadRate), chunkSize)
	}
	return t
}
