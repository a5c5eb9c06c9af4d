package main

import (
	"context"
	"log/slog"

	"outrider.dev/sidecar/internal/basebackup"
	"outrider.dev/sidecar/internal/postgres"
	"outrider.dev/sidecar/internal/wal"
)

// backupServer gives basebackup what it wants of the server.
type backupServer struct {
	pg   postgres.Config
	conn *postgres.Conn
	log  *slog.Logger
}

// Facts implements basebackup.Server.
func (b backupServer) Facts(ctx context.Context) (basebackup.Facts, error) {
	s, err := b.conn.Server(ctx)
	if err != nil {
		return basebackup.Facts{}, err
	}
	f := basebackup.Facts{
		SystemIdentifier: s.SystemIdentifier, VersionNum: s.VersionNum, CatalogVersion: s.CatalogVersion, SegmentSize: s.SegmentSize,
		BlockSize: s.BlockSize, RelSegSize: s.RelSegSize, DataChecksums: s.DataChecksums, DataDirectory: s.DataDirectory, Preload: s.Preload,
	}
	c, err := b.conn.Catalog(ctx)
	if err != nil {
		// A restore will not be able to compare those; that is no reason to have no snapshot.
		b.log.Warn("not all databases could be looked into for the manifest of the snapshot", "error", err)
	}
	f.Extensions, f.Collations, f.Databases = c.Extensions, c.Collations, c.Databases
	return f, nil
}

// Begin implements basebackup.Server.
func (b backupServer) Begin(ctx context.Context, label string) (basebackup.Session, error) {
	s, err := postgres.BeginBackup(ctx, b.pg, label)
	if err != nil {
		return nil, err
	}
	return backupSession{s}, nil
}

type backupSession struct{ s *postgres.BackupSession }

func (b backupSession) Start() wal.Position                            { return b.s.Start() }
func (b backupSession) InsertLSN(ctx context.Context) (wal.LSN, error) { return b.s.InsertLSN(ctx) }
func (b backupSession) Abort()                                         { b.s.Abort() }
func (b backupSession) Stop(ctx context.Context) (basebackup.End, error) {
	e, err := b.s.Stop(ctx)
	return basebackup.End{Stop: e.Stop, Label: e.Label, TablespaceMap: e.TablespaceMap}, err
}
