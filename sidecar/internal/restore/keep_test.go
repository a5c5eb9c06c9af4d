package restore

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The server keeps its WAL until a slot does. What the user says about that stays as it is, during the restore and after.
func TestWALIsKeptUntilThereIsASlot(t *testing.T) {
	for _, c := range []struct {
		name, before string
		ours         bool
	}{
		{"nothing", "", true},
		{"another setting", "wal_keep_sizes = 1\n# wal_keep_size = 5GB\n", true},
		{"the user's", "WAL_KEEP_SIZE = '5GB'\n", false},
		{"ours, of a snapshot that was taken meanwhile", keepSetting + " = '" + keepValue + "'\n", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "postgresql.auto.conf")
			must(t, os.WriteFile(path, []byte(c.before), 0o600))
			must(t, appendSettings(dir, settings(Plan{}, "")))
			b, err := os.ReadFile(path)
			must(t, err)
			added := strings.Contains(strings.TrimPrefix(string(b), c.before), keepSetting+" = ")
			if added != c.ours || !strings.HasPrefix(string(b), c.before) {
				t.Errorf("the settings are\n%s", b)
			}
		})
	}
	for value, want := range map[string]bool{keepValue: true, "5GB": false, "": false} {
		if got := slices.Contains(LeftSettings(map[string]string{keepSetting: value, "hot_standby": "off"}), keepSetting); got != want {
			t.Errorf("%s = %q is taken for a restore's: %v", keepSetting, value, got)
		}
	}
	if left := LeftSettings(map[string]string{"work_mem": "1GB"}); len(left) > 0 {
		t.Errorf("%v are taken for a restore's", left)
	}
}
