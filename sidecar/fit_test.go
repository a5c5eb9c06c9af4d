package main

import (
	"strings"
	"testing"

	"outrider.dev/sidecar/internal/postgres"
	"outrider.dev/sidecar/internal/restore"
)

func TestWordsOfFit(t *testing.T) {
	was := restore.Versions{Server: 150014, Preload: `timescaledb, "pg_stat_statements"`}
	for name, c := range map[string]struct {
		got  []string
		want string // "" for nothing to say
	}{
		"the same":          {wordsSince(was, postgres.Server{VersionNum: 150014, Preload: "pg_stat_statements,timescaledb"}), ""},
		"a newer one":       {wordsSince(was, postgres.Server{VersionNum: 150020, Preload: was.Preload}), ""},
		"an older one":      {wordsSince(was, postgres.Server{VersionNum: 150003, Preload: was.Preload}), "PostgreSQL 15.14, this server is 15.3"},
		"without a library": {wordsSince(was, postgres.Server{VersionNum: 150014, Preload: "timescaledb"}), "had pg_stat_statements"},
		"of another tool":   {wordsSince(restore.Versions{}, postgres.Server{VersionNum: 150003}), ""},
		"nothing":           {wordsOfFit(postgres.Fit{}), ""},
		"the default collation": {
			wordsOfFit(postgres.Fit{Collations: []postgres.Misfit{{Database: "shop", Was: "2.28", Now: []string{"2.36"}}}}),
			`REINDEX DATABASE "shop", then ALTER DATABASE "shop" REFRESH COLLATION VERSION`,
		},
		"a collation": {
			wordsOfFit(postgres.Fit{Collations: []postgres.Misfit{{Database: "shop", Name: "de-x-icu", Was: "1", Now: []string{"2"}}}}),
			`ALTER COLLATION "de-x-icu" REFRESH VERSION`,
		},
		"an extension": {
			wordsOfFit(postgres.Fit{Extensions: []postgres.Misfit{{Database: "shop", Name: "postgis", Was: "3.4", Now: []string{"3.5"}}}}),
			"has extension postgis 3.4, this machine has 3.5",
		},
		"no extension": {
			wordsOfFit(postgres.Fit{Extensions: []postgres.Misfit{{Database: "shop", Name: "postgis", Was: "3.4"}}}), "does not have it",
		},
	} {
		if said := strings.Join(c.got, "\n"); c.want == "" && said != "" || !strings.Contains(said, c.want) {
			t.Errorf("%s: it says %q, want %q", name, said, c.want)
		}
	}
}
