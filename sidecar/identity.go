package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"outrider.dev/sidecar/internal/archive"
)

// identity is who would write to this data directory.
func (a *app) identity(dir string) (archive.Identity, error) {
	return identify(func(name string) string { v, _ := a.env(name); return v }, dir, version())
}

// identify says who this writer is. In a pod its uid is the instance; elsewhere it is made from the machine, its boot
// and the data directory, so that a restarted sidecar continues its epoch and a replaced directory does not.
func identify(lookup func(string) string, pgdata, version string) (archive.Identity, error) {
	host, err := os.Hostname()
	if err != nil {
		return archive.Identity{}, fmt.Errorf("asking for the name of this machine: %w", err)
	}
	id := archive.Identity{
		Instance: lookup("OUTRIDER_POD_UID"), Pod: lookup("OUTRIDER_POD"), Namespace: lookup("OUTRIDER_NAMESPACE"),
		Node: lookup("OUTRIDER_NODE"), Kubernetes: lookup("OUTRIDER_KUBERNETES_CLUSTER"), Host: host, Version: version,
	}
	if own := lookup("OUTRIDER_INSTANCE"); own != "" {
		id.Instance = own
	}
	if id.Instance != "" {
		return id, nil
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return id, fmt.Errorf("reading the id of this boot, to tell this writer from others: %w: set OUTRIDER_INSTANCE instead", err)
	}
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, pgdata, 0, unix.STATX_INO|unix.STATX_BTIME, &st); err != nil {
		return id, fmt.Errorf("looking at the data directory %s: %w", pgdata, err)
	}
	h := sha256.Sum256(fmt.Appendf(nil, "%s %s %d:%d %d %d.%09d", host, strings.TrimSpace(string(boot)),
		st.Dev_major, st.Dev_minor, st.Ino, st.Btime.Sec, st.Btime.Nsec))
	id.Instance = "dir-" + hex.EncodeToString(h[:8])
	return id, nil
}
