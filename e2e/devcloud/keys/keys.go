// Package keys holds the access keys that the stand-in cloud accepts: fixed ones, and temporary ones that its
// metadata and STS services hand out.
package keys

import (
	"cmp"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// Key is one access key. Token and Expires are set on temporary ones.
type Key struct {
	ID      string    `json:"id"`
	Secret  string    `json:"secret"`
	Token   string    `json:"token,omitempty"`
	Expires time.Time `json:"expires,omitzero"`
	Role    string    `json:"role,omitempty"`  // whose rights a temporary key has
	Rules   []Rule    `json:"rules,omitempty"` // what it may do; none: everything
}

// Store is a set of keys, safe for concurrent use. The zero value is not usable: see Open.
type Store struct {
	path string

	mu    sync.RWMutex
	keys  map[string]Key
	roles map[string][]Rule
}

// Open reads the keys from a file, which is created with the first change. With the path "" they are kept in memory.
func Open(path string) (*Store, error) {
	s := &Store{path: path, keys: map[string]Key{}, roles: map[string][]Rule{}}
	if path == "" {
		return s, nil
	}
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read access keys: %w", err)
	}
	var file fileFormat
	if err := json.Unmarshal(data, &file); err != nil {
		return nil, fmt.Errorf("read access keys from %s: %w", path, err)
	}
	for _, k := range file.Keys {
		s.keys[k.ID] = k
	}
	if file.Roles != nil {
		s.roles = file.Roles
	}
	return s, nil
}

type fileFormat struct {
	Keys  []Key             `json:"keys"`
	Roles map[string][]Rule `json:"roles"`
}

// Put adds or replaces a key.
func (s *Store) Put(k Key) error { return s.Change([]Key{k}, nil, nil) }

// Revoke removes a key: from now on it is unknown. That it was not there is an error.
func (s *Store) Revoke(id string) error { return s.Change(nil, []string{id}, nil) }

// SetRole says what temporary keys of a role may do, those in use included; without rules that is everything.
func (s *Store) SetRole(role string, rules ...Rule) error {
	return s.Change(nil, nil, map[string][]Rule{role: rules})
}

// Change adds and revokes keys and sets the rights of roles, all or nothing.
func (s *Store) Change(add []Key, revoke []string, roles map[string][]Rule) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range add {
		if k.ID == "" || k.Secret == "" {
			return fmt.Errorf("access key %q: an id and a secret are required", k.ID)
		}
	}
	for _, id := range revoke {
		if _, ok := s.keys[id]; !ok {
			return fmt.Errorf("access key %q: there is none to revoke", id)
		}
	}
	for _, k := range add {
		s.keys[k.ID] = k
	}
	for _, id := range revoke {
		delete(s.keys, id)
	}
	maps.Copy(s.roles, roles)
	return s.save()
}

// Lookup finds a key, expired or not. A temporary key comes with the rules of its role as they are now.
func (s *Store) Lookup(id string) (Key, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	k, ok := s.keys[id]
	if k.Role != "" {
		k.Rules = s.roles[k.Role]
	}
	return k, ok
}

// All lists the keys by ID.
func (s *Store) All() []Key {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.sorted()
}

func (s *Store) sorted() []Key {
	out := make([]Key, 0, len(s.keys))
	for _, k := range s.keys {
		out = append(out, k)
	}
	slices.SortFunc(out, func(a, b Key) int { return cmp.Compare(a.ID, b.ID) })
	return out
}

// Issue makes a temporary key for a role. Keys that expired more than an hour ago are forgotten on the way.
func (s *Store) Issue(role string, now time.Time, lifetime time.Duration) (Key, error) {
	k := Key{
		ID: "STS." + hex.EncodeToString(random(10)), Secret: base64.RawURLEncoding.EncodeToString(random(24)),
		Token: base64.StdEncoding.EncodeToString(random(64)), Role: role, Expires: now.Add(lifetime).UTC().Truncate(time.Second),
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, old := range s.keys {
		if old.Token != "" && now.Sub(old.Expires) > time.Hour {
			delete(s.keys, id)
		}
	}
	s.keys[k.ID] = k
	return k, s.save()
}

func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return b
}

// save writes the file; the caller holds mu.
func (s *Store) save() error {
	if s.path == "" {
		return nil
	}
	data, err := json.MarshalIndent(fileFormat{s.sorted(), s.roles}, "", "  ")
	if err != nil {
		return fmt.Errorf("save access keys: %w", err)
	}
	tmp := filepath.Join(filepath.Dir(s.path), "."+filepath.Base(s.path)+".new")
	if err := os.WriteFile(tmp, data, 0o600); err != nil {
		return fmt.Errorf("save access keys: %w", err)
	}
	if err := os.Rename(tmp, s.path); err != nil {
		return fmt.Errorf("save access keys: %w", err)
	}
	return nil
}
