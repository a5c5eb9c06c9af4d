package stock

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

const sentinelSuffix = "_backup_stop_sentinel.json"

var (
	backupName = regexp.MustCompile(`^base_[0-9A-F]{24}(_D_[0-9A-F]{24})?$`)
	// lastParts are unpacked after all others.
	lastParts = regexp.MustCompile(`^.*?(pg_control|backup_label)\.tar(\..+$|$)`)
)

// sentinel holds the fields that the tool decodes.
type sentinel struct {
	LSN, FinishLSN        *uint64
	PgVersion             int
	SystemIdentifier      *uint64
	FilesMetadataDisabled bool
	Spec                  json.RawMessage

	DeltaLSN                 *uint64
	DeltaFrom, DeltaFullName *string
	DeltaCount               *int
}

func (s sentinel) delta() bool { return s.DeltaFrom != nil }

// Backups lists the names of the backups that have a sentinel, oldest first.
func (a *Archive) Backups(ctx context.Context) ([]string, error) {
	keys, err := a.list(ctx, "basebackups_005/")
	if err != nil {
		return nil, err
	}
	var names []string
	for _, k := range keys {
		name, ok := strings.CutSuffix(k, sentinelSuffix)
		if !ok || strings.Contains(name, "/") {
			continue
		}
		if !backupName.MatchString(name) {
			return nil, fmt.Errorf("the sentinel %s does not have the name of a backup", k)
		}
		names = append(names, name)
	}
	slices.Sort(names)
	return names, nil
}

// checkBackup reads one backup whole and returns its sentinel.
func (a *Archive) checkBackup(ctx context.Context, name string) (sentinel, error) {
	s, err := a.sentinel(ctx, name)
	if err != nil {
		return s, err
	}
	if s.LSN == nil || s.FinishLSN == nil || s.SystemIdentifier == nil || s.PgVersion < 140000 || s.FilesMetadataDisabled == s.delta() {
		return s, fmt.Errorf("the sentinel of %s lacks what backup-fetch and wal-verify need: %+v", name, s)
	}
	if s.delta() && (s.DeltaLSN == nil || s.DeltaFullName == nil || s.DeltaCount == nil || !strings.HasSuffix(name, "_D_"+(*s.DeltaFrom)[5:29])) {
		return s, fmt.Errorf("the sentinel of the delta %s does not tell its whole descent: %+v", name, s)
	}
	var m map[string]any
	b, err := a.read(ctx, "basebackups_005/"+name+"/metadata.json")
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return s, fmt.Errorf("decoding metadata.json of %s: %w", name, err)
	}
	for _, field := range []string{"start_time", "finish_time", "hostname", "data_dir", "pg_version", "start_lsn", "finish_lsn", "is_permanent", "system_identifier"} {
		if _, ok := m[field]; !ok {
			return s, fmt.Errorf("metadata.json of %s lacks %s", name, field)
		}
	}
	return s, a.Fetch(ctx, name, "")
}

// Fetch unpacks a backup into dir as `backup-fetch` does, what it is built on first, or only reads it if dir is "".
func (a *Archive) Fetch(ctx context.Context, name, dir string) error {
	list, err := a.files(ctx, name)
	if err != nil {
		return err
	}
	return a.fetch(ctx, name, fetch{dir: dir, want: list, seen: map[string]bool{}})
}

// fetch is the unpacking of one backup with all that it is built on.
type fetch struct {
	dir  string
	want map[string]listed // the only files that are unpacked; nil for all
	list map[string]listed // of the backup that is being unpacked
	seen map[string]bool
}

func (a *Archive) fetch(ctx context.Context, name string, f fetch) error {
	s, err := a.sentinel(ctx, name)
	if err != nil {
		return err
	}
	if f.list, err = a.files(ctx, name); err != nil {
		return err
	}
	if s.delta() {
		if err := a.fetch(ctx, *s.DeltaFrom, f); err != nil {
			return err
		}
	}
	first, last, err := a.parts(ctx, name)
	if err != nil {
		return err
	}
	here := fetch{dir: f.dir, want: f.want, list: f.list, seen: map[string]bool{}}
	for _, p := range append(first, last...) {
		if err := a.unpack(ctx, "basebackups_005/"+name+"/tar_partitions/"+p, here); err != nil {
			return err
		}
	}
	for seen := range here.seen {
		f.seen[seen] = true
	}
	for file, l := range here.list {
		if !l.IsSkipped && !here.seen[strings.TrimPrefix(file, "/")] || l.IsSkipped && !f.seen[strings.TrimPrefix(file, "/")] {
			return fmt.Errorf("%s lists %s, which is nowhere", name, file)
		}
	}
	for _, must := range []string{"global/pg_control", "backup_label"} {
		if !here.seen[must] {
			return fmt.Errorf("%s is in no part of %s", must, name)
		}
	}
	if !f.seen["PG_VERSION"] {
		return fmt.Errorf("PG_VERSION is in no part of %s", name)
	}
	return nil
}

