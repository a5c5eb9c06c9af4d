package archive

import (
	"encoding/json"
	"fmt"
	"strconv"
)

// TablespaceSpec is the Spec of a WAL-G sentinel: a data directory and the places of its tablespaces, whose object
// ids are keys beside the fixed ones.
type TablespaceSpec struct {
	BasePrefix  string
	Tablespaces []Tablespace
}

// MarshalJSON writes WAL-G's form.
func (s TablespaceSpec) MarshalJSON() ([]byte, error) {
	names := make([]string, 0, len(s.Tablespaces))
	out := map[string]any{"base_prefix": s.BasePrefix}
	for _, t := range s.Tablespaces {
		name := strconv.FormatUint(uint64(t.OID), 10)
		names = append(names, name)
		out[name] = map[string]string{"loc": t.Location, "link": "pg_tblspc/" + name}
	}
	out["tablespaces"] = names
	return json.Marshal(out)
}

// UnmarshalJSON reads WAL-G's form.
func (s *TablespaceSpec) UnmarshalJSON(b []byte) error {
	var raw map[string]json.RawMessage
	if err := json.Unmarshal(b, &raw); err != nil {
		return fmt.Errorf("reading the tablespaces of a sentinel: %w", err)
	}
	var names []string
	if v, ok := raw["base_prefix"]; ok {
		if err := json.Unmarshal(v, &s.BasePrefix); err != nil {
			return fmt.Errorf("reading base_prefix of a sentinel: %w", err)
		}
	}
	if v, ok := raw["tablespaces"]; ok {
		if err := json.Unmarshal(v, &names); err != nil {
			return fmt.Errorf("reading the list of tablespaces of a sentinel: %w", err)
		}
	}
	for _, name := range names {
		oid, err := strconv.ParseUint(name, 10, 32)
		if err != nil {
			return fmt.Errorf("tablespace %q of a sentinel is not an object id", name)
		}
		var place struct{ Loc, Link string }
		if err := json.Unmarshal(raw[name], &place); err != nil {
			return fmt.Errorf("reading the place of tablespace %s of a sentinel: %w", name, err)
		}
		s.Tablespaces = append(s.Tablespaces, Tablespace{OID: uint32(oid), Location: place.Loc})
	}
	return nil
}
