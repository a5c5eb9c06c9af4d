// Package images builds the container images of the tests' cluster, with neither an engine nor a registry: archives as
// `docker save` writes them, which `ctr images import` reads.
package images

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

// Image says how an image is called and used. All images of an archive have the same files.
type Image struct {
	Name   string // with a tag
	Config Config
}

// Config is what the image says about the containers made of it (OCI image specification, config.md).
type Config struct {
	User       string              `json:",omitempty"`
	Env        []string            `json:",omitempty"`
	Entrypoint []string            `json:",omitempty"`
	Cmd        []string            `json:",omitempty"`
	WorkingDir string              `json:",omitempty"`
	StopSignal string              `json:",omitempty"`
	Volumes    map[string]struct{} `json:",omitempty"`
	Labels     map[string]string   `json:",omitempty"`
}

// File is a file of an image: a link if Link is set, with the content of another file if From is, a directory if its path
// ends with a slash, and Content otherwise. Its directories need not be named; they belong to root.
type File struct {
	Path     string
	Mode     int64
	UID, GID int
	Content  []byte
	From     string
	Link     string
}

// Write writes an archive to a new file: images of one layer, which they share. If that goes wrong there is no file.
func Write(path string, files []File, images ...Image) error {
	err := write(path, files, images)
	if err != nil {
		_ = os.Remove(path) // it may not be there
		return fmt.Errorf("writing the image archive %s: %w", filepath.Base(path), err)
	}
	return nil
}

// part is a file of an archive.
type part struct {
	name    string
	size    int64
	content io.Reader
}

func bytesPart(name string, content []byte) part {
	return part{name, int64(len(content)), bytes.NewReader(content)}
}

func write(path string, files []File, images []Image) error {
	layer, err := os.CreateTemp(filepath.Dir(path), "layer-")
	if err != nil {
		return err
	}
	defer layer.Close()
	if err := os.Remove(layer.Name()); err != nil { // it lives as long as it is open
		return err
	}
	sum := sha256.New()
	if err := writeLayer(io.MultiWriter(layer, sum), files); err != nil {
		return err
	}
	size, err := layer.Seek(0, io.SeekEnd)
	if err == nil {
		_, err = layer.Seek(0, io.SeekStart)
	}
	if err != nil {
		return err
	}
	digest := hex.EncodeToString(sum.Sum(nil))
	parts, err := describe(digest, images)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	out := tar.NewWriter(f)
	for _, p := range append(parts, part{digest + ".tar", size, layer}) {
		if err := out.WriteHeader(&tar.Header{Name: p.name, Mode: 0o644, Size: p.size}); err != nil {
			return err
		}
		if _, err := io.Copy(out, p.content); err != nil {
			return err
		}
	}
	if err := out.Close(); err != nil {
		return err
	}
	return f.Close()
}

// describe makes the configuration of each image, and the list of them.
func describe(layer string, images []Image) ([]part, error) {
	var parts []part
	var list []map[string]any
	for _, i := range images {
		config, err := json.Marshal(map[string]any{
			"architecture": runtime.GOARCH, "os": "linux", "config": i.Config,
			"rootfs": map[string]any{"type": "layers", "diff_ids": []string{"sha256:" + layer}},
		})
		if err != nil {
			return nil, err
		}
		sum := sha256.Sum256(config)
		name := hex.EncodeToString(sum[:]) + ".json"
		parts = append(parts, bytesPart(name, config))
		list = append(list, map[string]any{"Config": name, "RepoTags": []string{i.Name}, "Layers": []string{layer + ".tar"}})
	}
	manifest, err := json.Marshal(list)
	return append(parts, bytesPart("manifest.json", manifest)), err
}

// writeLayer writes files and the directories that they need, in the order given.
func writeLayer(w io.Writer, files []File) error {
	out := tar.NewWriter(w)
	made := map[string]bool{".": true, "/": true, "": true}
	for _, f := range files {
		name := strings.TrimPrefix(f.Path, "/")
		if err := makeDirs(out, made, filepath.Dir(strings.TrimSuffix(name, "/"))); err != nil {
			return err
		}
		if err := writeFile(out, made, name, f); err != nil {
			return fmt.Errorf("%s: %w", f.Path, err)
		}
	}
	return out.Close()
}

func makeDirs(out *tar.Writer, made map[string]bool, dir string) error {
	if made[dir] {
		return nil
	}
	made[dir] = true
	if err := makeDirs(out, made, filepath.Dir(dir)); err != nil {
		return err
	}
	return out.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o755})
}

func writeFile(out *tar.Writer, made map[string]bool, name string, f File) error {
	header := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: f.Mode, Uid: f.UID, Gid: f.GID}
	switch {
	case f.Link != "":
		header.Typeflag, header.Linkname, header.Mode = tar.TypeSymlink, f.Link, 0o777
		return out.WriteHeader(header)
	case strings.HasSuffix(name, "/"):
		header.Typeflag = tar.TypeDir
		made[strings.TrimSuffix(name, "/")] = true
		return out.WriteHeader(header)
	case f.From == "":
		header.Size = int64(len(f.Content))
		if err := out.WriteHeader(header); err != nil {
			return err
		}
		_, err := out.Write(f.Content)
		return err
	}
	from, err := os.Open(f.From)
	if err != nil {
		return err
	}
	defer from.Close()
	info, err := from.Stat()
	if err != nil {
		return err
	}
	header.Size = info.Size()
	if f.Mode == 0 {
		header.Mode = int64(info.Mode().Perm())
	}
	if err := out.WriteHeader(header); err != nil {
		return err
	}
	_, err = io.Copy(out, from)
	return err
}