// parts are the parts of a backup: those that are unpacked side by side, and those that are unpacked after them.
func (a *Archive) parts(ctx context.Context, name string) (first, last []string, err error) {
	parts, err := a.list(ctx, "basebackups_005/"+name+"/tar_partitions/")
	if err != nil {
		return nil, nil, err
	}
	for _, p := range parts {
		switch {
		case strings.Contains(p, "/"):
		case !strings.HasSuffix(p, ".tar.zst"):
			return nil, nil, fmt.Errorf("%s in tar_partitions of %s breaks every fetch: only tar parts may lie there", p, name)
		case lastParts.MatchString(p):
			last = append(last, p)
		default:
			first = append(first, p)
		}
	}
	if len(first) == 0 || len(last) < 2 {
		return nil, nil, fmt.Errorf("%s has parts %v: at least one part, pg_control and backup_label are needed", name, parts)
	}
	return first, last, nil
}

func (a *Archive) unpack(ctx context.Context, key string, f fetch) error {
	body, err := a.decoded(ctx, key)
	if err != nil {
		return err
	}
	defer body.Close()
	counted := &tailKeeper{r: body}
	t := tar.NewReader(counted)
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("reading %s: %w", key, err)
		}
		if err := f.member(h, t, key); err != nil {
			return err
		}
		f.seen[strings.TrimPrefix(h.Name, "/")] = true
	}
	if _, err := io.Copy(io.Discard, counted); err != nil {
		return fmt.Errorf("reading the end of %s: %w", key, err)
	}
	if !counted.endsWithZeros(1024) {
		return fmt.Errorf("%s has no end-of-archive blocks, so a cut would not be noticed", key)
	}
	return nil
}

// member unpacks one member as the list of files says.
func (f fetch) member(h *tar.Header, r io.Reader, key string) error {
	always := h.Name == "backup_label" || h.Name == "tablespace_map" || h.Name == "/global/pg_control"
	dir := f.dir
	if _, wanted := f.want[h.Name]; f.want != nil && !wanted && !always {
		dir = ""
	}
	if f.list[h.Name].IsIncremented {
		return patch(filepath.Join(dir, filepath.FromSlash(filepath.Clean(h.Name))), r, h.Size, dir != "")
	}
	return member(h, r, key, dir)
}

func member(h *tar.Header, r io.Reader, key, dir string) error {
	bare := h.Name == "backup_label" || h.Name == "tablespace_map"
	if !bare && !strings.HasPrefix(h.Name, "/") {
		return fmt.Errorf("%s holds %q: names begin with a slash", key, h.Name)
	}
	path := filepath.Join(dir, filepath.FromSlash(filepath.Clean("/"+h.Name)))
	switch h.Typeflag {
	case tar.TypeDir:
		if dir == "" {
			return nil
		}
		return os.MkdirAll(path, 0o700)
	case tar.TypeReg:
		if dir == "" {
			_, err := io.Copy(io.Discard, r)
			return err
		}
		return writeFile(path, r, os.FileMode(h.Mode).Perm())
	}
	return fmt.Errorf("%s holds %q of type %q: links are restored wrongly", key, h.Name, h.Typeflag)
}

func writeFile(path string, r io.Reader, mode os.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, f.Close())
}

// tailKeeper remembers whether what it read ends with zeros.
type tailKeeper struct {
	r     io.Reader
	zeros int
}

func (k *tailKeeper) Read(p []byte) (int, error) {
	n, err := k.r.Read(p)
	for _, c := range p[:n] {
		if c == 0 {
			k.zeros++
		} else {
			k.zeros = 0
		}
	}
	return n, err
}

func (k *tailKeeper) endsWithZeros(n int) bool { return k.zeros >= n }
