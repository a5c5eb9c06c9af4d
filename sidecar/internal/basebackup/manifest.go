package basebackup

import (
	"time"

	"outrider.dev/sidecar/internal/archive"
)

func (a *attempt) manifest(end End, stopped time.Time) archive.Manifest {
	m := archive.Manifest{
		Name: a.name, Epoch: a.t.cfg.Epoch, Timeline: a.start.Timeline, Start: a.start.LSN, Stop: end.Stop,
		StartTime: stamp(a.began), StopTime: stamp(stopped),
		SystemIdentifier: a.facts.SystemIdentifier, SegmentSize: a.facts.SegmentSize,
		ServerVersion: a.facts.VersionNum, CatalogVersion: a.facts.CatalogVersion,
		Parts: a.parts, Tablespaces: a.tablespaces,
		Extensions: a.facts.Extensions, Preload: a.facts.Preload, Collations: a.facts.Collations,
		FileList: a.fileList, FilesMetadata: a.filesMetadata,
	}
	if v := a.reading.verifier; v != nil {
		m.Checksums = v.verdict()
		m.Checksums.Inherited = a.reading.register.inherited
	}
	for _, p := range a.parts {
		m.Files += p.Files
		m.RawSize += p.RawSize
		m.StoredSize += p.Size
	}
	if a.base != nil {
		d := a.reading.register.delta
		d.Parent, d.Full, d.Count, d.Since = a.base.parent().Name, a.base.full().Name, len(a.base.chain), a.base.since()
		d.DataBytes = a.dataBytes
		d.ChainRaw, d.ChainStored = a.base.parent().Manifest.Restored()
		d.ChainRaw += m.RawSize
		d.ChainStored += m.StoredSize
		m.Delta = &d
	}
	return m
}

func (a *attempt) sentinel(m archive.Manifest) archive.Sentinel {
	start, stop, system := uint64(m.Start), uint64(m.Stop), m.SystemIdentifier
	s := archive.Sentinel{
		LSN: &start, FinishLSN: &stop, PgVersion: m.ServerVersion, SystemIdentifier: &system,
		UncompressedSize: m.RawSize, CompressedSize: m.StoredSize, DataCatalogSize: a.dataBytes,
		FilesMetadataDisabled: true, Version: 2, StartTime: m.StartTime, FinishTime: m.StopTime,
		DateFmt: archive.DateFmt, Hostname: a.t.cfg.Hostname, DataDir: a.facts.DataDirectory,
	}
	if d := m.Delta; d != nil {
		since := uint64(d.Since)
		s.FilesMetadataDisabled = false
		s.DeltaLSN, s.DeltaFrom, s.DeltaFullName, s.DeltaCount = &since, &d.Parent, &d.Full, &d.Count
	}
	if len(m.Tablespaces) > 0 {
		s.Spec = &archive.TablespaceSpec{BasePrefix: a.facts.DataDirectory, Tablespaces: m.Tablespaces}
	}
	return s
}

func (a *attempt) metadata(m archive.Manifest) archive.Metadata {
	system := m.SystemIdentifier
	return archive.Metadata{
		StartTime: m.StartTime, FinishTime: m.StopTime, DateFmt: archive.DateFmt, Hostname: a.t.cfg.Hostname,
		DataDir: a.facts.DataDirectory, PgVersion: m.ServerVersion, StartLSN: uint64(m.Start), FinishLSN: uint64(m.Stop),
		SystemIdentifier: &system, UncompressedSize: m.RawSize, CompressedSize: m.StoredSize,
	}
}

// stamp is a time as it is written: everywhere the same zone, and no more digits than WAL-G's.
func stamp(t time.Time) time.Time { return t.UTC().Truncate(time.Microsecond) }
