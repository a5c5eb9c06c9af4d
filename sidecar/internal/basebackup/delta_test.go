package basebackup

import (
	"encoding/binary"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/wal"
)

func facts() Facts {
	return Facts{SystemIdentifier: 42, VersionNum: 150004, CatalogVersion: 7, BlockSize: 8192, DataChecksums: true}
}

// line is a full snapshot with some deltas on it.
func line(deltas int) []archive.Backup {
	var all []archive.Backup
	for i := range deltas + 1 {
		start, stop := uint64(i*1000+1000), uint64(i*1000+1100)
		digits := fmt.Sprintf("00000001%016X", i+1)
		b := archive.Backup{Name: "base_" + digits, StartSegment: digits, Manifest: &archive.Manifest{
			SystemIdentifier: 42, ServerVersion: 150002, CatalogVersion: 7, Start: wal.LSN(start), Stop: wal.LSN(stop), Timeline: 1, Files: 10,
			RawSize: 100, StoredSize: 100, FileList: &archive.Object{Size: 1}, Checksums: archive.ChecksumVerdict{Enabled: true},
		}}
		b.Sentinel.LSN, b.Sentinel.FinishLSN = &start, &stop
		if i > 0 {
			parent := all[i-1]
			b.Name += "_D_" + parent.StartSegment
			b.Manifest.StoredSize, b.Manifest.RawSize = 2, 2
			b.Manifest.Delta = &archive.Delta{Parent: parent.Name, Full: all[0].Name, Count: i, ChainStored: int64(100 + 2*i)}
			b.Sentinel.DeltaFrom = &b.Manifest.Delta.Parent
		}
		b.Manifest.Name = b.Name
		all = append(all, b)
	}
	return all
}

func TestWhatASnapshotIsBuiltOn(t *testing.T) {
	for name, c := range map[string]struct {
		deltas int
		change func(all []archive.Backup) []archive.Backup
		facts  func(*Facts)
		want   int    // length of the chain
		why    string // for a full one
	}{
		"nothing":        {change: func([]archive.Backup) []archive.Backup { return nil }, why: "no snapshot"},
		"a full one":     {want: 1},
		"a delta":        {deltas: 1, want: 2},
		"in any order":   {deltas: 3, change: func(a []archive.Backup) []archive.Backup { slices.Reverse(a); return a }, want: 4},
		"the longest":    {deltas: maxDeltas - 1, want: maxDeltas},
		"too long":       {deltas: maxDeltas, why: "23 deltas"},
		"much changed":   {deltas: 2, change: func(a []archive.Backup) []archive.Backup { a[2].Manifest.StoredSize = 41; return a }, why: "too much"},
		"much before":    {deltas: 2, change: func(a []archive.Backup) []archive.Backup { a[1].Manifest.StoredSize = 41; return a }, want: 3},
		"much in sum":    {deltas: 2, change: func(a []archive.Backup) []archive.Backup { a[2].Manifest.Delta.ChainStored = 201; return a }, why: "together"},
		"parent gone":    {deltas: 2, change: func(a []archive.Backup) []archive.Backup { return a[2:] }, why: "not there"},
		"full one gone":  {deltas: 2, change: func(a []archive.Backup) []archive.Backup { return a[1:] }, why: "not there"},
		"of WAL-G":       {change: func(a []archive.Backup) []archive.Backup { a[0].Manifest = nil; return a }, why: "not taken by us"},
		"on WAL-G's":     {deltas: 1, change: func(a []archive.Backup) []archive.Backup { a[0].Manifest = nil; return a }, why: "not taken by us"},
		"no list":        {change: func(a []archive.Backup) []archive.Backup { a[0].Manifest.FileList = nil; return a }, why: "no list"},
		"many files":     {change: func(a []archive.Backup) []archive.Backup { a[0].Manifest.Files = maxListed + 1; return a }, why: "250000"},
		"bad pages":      {deltas: 1, change: func(a []archive.Backup) []archive.Backup { a[0].Manifest.Checksums.Bad = []string{"x"}; return a }, why: "damaged"},
		"other database": {facts: func(f *Facts) { f.SystemIdentifier++ }, why: "another database"},
		"other major":    {facts: func(f *Facts) { f.VersionNum = 160000 }, why: "major"},
		"other catalog":  {facts: func(f *Facts) { f.CatalogVersion++ }, why: "major"},
		"checksums off":  {facts: func(f *Facts) { f.DataChecksums = false }, why: "checksums"},
		"checksums on":   {change: func(a []archive.Backup) []archive.Backup { a[0].Manifest.Checksums.Enabled = false; return a }, why: "checksums"},
		"odd descent": {deltas: 2, change: func(a []archive.Backup) []archive.Backup {
			a[2].Manifest.Delta.Parent = a[0].Name
			a[2].Sentinel.DeltaFrom = &a[1].Name
			return a
		}, why: "does not fit"},
		"full says parent": {deltas: 1, change: func(a []archive.Backup) []archive.Backup { a[1].Manifest.Delta = nil; return a }, why: "does not fit"},
	} {
		all := line(c.deltas)
		if c.change != nil {
			all = c.change(all)
		}
		f := facts()
		if c.facts != nil {
			c.facts(&f)
		}
		chain, why := foundation(all, f)
		if len(chain) != c.want || (why == "") != (c.want > 0) || !strings.Contains(why, c.why) {
			t.Errorf("%s: a chain of %d, %q; want %d, %q", name, len(chain), why, c.want, c.why)
		}
		for i := range len(chain) - 1 {
			if *chain[i].Sentinel.DeltaFrom != chain[i+1].Name {
				t.Errorf("%s: %s is followed by %s", name, chain[i].Name, chain[i+1].Name)
			}
		}
	}
}

