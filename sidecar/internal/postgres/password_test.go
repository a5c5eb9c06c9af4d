package postgres

import (
	"os"
	"path/filepath"
	"testing"

	"outrider.dev/e2e/pgtest"
)

// A password from a file is read for each session: it may change while the sidecar runs, and what is wrong with it is
// said of the file.
func TestPasswordFile(t *testing.T) {
	eachMajor(t, map[string]string{"fsync": "off"}, func(t *testing.T, s *pgtest.Server) {
		s.Exec("CREATE ROLE app LOGIN PASSWORD 'first '")
		hba := filepath.Join(s.DataDir, "pg_hba.conf")
		trust, err := os.ReadFile(hba)
		if err != nil {
			t.Fatal(err)
		}
		writeFile(t, hba, "local all app scram-sha-256\n"+string(trust))
		s.Exec("SELECT pg_reload_conf()")
		cfg := configFor(s, "app")
		cfg.PasswordFile = filepath.Join(t.TempDir(), "password")

		writeFile(t, cfg.PasswordFile, "wrong")
		waitForState(t, cfg, "", AuthFailed) // as soon as the server has read its file again
		_, err = Connect(t.Context(), cfg)
		wantError(t, err, NeedsPerson, cfg.PasswordFile)

		writeFile(t, cfg.PasswordFile, "first \r\n\n") // line ends are no part of it, blanks are
		connect(t, cfg)
		s.Exec("ALTER ROLE app PASSWORD 'second'")
		writeFile(t, cfg.PasswordFile, "second")
		connect(t, cfg)

		writeFile(t, cfg.PasswordFile, "")
		_, err = Connect(t.Context(), cfg)
		wantError(t, err, NeedsPerson, cfg.PasswordFile+" is empty")
		if err := os.Remove(cfg.PasswordFile); err != nil {
			t.Fatal(err)
		}
		_, err = Connect(t.Context(), cfg)
		wantError(t, err, NeedsPerson, cfg.PasswordFile)
		wantState(t, cfg, "", AuthFailed) // and not that nobody listens
	})
}
