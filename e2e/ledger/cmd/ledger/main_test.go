package main

import (
	"bytes"
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"outrider.dev/e2e/ledger"
	"outrider.dev/e2e/pgtest"
)

// ledgerProgram runs the program's command line and answers its exit code and standard output.
func ledgerProgram(t *testing.T, args ...string) (int, string) {
	t.Helper()
	var out, errOut bytes.Buffer
	c := root()
	c.SetArgs(args)
	c.SetOut(&out)
	c.SetErr(&errOut)
	err := c.ExecuteContext(t.Context())
	t.Logf("ledger %s: %v\n%s", strings.Join(args, " "), err, errOut.String())
	return exitCode(err), out.String()
}

func TestProgram(t *testing.T) {
	s := pgtest.Start(t, pgtest.Options{})
	journal := "--journal=" + filepath.Join(t.TempDir(), "journal")
	dsn := "--dsn=" + s.ConnString("")
	if code, _ := ledgerProgram(t, "run", journal, dsn, "--duration=1s", "--synchronous-commit=on,off"); code != 0 {
		t.Fatalf("run ended with %d", code)
	}
	code, kill := ledgerProgram(t, "now")
	if code != 0 {
		t.Fatalf("now ended with %d", code)
	}

	code, out := ledgerProgram(t, "verify", journal, dsn, "--kill="+kill, "-o", "json")
	var r ledger.Report
	if err := json.Unmarshal([]byte(out), &r); err != nil || code != 0 || r.Acknowledged == 0 || r.Async.Acknowledged == 0 || r.Lost != 0 {
		t.Errorf("verify of an untouched server: exit code %d, %v, %s", code, err, out)
	}
	s.Exec("DELETE FROM outrider_ledger.rows WHERE id > 2")
	if code, out := ledgerProgram(t, "verify", journal, dsn, "--kill="+kill, "--rpo=0"); code != exitNotHeld ||
		!strings.Contains(out, "lost          row 3 ") || !strings.Contains(out, "before the kill") {
		t.Errorf("verify after a deletion: exit code %d\n%s", code, out)
	}

	s.Stop(pgtest.Fast)
	if code, _ := ledgerProgram(t, "verify", journal, dsn); code != exitFailed {
		t.Errorf("verify of a server that is down: exit code %d", code)
	}
	for _, args := range [][]string{{"verify", "-o", "xml"}, {"verify", "--kill=yesterday"}, {"run", "--rate=fast"}, {"run", "now"}} {
		if code, _ := ledgerProgram(t, args...); code != exitUsage {
			t.Errorf("%v: exit code %d", args, code)
		}
	}
}
