package archive

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"
)

// Object is what a manifest says of an object beside the parts.
type Object struct {
	Size  int64  `json:"size"`
	CRC64 uint64 `json:"crc64,string"` // CRC-64/XZ of the stored object
}

// FileState is what the file system said of a file just before a snapshot read it. Times are nanoseconds since 1970.
type FileState struct {
	Name   string `json:"n"` // path in the data directory
	Size   int64  `json:"s"`
	MTime  int64  `json:"m"`
	CTime  int64  `json:"c"`
	Device uint64 `json:"d"`
	Inode  uint64 `json:"i"`
	Born   int64  `json:"b,omitempty"` // when the inode was made; 0 where the file system does not tell
	// Visible has a bit for each page of a relation's main fork that was marked as all-visible. Absent where page
	// checksums are on: there setting the mark changes the page's LSN.
	Visible []byte `json:"v,omitempty"`
}

// FileList is basebackups_005/<backup>/outrider-files.json.zst: the state of every file of a snapshot, from which a
// later one tells what has changed.
type FileList struct {
	// Settled is a time by the clock of the file system, before the snapshot began: a file whose last change is older
	// cannot have been changed again with the same time after it was read.
	Settled time.Time
	// Databases tells the databases apart that had the same object id one after the other: by that id, the transaction
	// that wrote the row of pg_database.
	Databases map[uint32]string
	Files     map[string]FileState // by name
}

// fileListHead is the first line of the list; each further line is a FileState.
type fileListHead struct {
	Format    int               `json:"format"`
	Snapshot  string            `json:"snapshot"`
	Settled   time.Time         `json:"settled"`
	Databases map[uint32]string `json:"databases,omitempty"`
	Files     int               `json:"files"`
}

func fileListKey(backup string) string {
	return backupsDir + backup + "/outrider-files.json" + Extension
}

func filesMetadataKey(backup string) string { return backupsDir + backup + "/files_metadata.json" }

// PutFileList stores the list of a snapshot's files.
func (a *Archive) PutFileList(ctx context.Context, backup string, l FileList) (Object, error) {
	lines := &lines{}
	defer lines.close()
	lines.produce = func(yield func([]byte) bool) {
		head := fileListHead{Format: Format, Snapshot: backup, Settled: l.Settled.UTC(), Databases: l.Databases, Files: len(l.Files)}
		if !lines.encode(head, yield) {
			return
		}
		for _, f := range l.Files {
			if !lines.encode(f, yield) {
				return
			}
		}
	}
	stream := a.codec.compressing(lines)
	o, err := a.bucket.Upload(ctx, fileListKey(backup), stream, PutOptions{})
	err = errors.Join(err, stream.Close())
	return Object{Size: o.Size, CRC64: o.CRC64}, wrap("storing", fileListKey(backup), err)
}

// FileList reads the list of a snapshot's files. One that is missing, is not what the manifest says, or makes no sense
// is ErrCorrupt.
func (a *Archive) FileList(ctx context.Context, backup string, want Object) (FileList, error) {
	key := fileListKey(backup)
	l := FileList{Files: map[string]FileState{}}
	body, err := a.openKnown(ctx, key, want)
	if err != nil {
		return l, err
	}
	raw, err := a.codec.decompressing(key, body)
	if err != nil {
		return l, err
	}
	err = l.decode(backup, raw)
	if err != nil {
		err = fmt.Errorf("reading %s: %w", key, err)
	}
	return l, errors.Join(err, raw.Close())
}

func (l *FileList) decode(backup string, raw io.Reader) error {
	d := json.NewDecoder(raw)
	var head fileListHead
	if err := d.Decode(&head); err != nil {
		return notWhole(err)
	}
	if head.Format != Format || head.Snapshot != backup {
		return fmt.Errorf("%w: it is of format %d and of snapshot %q", ErrCorrupt, head.Format, head.Snapshot)
	}
	l.Settled, l.Databases = head.Settled, head.Databases
	for range head.Files {
		var f FileState
		if err := d.Decode(&f); err != nil {
			return notWhole(err)
		}
		l.Files[f.Name] = f
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) || len(l.Files) != head.Files {
		return fmt.Errorf("%w: it does not hold the %d files that it says: %v", ErrCorrupt, head.Files, err) //nolint:errorlint // any error
	}
	return nil
}

// notWhole tells a stream that makes no sense from one that could not be read.
func notWhole(err error) error {
	var syntax *json.SyntaxError
	var typ *json.UnmarshalTypeError
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, &syntax) || errors.As(err, &typ) {
		return fmt.Errorf("%w: %v", ErrCorrupt, err) //nolint:errorlint // io.EOF here is no end of anything
	}
	return err
}

// FileMetadata is what WAL-G's files_metadata.json says of one member.
type FileMetadata struct {
	Incremented bool      `json:"IsIncremented"` // the member holds only pages that changed
	Skipped     bool      `json:"IsSkipped"`     // there is no member: the file is as it was in the parent
	MTime       time.Time `json:"MTime"`
}

// FilesMetadata is WAL-G's files_metadata.json: every file and directory of a snapshot by the name of its member. What
// it does not name a restore leaves out.
type FilesMetadata map[string]FileMetadata

// PutFilesMetadata stores the list that a delta cannot be restored without.
func (a *Archive) PutFilesMetadata(ctx context.Context, backup string, m FilesMetadata) (Object, error) {
	lines := &lines{}
	defer lines.close()
	lines.produce = func(yield func([]byte) bool) {
		glue := `{"Files":{`
		for name, f := range m {
			key, err := json.Marshal(name)
			if err != nil {
				lines.err = err
				return
			}
			if !yield([]byte(glue)) || !yield(key) || !yield([]byte(":")) || !lines.encode(f, yield) {
				return
			}
			glue = ","
		}
		if len(m) == 0 && !yield([]byte(glue)) {
			return
		}
		yield([]byte("}}"))
	}
	o, err := a.bucket.Upload(ctx, filesMetadataKey(backup), lines, PutOptions{})
	return Object{Size: o.Size, CRC64: o.CRC64}, wrap("storing", filesMetadataKey(backup), err)
}

// FilesMetadata reads files_metadata.json of a backup into doc; fs.ErrNotExist if there is none. want is what the
// manifest says of it, nil if there is no manifest.
func (a *Archive) FilesMetadata(ctx context.Context, backup string, want *Object, doc any) error {
	key := filesMetadataKey(backup)
	if want == nil {
		_, err := a.readJSON(ctx, key, doc)
		return err
	}
	body, err := a.openKnown(ctx, key, *want)
	if err != nil {
		return err
	}
	if err := json.NewDecoder(body).Decode(doc); err != nil {
		return errors.Join(fmt.Errorf("reading %s: %w", key, notWhole(err)), body.Close())
	}
	_, err = io.Copy(io.Discard, body) // the checksum is compared at the end
	return wrap("reading", key, errors.Join(err, body.Close()))
}

// openKnown opens an object of which the manifest tells size and CRC64.
func (a *Archive) openKnown(ctx context.Context, key string, want Object) (io.ReadCloser, error) {
	body, o, err := a.bucket.Open(ctx, key, Range{})
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("reading %s: %w: the object is missing: %w", key, ErrCorrupt, err)
	}
	if err != nil {
		return nil, wrap("reading", key, err)
	}
	if o.CRC64 != want.CRC64 || o.Size != want.Size {
		return nil, errors.Join(fmt.Errorf("reading %s: %w: %d bytes with CRC64 %d, the manifest says %d with %d",
			key, ErrCorrupt, o.Size, o.CRC64, want.Size, want.CRC64), body.Close())
	}
	return body, nil
}
