package hand

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/rand"
)

// file is a file of a volume.
type file struct {
	content string
	mode    os.FileMode
}

// writeRoot makes the directory that a container's process runs in: the program, its volumes, and /tmp.
func (p *pod) writeRoot(ctx context.Context, c *container) error {
	for _, dir := range []string{"etc", "tmp"} {
		if err := os.MkdirAll(filepath.Join(c.root, dir), 0o755); err != nil {
			return err
		}
	}
	if err := os.Chmod(filepath.Join(c.root, "tmp"), 0o777); err != nil {
		return err
	}
	hosts := filepath.Join(c.root, "etc", "hosts")
	object, _ := p.state()
	if err := os.WriteFile(hosts, []byte("127.0.0.1 localhost\n"+p.address.String()+" "+object.Name+"\n"), 0o644); err != nil {
		return err
	}
	if err := place(c.program, filepath.Join(c.root, filepath.Base(c.program))); err != nil {
		return err
	}
	return p.writeVolumes(ctx, c)
}

// place makes a program appear at a path, as a link if both are on one file system.
func place(program, path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if os.Link(program, path) == nil {
		return nil
	}
	from, err := os.Open(program)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(to, from)
	return errors.Join(err, to.Close())
}

// writeVolumes writes the content of the container's volumes where they are mounted, or changes it to what it is now.
func (p *pod) writeVolumes(ctx context.Context, c *container) error {
	object, _ := p.state()
	for i := range c.spec.VolumeMounts {
		mount := &c.spec.VolumeMounts[i]
		at := slices.IndexFunc(object.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == mount.Name })
		if at < 0 {
			return fmt.Errorf("container %s mounts volume %s, which the pod does not have", c.spec.Name, mount.Name)
		}
		if mount.SubPath != "" {
			return fmt.Errorf("container %s mounts volume %s with a subPath, which is not known here", c.spec.Name, mount.Name)
		}
		dir := filepath.Join(c.root, mount.MountPath)
		if object.Spec.Volumes[at].EmptyDir != nil {
			if err := os.MkdirAll(dir, 0o777); err != nil {
				return err
			}
			if err := os.Chmod(dir, 0o777); err != nil {
				return err
			}
			continue
		}
		files, err := p.content(ctx, object, &object.Spec.Volumes[at])
		if err != nil {
			return fmt.Errorf("volume %s: %w", mount.Name, err)
		}
		if err := c.writeVolume(object, dir, files); err != nil {
			return fmt.Errorf("volume %s: %w", mount.Name, err)
		}
	}
	return nil
}

// writeVolume writes files as a kubelet does: a new directory, and then one rename lets all of them appear at once.
func (c *container) writeVolume(object *corev1.Pod, dir string, files map[string]file) error {
	if same(dir, files) {
		return nil
	}
	stamp := "..stamp-" + rand.String(8)
	old, _ := os.Readlink(filepath.Join(dir, "..data"))
	user, _ := userOf(object, c.spec)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		path := filepath.Join(dir, stamp, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(files[name].content), 0o600); err != nil {
			return err
		}
		if err := c.own(object, path, files[name].mode, user); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(filepath.Join(dir, stamp), 0o755); err != nil { // also without any file
		return err
	}
	if err := os.Symlink(stamp, filepath.Join(dir, "..new")); err != nil {
		return err
	}
	if err := os.Rename(filepath.Join(dir, "..new"), filepath.Join(dir, "..data")); err != nil {
		return err
	}
	for name := range files {
		first, _, _ := strings.Cut(name, "/")
		if err := os.Symlink("..data/"+first, filepath.Join(dir, first)); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	if old == "" {
		return nil
	}
	return os.RemoveAll(filepath.Join(dir, old))
}

// own gives a file its mode and owner. A token (mode 0600) belongs to the container's user, all else to the pod's group.
func (c *container) own(object *corev1.Pod, path string, mode os.FileMode, user uint32) error {
	uid, gid := 0, 0
	if mode == tokenMode {
		uid = int(user)
	}
	if s := object.Spec.SecurityContext; s != nil && s.FSGroup != nil {
		gid = int(*s.FSGroup)
		mode |= 0o440
	}
	if err := os.Chmod(path, mode); err != nil {
		return err
	}
	return os.Chown(path, uid, gid)
}

// same says whether a volume's files are what they should be.
func same(dir string, files map[string]file) bool {
	if _, err := os.Stat(filepath.Join(dir, "..data")); err != nil {
		return false
	}
	found := 0
	err := filepath.WalkDir(filepath.Join(dir, "..data")+"/", func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		name, err := filepath.Rel(filepath.Join(dir, "..data"), path)
		if err != nil {
			return err
		}
		content, err := os.ReadFile(path)
		if f, ok := files[name]; err != nil || !ok || f.content != string(content) {
			return errors.New("differs")
		}
		found++
		return nil
	})
	return err == nil && found == len(files)
}

// token is one that a pod was given.
type token struct {
	value string
	renew time.Time
}
