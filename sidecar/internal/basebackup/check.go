package basebackup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/wal"
)

// CheckPages checks the checksums of all pages in the data directory of a server that does not run: there every page is
// judged by its checksum, however new it is. Enabled is false in the verdict where the server keeps none; then nothing was
// checked, and nothing is known.
func CheckPages(ctx context.Context, pgdata string, log *slog.Logger) (archive.ChecksumVerdict, error) {
	c, err := wal.ReadControl(pgdata)
	if err != nil {
		return archive.ChecksumVerdict{}, fmt.Errorf("checking pages: %w", err)
	}
	if c.DataChecksumVersion == 0 {
		return archive.ChecksumVerdict{}, nil
	}
	major, err := majorOf(pgdata)
	if err != nil {
		return archive.ChecksumVerdict{}, fmt.Errorf("checking pages: %w", err)
	}
	inv, err := scan(ctx, pgdata, Facts{VersionNum: major * 10000, CatalogVersion: c.CatalogVersion}, log)
	defer inv.close()
	if err != nil {
		return archive.ChecksumVerdict{}, fmt.Errorf("checking pages: %w", err)
	}
	v := &verifier{pageSize: c.BlockSize, relSeg: c.RelSegSize, start: archive.MaxLSN, log: log}
	chunk := make([]byte, 32*c.BlockSize)
	for _, e := range inv.entries {
		if e.dir || e.segment == noRelation {
			continue
		}
		if err := v.file(ctx, e, chunk); err != nil {
			return v.verdict(), fmt.Errorf("checking the pages of %s: %w", e.name(), err)
		}
	}
	return v.verdict(), nil
}

// file checks one file to its end.
func (v *verifier) file(ctx context.Context, e entry, chunk []byte) (err error) {
	f, err := e.tree.root.Open(e.rel)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	for at := int64(0); ; {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := io.ReadFull(f, chunk)
		if _, cerr := v.check(ctx, e, f, chunk[:n], at); cerr != nil {
			return cerr
		}
		at += int64(n)
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return nil
		case err != nil:
			return err
		}
	}
}

// majorOf reads the major version of a data directory.
func majorOf(pgdata string) (int, error) {
	b, err := os.ReadFile(filepath.Join(pgdata, "PG_VERSION"))
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(b)))
}
