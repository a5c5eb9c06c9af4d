package postgres

import (
	"context"
	"fmt"
	"strconv"

	"github.com/jackc/pgx/v5"

	"outrider.dev/sidecar/internal/wal"
)

// Server is what does not change while the server runs, except InRecovery and Timeline at a promotion.
type Server struct {
	SystemIdentifier    uint64
	VersionNum          int // server_version_num, such as 150020
	CatalogVersion      uint32
	Timeline            wal.Timeline // of the WAL being written; 0 in recovery
	InRecovery          bool
	SegmentSize         wal.SegmentSize
	BlockSize           int   // bytes
	RelSegSize          int64 // blocks in one file of a relation
	DataDirectory       string
	WALLevel            string // minimal, replica or logical
	ArchiveMode         string // off, on or always
	MaxReplicationSlots int
	FSync               bool // without it, a flush position says nothing about the disk
	FullPageWrites      bool
	DataChecksums       bool
	InPlaceTablespaces  bool // allow_in_place_tablespaces (15 or later): pg_tblspc may hold real directories
	HotStandby          bool
	Preload             string // shared_preload_libraries
	User                string
	SuperUser           bool
}

// Major is the server's major version, such as 15.
func (s Server) Major() int { return s.VersionNum / 10000 }

// The timeline comes from the WAL being inserted: pg_control_checkpoint() tells the old one until the first
// checkpoint after a promotion.
const serverQuery = `
SELECT s.system_identifier::text, s.catalog_version_no::bigint, pg_is_in_recovery(),
       CASE WHEN NOT pg_is_in_recovery() THEN pg_walfile_name(pg_current_wal_insert_lsn()) ELSE '' END,
       i.bytes_per_wal_segment::bigint, i.database_block_size, i.blocks_per_segment::bigint,
       current_setting('server_version_num')::int, current_setting('data_directory'),
       current_setting('wal_level'), current_setting('archive_mode'),
       current_setting('max_replication_slots')::int,
       current_setting('fsync')::bool, current_setting('full_page_writes')::bool,
       current_setting('data_checksums')::bool,
       coalesce(current_setting('allow_in_place_tablespaces', true), 'off')::bool,
       current_setting('hot_standby')::bool, current_setting('shared_preload_libraries'),
       session_user::text, current_setting('is_superuser')::bool
  FROM pg_control_system() s, pg_control_init() i`

// Server asks what kind of server this is. It needs pg_monitor or pg_read_all_settings.
func (c *Conn) Server(ctx context.Context) (Server, error) {
	var s Server
	err := c.do(ctx, "asking the server what it is", func(ctx context.Context, pg *pgx.Conn) (err error) {
		s, err = askServer(ctx, pg)
		return err
	})
	return s, err
}

func askServer(ctx context.Context, pg *pgx.Conn) (Server, error) {
	var s Server
	var system, walFile string
	var segment int64
	err := pg.QueryRow(ctx, serverQuery).Scan(&system, &s.CatalogVersion, &s.InRecovery, &walFile, &segment,
		&s.BlockSize, &s.RelSegSize, &s.VersionNum, &s.DataDirectory, &s.WALLevel, &s.ArchiveMode,
		&s.MaxReplicationSlots, &s.FSync, &s.FullPageWrites, &s.DataChecksums, &s.InPlaceTablespaces, &s.HotStandby,
		&s.Preload, &s.User, &s.SuperUser)
	if codeOf(err) == codePermission {
		return s, withRemedy(err, "run as a superuser: GRANT pg_monitor TO %q", pg.Config().User)
	}
	if err != nil {
		return s, err
	}
	// PostgreSQL prints the identifier as a signed number.
	id, err := strconv.ParseInt(system, 10, 64)
	if err != nil {
		return s, fmt.Errorf("system identifier %q is not a number", system)
	}
	s.SystemIdentifier, s.SegmentSize = uint64(id), wal.SegmentSize(segment)
	if !s.InRecovery {
		s.Timeline, err = timelineOf(walFile)
	}
	return s, err
}

// timelineOf is the timeline in the name of a WAL file.
func timelineOf(walFile string) (wal.Timeline, error) {
	if !wal.IsSegmentName(walFile) {
		return 0, fmt.Errorf("the server named a WAL file %q", walFile)
	}
	n, err := strconv.ParseUint(walFile[:8], 16, 32)
	return wal.Timeline(n), err
}

// Position is how far a primary's WAL reaches. Bytes before Flush are on its disk and never change; those up to Insert
// belong to transactions that are not committed or were committed asynchronously.
type Position struct {
	Timeline wal.Timeline
	Flush    wal.LSN
	Insert   wal.LSN
}

// The order of the columns is the order of evaluation: Insert is read last, so it is never behind Flush.
const positionQuery = `
SELECT r, CASE WHEN NOT r THEN pg_walfile_name(pg_current_wal_insert_lsn()) ELSE '' END,
       CASE WHEN NOT r THEN pg_current_wal_flush_lsn()::text ELSE '0/0' END,
       CASE WHEN NOT r THEN pg_current_wal_insert_lsn()::text ELSE '0/0' END
  FROM pg_is_in_recovery() r`

// Position asks for the server's WAL positions in one round trip; ErrInRecovery if it writes none.
func (c *Conn) Position(ctx context.Context) (Position, error) {
	var p Position
	err := c.do(ctx, "asking for the WAL position", func(ctx context.Context, pg *pgx.Conn) (err error) {
		p, err = askPosition(ctx, pg)
		return err
	})
	return p, err
}

func askPosition(ctx context.Context, pg *pgx.Conn) (Position, error) {
	var p Position
	var recovery bool
	var walFile, flush, insert string
	if err := pg.QueryRow(ctx, positionQuery).Scan(&recovery, &walFile, &flush, &insert); err != nil {
		return p, err
	}
	if recovery {
		return p, ErrInRecovery
	}
	var err error
	if p.Timeline, err = timelineOf(walFile); err != nil {
		return p, err
	}
	if p.Flush, err = wal.ParseLSN(flush); err != nil {
		return p, err
	}
	p.Insert, err = wal.ParseLSN(insert)
	return p, err
}
