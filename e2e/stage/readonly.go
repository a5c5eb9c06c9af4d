package stage

import (
	"os/exec"
)

// ReadOnly makes a command see dir as a volume that is mounted read-only, as the sidecar sees the data directory of a
// pod. It takes util-linux, and user namespaces that anybody may make.
func ReadOnly(c *exec.Cmd, dir string) {
	const script = `mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"`
	wrap := []string{"unshare", "--user", "--map-current-user", "--keep-caps", "--mount", "sh", "-c", script, dir}
	c.Args = append(append(wrap, c.Path), c.Args[1:]...)
	c.Path = "/usr/bin/unshare"
}
