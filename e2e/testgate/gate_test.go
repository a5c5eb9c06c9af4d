package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// runIn runs testgate on a module of these files, as it is run on ours, and answers exit code and output.
func runIn(t *testing.T, files map[string]string, args ...string) (int, string) {
	t.Helper()
	dir := t.TempDir()
	files["go.mod"] = "module example.com/m\n\ngo 1.26\n"
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(dir)
	t.Setenv("GOFLAGS", "-mod=mod")
	var out bytes.Buffer
	code, err := run(t.Context(), append(args, "./..."), &out)
	if err != nil {
		t.Fatal(err)
	}
	return code, out.String()
}

// tests makes a test file of a package.
func tests(pkg, body string) string {
	return "package " + pkg + "\n\nimport \"testing\"\n\n" + body + "\n"
}

// twice is a package with a test that says something and fails when it is run for the first time.
func twice(body, says string) string {
	return "package a\n\nimport (\n\t\"os\"\n\t\"testing\"\n)\n\n" + body + "\n\nfunc TestLate(t *testing.T) {\n" +
		"\tif os.Mkdir(\"../seen\", 0o755) == nil {\n\t\tt.Error(\"" + says + "\")\n\t}\n}\n"
}

const passing = "func TestGood(t *testing.T) { t.Log(\"chatter\") }"

