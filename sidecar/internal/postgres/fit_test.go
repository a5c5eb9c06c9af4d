package postgres

import (
	"slices"
	"testing"

	"outrider.dev/e2e/pgtest"
)

// A database that was written with another version of a collation, or with an extension that this machine has in
// another version or not at all, is found; one that fits is not.
func testFit(t *testing.T, s *pgtest.Server) {
	c := connect(t, configFor(s, "postgres"))
	fit, err := c.Fit(t.Context())
	if err != nil || len(fit.Collations) > 0 || len(fit.Extensions) > 0 {
		t.Fatalf("a new server does not fit its own machine: %+v, %v", fit, err)
	}
	name := pgtest.Query[string](s, "SELECT coalesce((SELECT collname::text FROM pg_collation WHERE collversion IS NOT NULL ORDER BY 1 LIMIT 1), '')")
	if name == "" {
		t.Fatal("this server was built without a collation that has a version: ICU is missing")
	}
	s.Exec(`CREATE TABLE sorted (a text COLLATE "`+name+`")`, "UPDATE pg_collation SET collversion = '0.1' WHERE collname = '"+name+"'")
	if fit, err = c.Fit(t.Context()); err != nil || len(fit.Collations) > 0 {
		t.Errorf("no index uses the collation: %+v, %v", fit, err)
	}
	s.Exec("CREATE INDEX ON sorted (a)", "UPDATE pg_extension SET extversion = '0.9' WHERE extname = 'plpgsql'")
	fit, err = c.Fit(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	here := func(m Misfit) bool { return m.Database == "postgres" }
	if i := slices.IndexFunc(fit.Collations, here); i < 0 || fit.Collations[i].Name != name || fit.Collations[i].Was != "0.1" || len(fit.Collations[i].Now) != 1 {
		t.Errorf("the index was built with version 0.1 of %s: %+v", name, fit.Collations)
	}
	if i := slices.IndexFunc(fit.Extensions, here); i < 0 || fit.Extensions[i].Name != "plpgsql" || !slices.Equal(fit.Extensions[i].Now, []string{"1.0"}) {
		t.Errorf("the database has plpgsql 0.9: %+v", fit.Extensions)
	}
	s.Exec("DROP TABLE sorted", "UPDATE pg_extension SET extversion = '1.0' WHERE extname = 'plpgsql'",
		"UPDATE pg_collation SET collversion = pg_collation_actual_version(oid) WHERE collname = '"+name+"'")
}
