package basebackup

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/wal"
)

// The parts that stock WAL-G unpacks after all others, by their names.
const (
	controlPart = "pg_control"
	labelPart   = "backup_label"
	controlFile = "global/pg_control"
)

// uploadControl stores pg_control as the server last wrote it.
func (a *attempt) uploadControl(ctx context.Context) error {
	content, info, err := a.readControl(ctx)
	if err != nil {
		return err
	}
	h := header(controlFile, info)
	h.Typeflag, h.Size = tar.TypeReg, int64(len(content))
	return a.uploadSmall(ctx, controlPart, member{h, content})
}

// readControl reads pg_control until its checksum is right: the server overwrites it in place.
func (a *attempt) readControl(ctx context.Context) ([]byte, fs.FileInfo, error) {
	path := wal.ControlPath(a.t.cfg.PGDATA)
	var last error
	for range 10 {
		content, err := os.ReadFile(path)
		if err != nil {
			return nil, nil, readable(fmt.Errorf("reading the control file: %w", err))
		}
		c, err := wal.ParseControl(content)
		if err == nil && c.SystemIdentifier != a.facts.SystemIdentifier {
			return nil, nil, fmt.Errorf("%s has become that of system %d", path, c.SystemIdentifier)
		}
		if err == nil {
			info, err := os.Stat(path)
			return content, info, err
		}
		last = err
		select {
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
	return nil, nil, fmt.Errorf("reading %s: %w", path, last)
}

// uploadLabels stores what makes the server recover from the start of the snapshot, under names without a slash and
// with the permissions that WAL-G gives them.
func (a *attempt) uploadLabels(ctx context.Context, end End) error {
	if end.Label == "" {
		return errors.New("the server returned no backup label")
	}
	return a.uploadSmall(ctx, labelPart, label("backup_label", end.Label), label("tablespace_map", end.TablespaceMap))
}

type member struct {
	header  *tar.Header
	content []byte
}

func label(name, content string) member {
	return member{&tar.Header{
		Typeflag: tar.TypeReg, Name: name, Mode: 0o600, Size: int64(len(content)), ModTime: time.Unix(0, 0),
	}, []byte(content)}
}

func (a *attempt) uploadSmall(ctx context.Context, name string, members ...member) error {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, m := range members {
		if err := w.WriteHeader(m.header); err != nil {
			return fmt.Errorf("describing %s in a tar: %w", m.header.Name, err)
		}
		if _, err := w.Write(m.content); err != nil {
			return fmt.Errorf("writing %s into a tar: %w", m.header.Name, err)
		}
	}
	if err := w.Close(); err != nil {
		return fmt.Errorf("ending the tar %s: %w", name, err)
	}
	stored, err := a.t.cfg.Archive.UploadPart(ctx, a.name, name, &b)
	if err != nil {
		return err
	}
	stored.Files = len(members)
	a.add(stored)
	return nil
}

// uploadLists stores what the next snapshot tells changes from, and what this one cannot be restored without if it is a
// delta.
func (a *attempt) uploadLists(ctx context.Context) error {
	lists, r := a.t.cfg.Lists, a.reading.register
	if lists == nil {
		return nil
	}
	if r.unlisted {
		if a.base != nil {
			return fmt.Errorf("%w: there are more than %d files, or one whose name is no UTF-8", errNeedsFull, maxListed)
		}
		a.t.cfg.Log.Warn("no delta can be built on the snapshot: there are too many files, or one whose name is no UTF-8")
		return nil
	}
	list, err := lists.PutFileList(ctx, a.name, archive.FileList{Settled: a.settled, Databases: a.facts.Databases, Files: r.files})
	if err != nil {
		return err
	}
	a.fileList = &list
	if a.base == nil {
		return nil
	}
	meta, err := lists.PutFilesMetadata(ctx, a.name, r.meta)
	a.filesMetadata = &meta
	return err
}
