package basebackup

import "time"

// Load is what a restore would have to move.
type Load struct {
	Raw           int64 // bytes of the last snapshot before compression
	WAL           int64 // bytes of WAL since its start
	SharedBuffers int64 // bytes; bounds what the checkpoint at the end has to write
}

// Rates are bytes per second, measured in this place where possible. One that is 0 is the default.
type Rates struct {
	Unpack int64 // fetching and unpacking a snapshot, before compression
	Sync   int64 // the server's fsync of the whole directory before it replays
	Replay int64 // WAL
	Write  int64 // the checkpoint at the end of recovery
	// Overhead is what does not depend on size: starting, listing the archive, taking the epoch. 0 is the default.
	Overhead time.Duration
}

// Modest values for a small node with a network disk, so that a prediction without measurements errs on the long side.
const (
	defaultUnpack   = 150 << 20
	defaultSync     = 600 << 20
	defaultReplay   = 60 << 20
	defaultWrite    = 120 << 20
	defaultOverhead = 15 * time.Second
)

// Predict is how long a restore would take from its start to the first write: overhead, the snapshot fetched and
// unpacked, its files synced, WAL replayed (it is fetched meanwhile), and the checkpoint at the end of recovery, which
// writes what replay left dirty: no more than shared_buffers hold, and no more than was replayed. The time until the
// pod is scheduled elsewhere is not in it.
func (l Load) Predict(r Rates) time.Duration {
	overhead := r.Overhead
	if overhead <= 0 {
		overhead = defaultOverhead
	}
	dirty := l.WAL
	if l.SharedBuffers > 0 {
		dirty = min(dirty, l.SharedBuffers)
	}
	return overhead + spend(l.Raw, r.Unpack, defaultUnpack) + spend(l.Raw, r.Sync, defaultSync) +
		spend(l.WAL, r.Replay, defaultReplay) + spend(dirty, r.Write, defaultWrite)
}

func spend(bytes, perSecond, otherwise int64) time.Duration {
	if perSecond <= 0 {
		perSecond = otherwise
	}
	return time.Duration(float64(bytes) / float64(perSecond) * float64(time.Second))
}