func TestUnchangedFiles(t *testing.T) {
	settled := time.Unix(1000, 0)
	old := archive.FileState{Name: "base/5/1", Size: 8192, MTime: settled.UnixNano() - 1, CTime: 5, Device: 6, Inode: 7, Born: 8}
	b := &base{list: archive.FileList{Settled: settled, Files: map[string]archive.FileState{old.Name: old}}}
	for name, c := range map[string]struct {
		change func(*archive.FileState)
		want   bool
	}{
		"the same":     {func(*archive.FileState) {}, true},
		"birth unseen": {func(s *archive.FileState) { s.Born = 0 }, true}, // a listing does not ask for it
		"size":         {func(s *archive.FileState) { s.Size++ }, false},
		"mtime":        {func(s *archive.FileState) { s.MTime-- }, false},
		"ctime":        {func(s *archive.FileState) { s.CTime++ }, false},
		"device":       {func(s *archive.FileState) { s.Device++ }, false},
		"inode":        {func(s *archive.FileState) { s.Inode++ }, false},
		"name":         {func(s *archive.FileState) { s.Name = "base/5/2" }, false},
	} {
		now := old
		c.change(&now)
		if _, got := b.unchanged(now); got != c.want {
			t.Errorf("%s: unchanged is %v", name, got)
		}
	}
	late := old
	late.MTime = settled.UnixNano()
	b.list.Files[late.Name] = late
	if _, ok := b.unchanged(late); ok {
		t.Error("a file that was changed just before it was read counts as unchanged")
	}
}

