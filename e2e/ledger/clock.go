package ledger

import (
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Instant is one moment on the machine's monotonic clock and, for people, on the wall clock. Two instants can be
// subtracted when they were taken in the same boot, by whatever process.
type Instant struct {
	// Monotonic is CLOCK_MONOTONIC in nanoseconds: the same clock for all processes of one machine, never set back.
	Monotonic int64 `json:"monotonic_ns"`
	// Wall is the time of day, to be shown and never calculated with.
	Wall time.Time `json:"wall"`
	// Boot is the kernel's boot id: the monotonic clock starts anew with each boot.
	Boot string `json:"boot,omitempty"`
}

// Now reads both clocks. It is safe for concurrent use.
func Now() (Instant, error) {
	boot, err := bootID()
	if err != nil {
		return Instant{}, err
	}
	mono, err := monotonic()
	if err != nil {
		return Instant{}, err
	}
	return Instant{Monotonic: mono, Wall: time.Now().UTC(), Boot: boot}, nil
}

// IsZero says that the instant was never set.
func (i Instant) IsZero() bool { return i == Instant{} }

// Since is the time from earlier to i; ok is false when the two were not taken in the same boot and therefore cannot
// be compared. It is negative when i came first.
func (i Instant) Since(earlier Instant) (d time.Duration, ok bool) {
	if i.Boot == "" || i.Boot != earlier.Boot {
		return 0, false
	}
	return time.Duration(i.Monotonic - earlier.Monotonic), true
}

// monotonic reads CLOCK_MONOTONIC (clock_gettime(2)). Go's own monotonic reading is private to the process and would
// not survive being written to a file.
func monotonic() (int64, error) {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return 0, fmt.Errorf("reading CLOCK_MONOTONIC: %w", err)
	}
	return ts.Nano(), nil
}

// bootID is random(4)'s boot_id: it changes with every boot.
func bootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("reading the kernel's boot id: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}
