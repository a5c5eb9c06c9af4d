package stock

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
)

// listed is what files_metadata.json says of a file.
type listed struct{ IsIncremented, IsSkipped bool }

func (a *Archive) sentinel(ctx context.Context, name string) (sentinel, error) {
	var s sentinel
	b, err := a.read(ctx, "basebackups_005/"+name+sentinelSuffix)
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(b, &s); err != nil {
		return s, fmt.Errorf("decoding the sentinel of %s: %w", name, err)
	}
	return s, nil
}

// files reads the list of a backup's files; nil if its sentinel says that there is none.
func (a *Archive) files(ctx context.Context, name string) (map[string]listed, error) {
	s, err := a.sentinel(ctx, name)
	if err != nil || s.FilesMetadataDisabled {
		return nil, err
	}
	b, err := a.read(ctx, "basebackups_005/"+name+"/files_metadata.json")
	if err != nil {
		return nil, err
	}
	var m struct{ Files map[string]listed }
	if err := json.Unmarshal(b, &m); err != nil {
		return nil, fmt.Errorf("decoding files_metadata.json of %s: %w", name, err)
	}
	if len(m.Files) == 0 {
		return nil, fmt.Errorf("files_metadata.json of %s lists nothing", name)
	}
	return m.Files, nil
}

// page is the only size of pages that increments know.
const page = 8192

// patch puts the pages of an increment into a file, or only reads them.
func patch(path string, r io.Reader, size int64, apply bool) error {
	var head struct {
		Magic  [4]byte
		Size   uint64
		Blocks uint32
	}
	if err := binary.Read(r, binary.LittleEndian, &head); err != nil {
		return fmt.Errorf("reading the increment of %s: %w", path, err)
	}
	if string(head.Magic[:]) != "wi1U" || size != 16+int64(head.Blocks)*(4+page) {
		return fmt.Errorf("the increment of %s has %d bytes and the header %v", path, size, head)
	}
	blocks := make([]uint32, head.Blocks)
	if err := binary.Read(r, binary.LittleEndian, blocks); err != nil {
		return fmt.Errorf("reading the increment of %s: %w", path, err)
	}
	if !apply {
		_, err := io.Copy(io.Discard, r)
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	err = f.Truncate(int64(head.Size))
	for _, n := range blocks {
		if err == nil {
			_, err = io.CopyN(io.NewOffsetWriter(f, int64(n)*page), r, page)
		}
	}
	return errors.Join(err, f.Close())
}