func TestFilesOfWhichPagesAreStored(t *testing.T) {
	state := archive.FileState{Size: 4 * 8192, Inode: 7, Born: 8}
	files := map[string]archive.FileState{}
	for _, name := range []string{"base/5/1", "base/5/1.3", "base/5/1_vm", "base/5/1_fsm.1", "base/5/1_init", "global/1", "pg_xact/0000", "pg_tblspc/9/PG_15_7/5/1", "base/5/PG_VERSION"} {
		s := state
		s.Name = name
		files[name] = s
	}
	for name, c := range map[string]struct {
		file   string
		change func(*archive.FileState, *base)
		want   bool
	}{
		"a table":              {file: "base/5/1", want: true},
		"a later segment":      {file: "base/5/1.3", want: true},
		"in a tablespace":      {file: "pg_tblspc/9/PG_15_7/5/1", want: true},
		"visibility map":       {file: "base/5/1_vm"},
		"free space map":       {file: "base/5/1_fsm.1"},
		"init fork":            {file: "base/5/1_init"},
		"shared catalog":       {file: "global/1"},
		"not in the parent":    {file: "base/5/2"},
		"not a relation":       {file: "pg_xact/0000"},
		"one page":             {file: "base/5/1", change: func(s *archive.FileState, _ *base) { s.Size = 8192 }},
		"half a page":          {file: "base/5/1", change: func(s *archive.FileState, _ *base) { s.Size += 512 }},
		"too large":            {file: "base/5/1", change: func(s *archive.FileState, _ *base) { s.Size = 1<<30 + 8192 }},
		"other page size":      {file: "base/5/1", change: func(_ *archive.FileState, b *base) { b.facts.BlockSize = 4096 }},
		"other inode":          {file: "base/5/1", change: func(s *archive.FileState, _ *base) { s.Inode++ }},
		"inode used again":     {file: "base/5/1", change: func(s *archive.FileState, _ *base) { s.Born++ }},
		"same database":        {file: "base/5/1", change: func(s *archive.FileState, b *base) { s.Inode++; b.facts.Databases = map[uint32]string{5: "700"} }, want: true},
		"database made again":  {file: "base/5/1", change: func(s *archive.FileState, b *base) { s.Inode++; b.facts.Databases = map[uint32]string{5: "701"} }},
		"database of no note":  {file: "base/5/1", change: func(s *archive.FileState, b *base) { s.Inode++; b.list.Databases = nil }},
		"marks are not known":  {file: "base/5/1", change: func(_ *archive.FileState, b *base) { b.facts.DataChecksums = false }},
		"no file of relations": {file: "base/5/PG_VERSION"},
	} {
		b := &base{facts: facts(), list: archive.FileList{Files: files, Databases: map[uint32]string{5: "700"}}}
		now := state
		now.Name = c.file
		if c.change != nil {
			c.change(&now, b)
		}
		e := entry{tree: &tree{}, rel: c.file, segment: noRelation}
		if holdsRelations(filepath.Dir(c.file)) {
			e.segment = newRelationNames().in(nil).segment(filepath.Base(c.file))
		}
		if _, got := b.patchable(e, now); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

func pageOf(lsn wal.LSN, flags uint16) []byte {
	p := make([]byte, 8192)
	binary.LittleEndian.PutUint32(p, uint32(lsn>>32))
	binary.LittleEndian.PutUint32(p[4:], uint32(lsn))
	for at, v := range map[int]uint16{10: flags, 12: 28, 14: 8000, 16: 8192, 18: 8192 | 4} {
		binary.LittleEndian.PutUint16(p[at:], v)
	}
	return p
}

func TestPagesThatAreStored(t *testing.T) {
	const since = wal.LSN(0x5_0000_0000)
	c := comparison{since: since, blocks: 10, visible: []byte{0b10, 0}}
	odd := pageOf(since-1, 0x100)
	notNew := make([]byte, 8192)
	notNew[8000] = 1
	for name, x := range map[string]struct {
		page          []byte
		block         uint32
		changed, sane bool
	}{
		"older":                 {pageOf(since-1, 0), 0, false, true},
		"of the beginning":      {pageOf(since, 0), 0, true, true},
		"newer":                 {pageOf(since+1, 0), 0, true, true},
		"much older":            {pageOf(0x1000000, 0), 0, false, true},
		"without a real LSN":    {pageOf(1, 0), 0, true, true},
		"with none":             {pageOf(0, 0), 0, true, true},
		"beyond the old end":    {pageOf(since-1, 0), 10, true, true},
		"the last one":          {pageOf(since-1, 0), 9, false, true},
		"new":                   {make([]byte, 8192), 0, true, true},
		"marked before":         {pageOf(since-1, 4), 1, false, true},
		"marked since":          {pageOf(since-1, 4), 0, true, true},
		"no longer marked":      {pageOf(since-1, 0), 1, false, true},
		"marked beyond notes":   {pageOf(since-1, 4), 9, true, true},
		"unknown flags":         {odd, 0, true, false},
		"new and not all zeros": {notNew, 0, true, false},
	} {
		if changed, sane := c.changed(x.page, x.block); sane != x.sane || sane && changed != x.changed {
			t.Errorf("%s: changed %v, sane %v", name, changed, sane)
		}
	}
	c.visible = nil
	if changed, _ := c.changed(pageOf(since-1, 4), 0); changed {
		t.Error("with page checksums a mark is told from the LSN alone")
	}
}
