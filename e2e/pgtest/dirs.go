package pgtest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// serverUser is who runs servers when the tests run as root, which PostgreSQL refuses to.
func serverUser() (*syscall.Credential, error) {
	u, err := user.Lookup("postgres")
	if err != nil {
		if u, err = user.Lookup("nobody"); err != nil {
			return nil, fmt.Errorf("PostgreSQL does not run as root, and there is no user postgres or nobody: %w", err)
		}
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("user id of %s: %w", u.Username, err)
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("group id of %s: %w", u.Username, err)
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
}

// makeOwnDir makes a directory of the server's user, reachable by it.
func makeOwnDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if os.Getuid() != 0 {
		return nil
	}
	cred, err := serverUser()
	if err != nil {
		return err
	}
	if err := os.Chown(dir, int(cred.Uid), int(cred.Gid)); err != nil {
		return err
	}
	return openParents(dir)
}

// openParents lets other users pass through the parents of dir that lie below the temporary directory: os.MkdirTemp
// and t.TempDir make them private. Others are not ours to change.
func openParents(dir string) error {
	top := filepath.Clean(os.TempDir()) + string(filepath.Separator)
	for p := filepath.Dir(dir); strings.HasPrefix(p, top); p = filepath.Dir(p) {
		fi, err := os.Stat(p)
		if err != nil {
			return err
		}
		if err := os.Chmod(p, fi.Mode().Perm()|0o755); err != nil {
			return err
		}
	}
	return nil
}

// giveDataDir makes an existing data directory one that the server's user can run on, with the WAL directory and the
// tablespaces that links in it lead to.
func giveDataDir(dir string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	roots := []string{dir}
	links, err := filepath.Glob(filepath.Join(dir, "pg_tblspc", "*"))
	if err != nil {
		return err
	}
	for _, link := range append(links, filepath.Join(dir, "pg_wal")) {
		target, err := filepath.EvalSymlinks(link)
		if errors.Is(err, fs.ErrNotExist) {
			continue // the server will say so better
		}
		if err != nil {
			return err
		}
		if !strings.HasPrefix(target, dir+string(filepath.Separator)) {
			roots = append(roots, target)
		}
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return err
	}
	if os.Getuid() != 0 {
		return nil
	}
	cred, err := serverUser()
	if err != nil {
		return err
	}
	for _, root := range roots {
		if err := chownTree(root, cred); err != nil {
			return fmt.Errorf("handing %s to the server's user: %w", root, err)
		}
	}
	return nil
}

func chownTree(root string, cred *syscall.Credential) error {
	if err := openParents(root); err != nil {
		return err
	}
	return filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, int(cred.Uid), int(cred.Gid))
	})
}
