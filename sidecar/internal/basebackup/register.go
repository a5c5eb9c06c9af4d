package basebackup

import (
	"io/fs"
	"os"
	"sync"
	"syscall"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"outrider.dev/sidecar/internal/archive"
)

// register is what an attempt has found out about the files of its snapshot. It is safe for concurrent use.
type register struct {
	mu        sync.Mutex
	files     map[string]archive.FileState
	meta      archive.FilesMetadata // nil in a full snapshot
	delta     archive.Delta         // its counts
	inherited int64                 // pages of unchanged files
	unlisted  bool                  // there are files that no list can hold
}

func newRegister(delta bool) *register {
	r := &register{files: map[string]archive.FileState{}}
	if delta {
		r.meta = archive.FilesMetadata{}
	}
	return r
}

// dir notes a directory that is in the snapshot.
func (r *register) dir(member string, at time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.member(member, archive.FileMetadata{MTime: at})
}

// stored notes a file that is in the snapshot, whole or, with inc, as pages.
func (r *register) stored(s archive.FileState, inc *increment) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.file(s, archive.FileMetadata{Incremented: inc != nil})
	if inc == nil {
		r.delta.WholeFiles++
		r.delta.ChangedBytes += s.Size
		return
	}
	r.delta.PatchedFiles++
	r.delta.ChangedPages += int64(len(inc.blocks))
	r.delta.ChangedBytes += int64(len(inc.blocks)) * incrementPage
}

// skipped notes a file that the parent has.
func (r *register) skipped(s archive.FileState, pages int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.file(s, archive.FileMetadata{Skipped: true})
	r.delta.UnchangedFiles++
	r.inherited += pages
}

func (r *register) file(s archive.FileState, m archive.FileMetadata) {
	if len(r.files) >= maxListed {
		r.unlisted = true
		return
	}
	r.files[s.Name] = s
	m.MTime = time.Unix(0, s.MTime)
	r.member("/"+s.Name, m)
}

func (r *register) member(name string, m archive.FileMetadata) {
	if !utf8.ValidString(name) {
		r.unlisted = true // JSON has no way to write it
	}
	if r.meta != nil {
		m.MTime = m.MTime.UTC()
		r.meta[name] = m
	}
}

// stateOf is what the file system says of a file. Without a Stat_t, as on no system that is supported, it is the state
// of no file.
func stateOf(name string, info fs.FileInfo) archive.FileState {
	s := archive.FileState{Name: name, Size: info.Size(), MTime: info.ModTime().UnixNano()}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		s.CTime = st.Ctim.Nano()
		s.Device, s.Inode = uint64(st.Dev), st.Ino //nolint:unconvert // of another type on other systems
	}
	return s
}

// bornAt is when a file's inode was made, in nanoseconds; 0 if that is not told.
func bornAt(f *os.File) int64 {
	var x unix.Statx_t
	err := unix.Statx(int(f.Fd()), "", unix.AT_EMPTY_PATH, unix.STATX_BTIME, &x)
	if err != nil || x.Mask&unix.STATX_BTIME == 0 {
		return 0
	}
	return x.Btime.Sec*int64(time.Second) + int64(x.Btime.Nsec)
}
