package main_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "outrider.dev/"

// mayImport says which of our own packages each package may import in what is built from it, tests left aside. Packages
// under sidecar/internal do not know each other: they share the nouns of wal and archive and meet in sidecar itself,
// through interfaces that the user of an interface declares. A feature that seems to need a sideways import belongs
// there. An entry that ends in /... stands for a directory and everything below.
var mayImport = map[string][]string{
	"sidecar":                              {"sidecar/..."},
	"sidecar/policy":                       {},
	"sidecar/internal/wal":                 {},
	"sidecar/internal/archive":             {"sidecar/internal/wal"},
	"sidecar/internal/archive/archivetest": {"sidecar/internal/archive", "sidecar/internal/wal"},
	"sidecar/internal/oss":                 {"sidecar/internal/archive"},
	"sidecar/internal/postgres":            {"sidecar/internal/wal"},
	"sidecar/internal/tail":                {"sidecar/internal/wal"},
	"sidecar/internal/ship":                {"sidecar/internal/archive", "sidecar/internal/wal"},
	"sidecar/internal/basebackup":          {"sidecar/internal/archive", "sidecar/internal/wal"},
	"sidecar/internal/retention":           {"sidecar/internal/archive", "sidecar/internal/wal"},
	"sidecar/internal/verify":              {"sidecar/internal/archive", "sidecar/internal/wal"},
	"sidecar/internal/restore":             {"sidecar/internal/archive", "sidecar/internal/wal"},
	"sidecar/internal/drill":               {},
	"sidecar/internal/epoch":               {"sidecar/internal/archive", "sidecar/internal/wal"},
	"sidecar/internal/drain":               {"sidecar/internal/archive", "sidecar/internal/wal"},
	"sidecar/internal/journal":             {"sidecar/internal/archive", "sidecar/internal/wal"},
	"sidecar/internal/notice":              {},
	"sidecar/internal/evacuation":          {},
	"sidecar/internal/page":                {},
	"webhook/...":                          {"webhook/...", "sidecar/policy"},
	"e2e/...":                              {"e2e/...", "sidecar/policy"},
	"images/...":                           {"images/..."},
	"manifests/...":                        {},
}

// goPackage is what `go list -json` says of a package.
type goPackage struct {
	ImportPath string
	Name       string
	Imports    []string
	// Imports of _test.go files inside and outside the package.
	TestImports, XTestImports []string
}

func TestPackagesImportOnlyWhatTheyMay(t *testing.T) {
	packages := listPackages(t)
	used := map[string]bool{}
	for _, p := range packages {
		path := short(p.ImportPath)
		entry, ok := entryFor(path)
		if !ok {
			t.Errorf("%s is not in mayImport of sidecar/imports_test.go: say there what it may import", path)
			continue
		}
		used[entry] = true
		imports := p.Imports
		if strings.HasPrefix(path, "e2e") {
			// A black box also in its tests: what a scenario knows, it knows from outside.
			imports = slices.Concat(p.Imports, p.TestImports, p.XTestImports)
		}
		for _, i := range imports {
			if ours := short(i); strings.HasPrefix(i, module) && ours != path && !covered(mayImport[entry], ours) {
				t.Errorf("%s imports %s; it may import of ours: %s", path, ours, allowed(entry))
			}
		}
	}
	for entry := range mayImport {
		if !used[entry] {
			t.Errorf("mayImport has an entry for %s, and there is no such package: remove it", entry)
		}
	}
}

func TestImportTableCatchesWhatItShould(t *testing.T) {
	for path, want := range map[string]bool{
		"sidecar/internal/wal": true, "sidecar/internal/newcomer": false, "sidecar/internal/wal/deeper": false,
		"webhook": true, "webhook/internal/inject": true, "webhooks": false, "e2e/ledger/cmd/ledger": true,
	} {
		if _, ok := entryFor(path); ok != want {
			t.Errorf("%s has an entry: %v, want %v", path, ok, want)
		}
	}
	if covered(mayImport["webhook/..."], "sidecar/internal/wal") || covered(mayImport["sidecar/internal/ship"], "sidecar/internal/tail") {
		t.Error("an import that is forbidden is covered by the table")
	}
}

// listPackages asks the go command for every package of the module, also those that do not build at the moment.
func listPackages(t *testing.T) []goPackage {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-e", "-json=ImportPath,Name,Imports,TestImports,XTestImports", module+"...")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.String())
	}
	var packages []goPackage
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p goPackage
		err := d.Decode(&p)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("reading go list: %v", err)
		}
		packages = append(packages, p)
	}
	if len(packages) == 0 {
		t.Fatal("go list knows no package: nothing was checked")
	}
	return packages
}

// entryFor finds the key of mayImport that speaks of a package.
func entryFor(path string) (string, bool) {
	if _, ok := mayImport[path]; ok {
		return path, true
	}
	for entry := range mayImport {
		if covered([]string{entry}, path) {
			return entry, true
		}
	}
	return "", false
}

// covered says whether one of the patterns means the package.
func covered(patterns []string, path string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool {
		dir, tree := strings.CutSuffix(pattern, "/...")
		return path == dir || tree && strings.HasPrefix(path, dir+"/")
	})
}

func allowed(entry string) string {
	if len(mayImport[entry]) == 0 {
		return "nothing"
	}
	return fmt.Sprint(mayImport[entry])
}

func short(importPath string) string { return strings.TrimPrefix(importPath, module) }
