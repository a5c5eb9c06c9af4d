package archive

import (
	"fmt"
	"strconv"
	"strings"

	"outrider.dev/sidecar/internal/wal"
)

// Places below the root of one database. The first two and the suffixes are WAL-G's.
const (
	backupsDir     = "basebackups_005/"
	walDir         = "wal_005/"
	sentinelSuffix = "_backup_stop_sentinel.json"
	partsDir       = "/tar_partitions/"
	clusterKey     = "outrider/cluster.json"
	epochsDir      = "outrider/epochs/"
	timelinesDir   = "outrider/timelines/"
	tailDir        = "outrider/tail/"
	receiptsDir    = "outrider/receipts/"
	heartbeatsDir  = "outrider/heartbeats/"
	journalDir     = "outrider/journal/"
	drillsDir      = "outrider/drills/"
	drillsExpected = "outrider/drills-expected.json"
)

// ProbeKey is an object that a bucket may hold from being tested, before anything was archived. It never counts.
const ProbeKey = "outrider/probe"

// number pads to ten digits, so that the order of keys is the order of numbers.
func number(n uint64) string { return fmt.Sprintf("%010d", n) }

func numberedKey(dir string, n uint64) string { return dir + number(n) + ".json" }

func parseNumberedKey(dir, key string) (uint64, bool) {
	s, ok := strings.CutPrefix(key, dir)
	if !ok {
		return 0, false
	}
	s, ok = strings.CutSuffix(s, ".json")
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseUint(s, 10, 64)
	return n, err == nil && number(n) == s
}

// Chunk names the WAL bytes [From, To) of one segment, written by one epoch.
type Chunk struct {
	Segment  wal.Segment
	Epoch    uint64
	From, To wal.LSN
}

// chunkKey writes positions in lower case and 16 digits, so that nothing but the segment's name looks like one.
func chunkKey(c Chunk, z wal.SegmentSize) string {
	return fmt.Sprintf("%s%s/%s/%016x-%016x.zst", tailDir, c.Segment.Name(z), number(c.Epoch), uint64(c.From), uint64(c.To))
}

func parseChunkKey(key string, z wal.SegmentSize) (Chunk, bool) {
	rest, ok := strings.CutPrefix(key, tailDir)
	fields := strings.Split(rest, "/")
	if !ok || len(fields) != 3 {
		return Chunk{}, false
	}
	seg, err := wal.ParseSegment(fields[0], z)
	if err != nil {
		return Chunk{}, false
	}
	epoch, err := strconv.ParseUint(fields[1], 10, 64)
	if err != nil {
		return Chunk{}, false
	}
	name, ok := strings.CutSuffix(fields[2], ".zst")
	from, to, dash := strings.Cut(name, "-")
	f, ferr := strconv.ParseUint(from, 16, 64)
	t, terr := strconv.ParseUint(to, 16, 64)
	c := Chunk{Segment: seg, Epoch: epoch, From: wal.LSN(f), To: wal.LSN(t)}
	if !ok || !dash || ferr != nil || terr != nil || chunkKey(c, z) != key || !c.valid(z) {
		return Chunk{}, false
	}
	return c, true
}

func (c Chunk) valid(z wal.SegmentSize) bool {
	return c.From < c.To && c.From >= c.Segment.Start(z) && c.To <= c.Segment.End(z)
}

// splitSegmentKey takes wal_005/<name><ext> apart. ext is "" or begins with a dot.
func splitSegmentKey(key string) (name, ext string, ok bool) {
	rest, ok := strings.CutPrefix(key, walDir)
	if !ok || len(rest) < 24 || !wal.IsSegmentName(rest[:24]) {
		return "", "", false
	}
	return rest[:24], rest[24:], knownExtension(rest[24:])
}

func splitHistoryKey(key string) (t wal.Timeline, ok bool) {
	rest, ok := strings.CutPrefix(key, walDir)
	name, ext, dot := strings.Cut(rest, ".history")
	if !ok || !dot || !knownExtension(ext) {
		return 0, false
	}
	return wal.ParseHistoryName(name + ".history")
}