func TestVerdicts(t *testing.T) {
	cases := []struct {
		name  string
		files map[string]string
		env   string
		args  []string
		code  int
		want  []string
		not   []string
	}{
		{
			name:  "all passed",
			files: map[string]string{"a/a_test.go": tests("a", passing), "b/b.go": "package b\n"},
			want:  []string{"ok  \texample.com/m/a\t", "1 passed, 0 failed, 0 skipped\n"},
			not:   []string{"chatter", "=== RUN"},
		},
		{
			name: "a subtest failed",
			files: map[string]string{"a/a_test.go": tests("a", passing+
				"\nfunc TestBad(t *testing.T) { t.Run(\"x\", func(t *testing.T) { t.Error(\"the cause\") }); t.Run(\"y\", func(*testing.T) {}) }")},
			code: 1,
			want: []string{"the cause", "--- FAIL: TestBad/x", "FAIL\texample.com/m/a\t", "2 passed, 1 failed, 0 skipped\n"},
			not:  []string{"chatter"},
		},
		{
			name:  "a panic",
			files: map[string]string{"a/a_test.go": tests("a", "func TestBad(*testing.T) { panic(\"out of tune\") }")},
			code:  1,
			want:  []string{"out of tune", "0 passed, 1 failed, 0 skipped\n"},
		},
		{
			name:  "it does not build",
			files: map[string]string{"a/a_test.go": tests("a", "func TestBad(*testing.T) { undefined() }"), "b/b_test.go": tests("b", passing)},
			code:  1,
			want:  []string{"undefined: undefined", "FAIL\texample.com/m/a [build failed]", "1 passed, 1 failed, 0 skipped\n"},
		},
		{
			name:  "a skip at home",
			files: map[string]string{"a/a_test.go": tests("a", passing+"\nfunc TestSkip(t *testing.T) { t.Skip(\"no moon\") }")},
			want:  []string{"SKIP\texample.com/m/a TestSkip: a_test.go:6: no moon", "1 passed, 0 failed, 1 skipped\n"},
		},
		{
			name:  "a skip in CI",
			files: map[string]string{"a/a_test.go": tests("a", passing+"\nfunc TestSkip(t *testing.T) { t.Skip(\"no moon\") }")},
			env:   "CI", code: 1,
			want: []string{"no moon", "FAIL\tskipped tests count as failed", "1 passed, 0 failed, 1 skipped\n"},
		},
		{
			name:  "a skip in strict mode",
			files: map[string]string{"a/a_test.go": tests("a", "func TestSkip(t *testing.T) { t.Run(\"x\", func(t *testing.T) { t.SkipNow() }) }")},
			env:   "STRICT", code: 1,
			want: []string{"0 passed, 0 failed, 1 skipped\n"},
		},
		{
			name:  "test files without tests",
			files: map[string]string{"a/a_test.go": "package a\n", "b/b_test.go": tests("b", passing)},
			code:  1,
			want:  []string{"FAIL\texample.com/m/a has test files and ran no test", "1 passed, 0 failed, 0 skipped\n"},
		},
		{
			name:  "nothing to test",
			files: map[string]string{"b/b.go": "package b\n"},
			code:  1,
			want:  []string{"FAIL\tno test ran at all", "0 passed, 0 failed, 0 skipped\n"},
		},
		{
			name:  "a selection of one package",
			files: map[string]string{"a/a_test.go": tests("a", "func TestOther(*testing.T) {}"), "b/b_test.go": tests("b", passing)},
			args:  []string{"-run=Good"},
			want:  []string{"1 passed, 0 failed, 0 skipped\n"},
		},
		{
			name: "what passes is asked for",
			files: map[string]string{"a/a_test.go": "package a\n\nimport (\n\t\"fmt\"\n\t\"os\"\n\t\"testing\"\n)\n\n" + passing +
				"\n\nfunc TestMain(m *testing.M) {\n\tfmt.Println(\"a place\")\n\tcode := m.Run()\n\tfmt.Println(\"a table\")\n\tos.Exit(code)\n}\n"},
			args: []string{"-v"},
			want: []string{"a place\n--- PASS: TestGood", "a table\n", "ok  \texample.com/m/a\t", "1 passed, 0 failed, 0 skipped\n"},
			not:  []string{"chatter", "=== RUN"},
		},
		{
			name:  "a second try that passes",
			files: map[string]string{"a/a_test.go": twice(passing, "the cause"), "b/b_test.go": tests("b", passing)},
			args:  []string{"-again=1"},
			want:  []string{"the cause", "FLAKY\texample.com/m/a TestLate: it failed", "\n3 passed, 0 failed, 0 skipped\n"},
		},
		{
			name:  "a second try that fails",
			files: map[string]string{"a/a_test.go": tests("a", passing+"\nfunc TestBad(t *testing.T) { t.Error(\"the cause\") }")},
			args:  []string{"-again=1"}, code: 1,
			want: []string{"the cause", "1 passed, 1 failed, 0 skipped\n"},
			not:  []string{"FLAKY"},
		},
		{
			name:  "more failures than are tried again",
			files: map[string]string{"a/a_test.go": twice(passing, "the cause"), "b/b_test.go": tests("b", "func TestBad(t *testing.T) { t.Error(1) }")},
			args:  []string{"-again=1"}, code: 1,
			want: []string{"1 passed, 2 failed, 0 skipped\n"},
			not:  []string{"FLAKY", "again, alone"},
		},
		{
			name:  "a lost row is final",
			files: map[string]string{"a/a_test.go": twice(passing, "db: 3 of 200 acknowledged commits are lost and older than the RPO of 0s")},
			args:  []string{"-again=1"}, code: 1,
			want: []string{"1 passed, 1 failed, 0 skipped\n"},
			not:  []string{"FLAKY", "again, alone"},
		},
		{
			name:  "a panic is final",
			files: map[string]string{"a/a_test.go": tests("a", "func TestBad(*testing.T) { panic(\"out of tune\") }")},
			args:  []string{"-again=1"}, code: 1,
			want: []string{"0 passed, 1 failed, 0 skipped\n"},
			not:  []string{"again, alone"},
		},
		{
			name:  "a selection of nothing",
			files: map[string]string{"a/a_test.go": tests("a", passing)},
			args:  []string{"-run", "Nothing"}, code: 1,
			want: []string{"FAIL\tno test ran at all"},
		},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Setenv("CI", "")
			t.Setenv("STRICT", "")
			if c.env != "" {
				t.Setenv(c.env, "1")
			}
			code, out := runIn(t, c.files, c.args...)
			if code != c.code {
				t.Errorf("exit code %d, want %d\n%s", code, c.code, out)
			}
			for _, w := range c.want {
				if !strings.Contains(out, w) {
					t.Errorf("output lacks %q\n%s", w, out)
				}
			}
			for _, w := range c.not {
				if strings.Contains(out, w) {
					t.Errorf("output has %q\n%s", w, out)
				}
			}
		})
	}
}
