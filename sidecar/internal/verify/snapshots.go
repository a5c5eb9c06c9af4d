package verify

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"path"
	"slices"

	"outrider.dev/sidecar/internal/archive"
)

// checkSnapshots compares manifests with what lies in the store, and returns the parts whose content is to be read.
func (v *verifier) checkSnapshots(ctx context.Context) ([]task, error) {
	var work []task
	for _, b := range v.all {
		stored, err := v.w.Parts(ctx, b.Name)
		if err != nil {
			return nil, err
		}
		s := Snapshot{Name: b.Name, Timeline: b.Timeline(), Parts: len(stored), Checksums: PagesOf(b)}
		for _, p := range stored {
			s.Bytes += p.Size
		}
		v.report.Snapshots = append(v.report.Snapshots, s)
		if s.Checksums == PagesBad {
			v.notef(BadPages, b.Name, "%d or more pages were damaged when it was taken, the first is %s: the database itself has to be repaired",
				len(b.Manifest.Checksums.Bad), b.Manifest.Checksums.Bad[0])
		}
		if parents, whole := archive.Parents(b, v.all); !whole {
			last := b
			if n := len(parents); n > 0 {
				last = parents[n-1]
			}
			v.notef(ParentMissing, b.Name, "%s, which it is built on, is not there: it cannot be restored", *last.Sentinel.DeltaFrom)
		}
		if err := v.checkFilesMetadata(ctx, b); err != nil {
			return nil, err
		}
		for _, p := range v.partsToRead(b, stored) {
			work = append(work, v.partTask(b.Name, p))
		}
	}
	return work, nil
}

// checkFilesMetadata reads the list without which a delta cannot be restored.
func (v *verifier) checkFilesMetadata(ctx context.Context, b archive.Backup) error {
	if b.Manifest == nil || b.Manifest.FilesMetadata == nil {
		return nil
	}
	var doc struct{ Files map[string]struct{} }
	err := v.w.FilesMetadata(ctx, b.Name, b.Manifest.FilesMetadata, &doc)
	if err != nil && v.damaged(b.Name+"/files_metadata.json", err) {
		return nil
	}
	return err
}

// partsToRead compares the parts of a snapshot with its manifest. Without one, what is there is all there is to go by.
func (v *verifier) partsToRead(b archive.Backup, stored []archive.Part) []archive.Part {
	if b.Manifest == nil {
		return stored
	}
	var good []archive.Part
	for _, p := range b.Manifest.Parts {
		object := b.Name + "/tar_partitions/" + p.Name
		i := slices.IndexFunc(stored, func(x archive.Part) bool { return x.Name == p.Name })
		switch {
		case i < 0:
			v.note(PartMissing, object, "the manifest names it and it is not there: the snapshot cannot be restored")
		case stored[i].Size != p.Size:
			v.notef(PartSize, object, "it has %d bytes, the manifest says %d: the snapshot cannot be restored", stored[i].Size, p.Size)
		default:
			good = append(good, p)
		}
	}
	for _, x := range stored {
		if !slices.ContainsFunc(b.Manifest.Parts, func(p archive.Part) bool { return p.Name == x.Name }) {
			v.note(PartForeign, b.Name+"/tar_partitions/"+x.Name, "the manifest does not know it: stock WAL-G would unpack it over the snapshot, or stumble over it; delete it")
		}
	}
	return good
}

// partTask reads a part whole: its bytes against the CRC64 of the manifest, and its tar to the end.
func (v *verifier) partTask(backup string, p archive.Part) task {
	size := p.RawSize
	if size == 0 {
		size = p.Size
	}
	return task{size: size, read: func(ctx context.Context) (int64, error) {
		object := path.Join(backup, "tar_partitions", p.Name)
		body, err := v.w.OpenPart(ctx, backup, p)
		if err != nil {
			return 0, v.judge(PartDamaged, object, err)
		}
		raw := &watched{Reader: body}
		err = walkTar(raw)
		if raw.err == nil && err != nil {
			v.notef(PartDamaged, object, "it is no whole tar archive: %v", err)
			err = nil
		}
		if err = errors.Join(err, body.Close()); err != nil {
			return raw.n, v.judge(PartDamaged, object, err)
		}
		if p.RawSize != 0 && raw.n != p.RawSize {
			v.notef(PartDamaged, object, "its tar has %d bytes, the manifest says %d", raw.n, p.RawSize)
		}
		return raw.n, nil
	}}
}

// walkTar reads an archive and what follows it to the end.
func walkTar(r io.Reader) error {
	t := tar.NewReader(r)
	for {
		_, err := t.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if _, err := io.Copy(io.Discard, t); err != nil {
			return err
		}
	}
	_, err := io.Copy(io.Discard, r)
	return err
}

// watched counts and remembers the error of a stream, so that it can be told from one about its content.
type watched struct {
	io.Reader
	n   int64
	err error
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.Reader.Read(p)
	w.n += int64(n)
	if err != nil && !errors.Is(err, io.EOF) {
		w.err = err
	}
	return n, err
}
