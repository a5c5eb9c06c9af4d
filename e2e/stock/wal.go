package stock

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

var (
	segmentObject = regexp.MustCompile(`^([0-9A-F]{24})\.zst$`)
	historyObject = regexp.MustCompile(`^([0-9A-F]{8})\.history\.zst$`)
)

// segmentSize is what the tool assumes unless it is told otherwise.
const segmentSize = 16 << 20

// segment is a timeline and a number.
type segment struct {
	timeline uint32
	number   uint64
}

func (s segment) name() string {
	return fmt.Sprintf("%08X%08X%08X", s.timeline, s.number>>8, s.number&0xFF)
}

func parseSegment(name string) segment {
	t, _ := strconv.ParseUint(name[:8], 16, 32)
	hi, _ := strconv.ParseUint(name[8:16], 16, 32)
	lo, _ := strconv.ParseUint(name[16:24], 16, 32)
	return segment{uint32(t), hi<<8 | lo}
}

// FetchWAL puts all segments and history files into dir, each under the name that PostgreSQL asks for, with the
// checks that wal-fetch leaves out.
func (a *Archive) FetchWAL(ctx context.Context, dir string) (segments []string, err error) {
	keys, err := a.list(ctx, "wal_005/")
	if err != nil {
		return nil, err
	}
	for _, k := range keys {
		name := strings.TrimSuffix(k, ".zst")
		isSegment := segmentObject.MatchString(k)
		if !isSegment && !historyObject.MatchString(k) {
			return nil, fmt.Errorf("wal_005/%s is neither a segment nor a history file", k)
		}
		n, err := a.fetchOne(ctx, "wal_005/"+k, dir, name)
		if err != nil {
			return nil, err
		}
		if isSegment && n != segmentSize {
			return nil, fmt.Errorf("wal_005/%s holds %d bytes, PostgreSQL refuses a segment that does not have %d", k, n, segmentSize)
		}
		if isSegment {
			segments = append(segments, name)
		}
	}
	slices.Sort(segments)
	return segments, nil
}

func (a *Archive) fetchOne(ctx context.Context, key, dir, name string) (int64, error) {
	body, err := a.decoded(ctx, key)
	if err != nil {
		return 0, err
	}
	defer body.Close()
	if dir == "" {
		return io.Copy(io.Discard, body)
	}
	f, err := os.Create(filepath.Join(dir, name))
	if err != nil {
		return 0, err
	}
	n, err := io.Copy(f, body)
	return n, errors.Join(err, f.Close())
}

// histories reads where each timeline left its parent.
func (a *Archive) histories(ctx context.Context) (map[uint32]segment, error) {
	keys, err := a.list(ctx, "wal_005/")
	if err != nil {
		return nil, err
	}
	parents := map[uint32]segment{}
	for _, k := range keys {
		m := historyObject.FindStringSubmatch(k)
		if m == nil {
			continue
		}
		body, err := a.decoded(ctx, "wal_005/"+k)
		if err != nil {
			return nil, err
		}
		text, err := io.ReadAll(body)
		if err = errors.Join(err, body.Close()); err != nil {
			return nil, err
		}
		lines := strings.Split(strings.TrimSpace(string(text)), "\n")
		var parent uint32
		var hi, lo uint64
		if _, err := fmt.Sscanf(lines[len(lines)-1], "%d\t%X/%X", &parent, &hi, &lo); err != nil {
			return nil, fmt.Errorf("reading wal_005/%s: %w", k, err)
		}
		t, _ := strconv.ParseUint(m[1], 16, 32)
		parents[uint32(t)] = segment{parent, (hi<<32 | lo) / segmentSize}
	}
	return parents, nil
}

// Check reads everything and says what a stock tool would stumble over: listing, fetching each backup, and the WAL from
// the oldest backup to the end of the newest timeline without a hole.
func (a *Archive) Check(ctx context.Context) error {
	names, err := a.Backups(ctx)
	if err != nil {
		return err
	}
	if len(names) == 0 {
		return errors.New("there is no backup")
	}
	segments, err := a.FetchWAL(ctx, "")
	if err != nil {
		return err
	}
	have := map[segment]bool{}
	for _, s := range segments {
		have[parseSegment(s)] = true
	}
	for _, name := range names {
		s, err := a.checkBackup(ctx, name)
		if err != nil {
			return err
		}
		start := parseSegment(name[5:29])
		if start.number != *s.LSN/segmentSize {
			return fmt.Errorf("%s begins at byte %d, which lies in another segment", name, *s.LSN)
		}
		for n := start.number; n <= (*s.FinishLSN-1)/segmentSize; n++ {
			if !have[segment{start.timeline, n}] {
				return fmt.Errorf("%s needs segment %s, which is not there", name, segment{start.timeline, n}.name())
			}
		}
	}
	return a.checkHoles(ctx, parseSegment(names[0][5:29]), have)
}

// checkHoles walks back from the newest segment as wal-verify does.
func (a *Archive) checkHoles(ctx context.Context, oldest segment, have map[segment]bool) error {
	parents, err := a.histories(ctx)
	if err != nil {
		return err
	}
	var at segment
	for s := range have {
		if s.timeline > at.timeline || s.timeline == at.timeline && s.number > at.number {
			at = s
		}
	}
	for at.number >= oldest.number {
		if !have[at] {
			return fmt.Errorf("segment %s is missing between the oldest backup and the end", at.name())
		}
		if at == oldest {
			return nil
		}
		// Several timelines may have begun in one segment.
		for p, ok := parents[at.timeline]; ok && at.number == p.number; p, ok = parents[at.timeline] {
			at.timeline = p.timeline
		}
		at.number--
	}
	return nil
}
