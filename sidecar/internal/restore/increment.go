package restore

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"io/fs"

	"outrider.dev/sidecar/internal/archive"
)

// filesMetadata is what WAL-G's files_metadata.json of a snapshot says about its members, by their cleaned names.
type filesMetadata struct {
	files map[string]fileMetadata
	parts map[string]bool // names of the parts, where they are told
}

type fileMetadata struct {
	Incremented bool // the member holds only the pages that changed
	Skipped     bool // there is no member: the file is as it was in the snapshot before
}

// readFilesMetadata reads the file of a link; fs.ErrNotExist if there is none.
func readFilesMetadata(ctx context.Context, src *archive.Archive, l Link) (*filesMetadata, error) {
	var doc struct {
		Files map[string]struct {
			IsIncremented, IsSkipped bool
		}
		TarFileSets map[string]any
	}
	if l.NoMetadata {
		return nil, fmt.Errorf("snapshot %s has no list of its files: %w", l.Name, fs.ErrNotExist)
	}
	if err := src.FilesMetadata(ctx, l.Name, l.FilesMetadata, &doc); err != nil {
		return nil, err
	}
	m := &filesMetadata{files: make(map[string]fileMetadata, len(doc.Files)), parts: map[string]bool{}}
	for name, f := range doc.Files {
		clean, err := cleanName(name)
		if err != nil {
			return nil, err
		}
		m.files[clean] = fileMetadata{Incremented: f.IsIncremented, Skipped: f.IsSkipped}
	}
	for name := range doc.TarFileSets {
		m.parts[name] = true
	}
	return m, nil
}

func (m *filesMetadata) has(name string) bool {
	_, ok := m.files[name]
	return ok || isHeld(name)
}

func (m *filesMetadata) increment(name string) bool { return m != nil && m.files[name].Incremented }

// complete finds out whether parts or members are missing that the snapshot once had.
func (m *filesMetadata) complete(l Link, seen map[string]bool) error {
	if m == nil {
		return nil
	}
	there := map[string]bool{}
	for _, p := range l.Parts {
		there[p.Name] = true
	}
	for name := range m.parts {
		if !there[name] {
			return fmt.Errorf("snapshot %s: %w: part %s is missing: use another snapshot", l.Name, archive.ErrCorrupt, name)
		}
	}
	for name, f := range m.files {
		if !f.Skipped && !seen[name] {
			return fmt.Errorf("snapshot %s: %w: %s is in none of its parts: use another snapshot", l.Name, archive.ErrCorrupt, name)
		}
	}
	return nil
}

// patchable is a file that an increment changes.
type patchable interface {
	io.WriterAt
	Truncate(size int64) error
}

// The layout of an increment of WAL-G's: magic, size of the file, number of pages, their numbers in ascending order,
// the pages; little endian (utility.go and incremental_page_file_reader.go of WAL-G).
const (
	incrementMagic = "wi1\x55"
	incrementHead  = 16
	dataPage       = 8192
	maxPages       = 1 << 17 // of a file of 1 GiB
)

// applyIncrement puts the pages of an increment of size bytes into the file and gives it its new size. buf is scratch
// space of at least a page.
func applyIncrement(f patchable, r io.Reader, size int64, buf []byte) error {
	var head [incrementHead]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return badIncrement("its header is cut: %v", err)
	}
	fileSize := int64(binary.LittleEndian.Uint64(head[4:]))
	n := int64(binary.LittleEndian.Uint32(head[12:]))
	if string(head[:4]) != incrementMagic || n > maxPages || size != incrementHead+n*(4+dataPage) ||
		fileSize < 0 || fileSize%dataPage != 0 || fileSize > maxPages*dataPage {
		return badIncrement("its header says %d pages of a file of %d bytes in a member of %d", n, fileSize, size)
	}
	numbers := make([]byte, 4*n)
	if _, err := io.ReadFull(r, numbers); err != nil {
		return badIncrement("its page numbers are cut: %v", err)
	}
	if err := f.Truncate(fileSize); err != nil {
		return err
	}
	page := buf[:dataPage]
	for i := range n {
		at := int64(binary.LittleEndian.Uint32(numbers[4*i:])) * dataPage
		if at >= fileSize {
			return badIncrement("page %d is past the end of the file", at/dataPage)
		}
		if _, err := io.ReadFull(r, page); err != nil {
			return err
		}
		if _, err := f.WriteAt(page, at); err != nil {
			return err
		}
	}
	return nil
}

func badIncrement(format string, args ...any) error {
	return fmt.Errorf("%w: as an increment it is wrong: %s", archive.ErrCorrupt, fmt.Sprintf(format, args...))
}
