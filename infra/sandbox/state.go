package sandbox

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	_ "modernc.org/sqlite" // the driver behind database/sql
)

// stateVersion is the layout of the data file. A file of a newer one is refused.
const stateVersion = 1

// deliveriesKept is how many finished deliveries a hook's history holds.
const deliveriesKept = 500

// A record is one stored thing. It is never changed once stored: an update stores
// a changed copy, so whoever holds a record may read it without a lock.
type record interface {
	kind() string
	key() string
}

// data is everything in memory. Its methods expect the store's lock to be held.
type data struct {
	users        map[string]*user
	workspaces   map[string]*workspace
	repositories map[string]*repository
	slugs        map[string]*repository     // workspace/slug
	refs         map[string]map[string]*ref // repository, full ref name
	hooks        map[string][]*hook         // repository
	deliveries   map[string]*delivery       // request id
	history      map[string][]*delivery     // hook, oldest first
	statuses     map[string][]*status       // repository + commit
	pulls        map[string][]*pullRequest  // destination repository
	codes        map[string]*code
	grants       map[string]*grant
	tokens       map[string]*token
	sessions     map[string]*session
}

// store guards data with a lock and writes changes through to the data file, when
// there is one.
type store struct {
	mu   sync.RWMutex
	db   *sql.DB // nil: everything in memory
	data data
}

// tx collects the changes of one update. What it stores is visible to readers, and
// to the function itself, only after the function returned nil.
type tx struct {
	*data
	changes []change
}

type change struct {
	rec  record
	gone bool
}

func (t *tx) put(r record)  { t.changes = append(t.changes, change{rec: r}) }
func (t *tx) drop(r record) { t.changes = append(t.changes, change{rec: r, gone: true}) }

// openStore opens the data file in dir, or an empty store in memory when dir is "".
func openStore(dir string) (*store, error) {
	s := &store{data: data{
		users:        map[string]*user{},
		workspaces:   map[string]*workspace{},
		repositories: map[string]*repository{},
		slugs:        map[string]*repository{},
		refs:         map[string]map[string]*ref{},
		hooks:        map[string][]*hook{},
		deliveries:   map[string]*delivery{},
		history:      map[string][]*delivery{},
		statuses:     map[string][]*status{},
		pulls:        map[string][]*pullRequest{},
		codes:        map[string]*code{},
		grants:       map[string]*grant{},
		tokens:       map[string]*token{},
		sessions:     map[string]*session{},
	}}
	if dir == "" {
		return s, nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("create the state folder: %w", err)
	}
	file := filepath.Join(dir, "sandbox.db")
	// One connection in exclusive mode: a second process on the same folder is
	// refused instead of answering from its own, older memory. NORMAL is enough
	// for what is promised, that a killed process loses nothing.
	db, err := sql.Open("sqlite", "file:"+file+"?_pragma=locking_mode(EXCLUSIVE)&_pragma=journal_mode(WAL)&_pragma=synchronous(NORMAL)")
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", file, err)
	}
	db.SetMaxOpenConns(1)
	s.db = db
	if err := s.load(file); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return s, nil
}

func (s *store) load(file string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var version int
	if err := s.db.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version); err != nil {
		return fmt.Errorf("read %s: %w", file, err)
	}
	if version > stateVersion {
		return fmt.Errorf("%s was written by a newer program (layout %d, this one knows %d): use that program, or another folder", file, version, stateVersion)
	}
	if _, err := s.db.ExecContext(ctx, fmt.Sprintf(`
		CREATE TABLE IF NOT EXISTS records (seq INTEGER PRIMARY KEY, kind TEXT NOT NULL, key TEXT NOT NULL, body BLOB NOT NULL, UNIQUE (kind, key));
		PRAGMA user_version = %d`, stateVersion)); err != nil {
		return fmt.Errorf("prepare %s: %w", file, err)
	}
	// seq survives updates, so this is the order in which things were made.
	rows, err := s.db.QueryContext(ctx, "SELECT kind, body FROM records ORDER BY seq")
	if err != nil {
		return fmt.Errorf("read %s: %w", file, err)
	}
	defer rows.Close()
	for rows.Next() {
		var kind string
		var body []byte
		if err := rows.Scan(&kind, &body); err != nil {
			return fmt.Errorf("read %s: %w", file, err)
		}
		rec, err := decodeRecord(kind, body)
		if err != nil {
			return fmt.Errorf("read %s: %w", file, err)
		}
		s.data.apply(change{rec: rec})
	}
	return rows.Err()
}

func decodeRecord(kind string, body []byte) (record, error) {
	for _, r := range []record{
		&user{}, &workspace{}, &repository{}, &ref{}, &hook{}, &delivery{}, &status{},
		&pullRequest{}, &code{}, &grant{}, &token{}, &session{},
	} {
		if r.kind() == kind {
			if err := json.Unmarshal(body, r); err != nil {
				return nil, fmt.Errorf("a %s: %w", kind, err)
			}
			return r, nil
		}
	}
	return nil, fmt.Errorf("a record of unknown kind %q", kind)
}

func (s *store) close() error {
	if s.db == nil {
		return nil
	}
	return s.db.Close()
}

// read runs fn while nothing changes. fn does no I/O.
func (s *store) read(fn func(*data)) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	fn(&s.data)
}

// update runs fn alone and then stores its changes, all or none.
func (s *store) update(fn func(*tx) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := &tx{data: &s.data}
	if err := fn(t); err != nil {
		return err
	}
	if err := s.write(t.changes); err != nil {
		return fmt.Errorf("store state: %w", err)
	}
	for _, c := range t.changes {
		s.data.apply(c)
	}
	return nil
}

func (s *store) write(changes []change) error {
	if s.db == nil || len(changes) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	dbtx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	for _, c := range changes {
		if err := writeOne(ctx, dbtx, c); err != nil {
			return errors.Join(err, dbtx.Rollback())
		}
	}
	return dbtx.Commit()
}

func writeOne(ctx context.Context, dbtx *sql.Tx, c change) error {
	if c.gone {
		_, err := dbtx.ExecContext(ctx, "DELETE FROM records WHERE kind = ? AND key = ?", c.rec.kind(), c.rec.key())
		return err
	}
	body, err := json.Marshal(c.rec)
	if err != nil {
		return err
	}
	_, err = dbtx.ExecContext(ctx, "INSERT INTO records (kind, key, body) VALUES (?, ?, ?) ON CONFLICT (kind, key) DO UPDATE SET body = excluded.body",
		c.rec.kind(), c.rec.key(), body)
	return err
}

func (d *data) apply(c change) {
	switch r := c.rec.(type) {
	case *user:
		set(d.users, r.ID, r, c.gone)
	case *workspace:
		set(d.workspaces, r.ID, r, c.gone)
	case *repository:
		if before := d.repositories[r.ID]; before != nil {
			delete(d.slugs, before.Workspace+"/"+before.Slug)
		}
		set(d.slugs, r.Workspace+"/"+r.Slug, r, c.gone)
		set(d.repositories, r.ID, r, c.gone)
	case *ref:
		if d.refs[r.Repository] == nil {
			d.refs[r.Repository] = map[string]*ref{}
		}
		set(d.refs[r.Repository], r.Name, r, c.gone)
	case *hook:
		d.hooks[r.Repository] = setInList(d.hooks[r.Repository], r, c.gone)
	case *delivery:
		set(d.deliveries, r.ID, r, c.gone)
		d.history[r.Hook] = setInList(d.history[r.Hook], r, c.gone)
	case *status:
		place := r.Repository + r.Commit
		d.statuses[place] = setInList(d.statuses[place], r, c.gone)
	case *pullRequest:
		d.pulls[r.Repository] = setInList(d.pulls[r.Repository], r, c.gone)
	case *code:
		set(d.codes, r.key(), r, c.gone)
	case *grant:
		set(d.grants, r.ID, r, c.gone)
	case *token:
		set(d.tokens, r.Hash, r, c.gone)
	case *session:
		set(d.sessions, r.Hash, r, c.gone)
	}
}

func set[T any](m map[string]*T, key string, r *T, gone bool) {
	if gone {
		delete(m, key)
		return
	}
	m[key] = r
}

// setInList replaces the record with r's key, or appends r. What is changed is
// mostly what came last, so it looks from the end. The list is copied: readers may
// still hold the old one.
func setInList[T record](list []T, r T, gone bool) []T {
	for i := len(list) - 1; i >= 0; i-- {
		if list[i].key() != r.key() {
			continue
		}
		list = slices.Clone(list)
		if gone {
			return slices.Delete(list, i, i+1)
		}
		list[i] = r
		return list
	}
	if gone {
		return list
	}
	return append(list, r) // beyond the length of any list handed out before
}

// Lookups by the names people use. Each answers nil when there is none.

func (d *data) userNamed(name string) *user {
	for _, u := range d.users {
		if u.Name == name {
			return u
		}
	}
	return nil
}

func (d *data) userWithEmail(email string) *user {
	for _, u := range d.users {
		if strings.EqualFold(u.Email, email) {
			return u
		}
	}
	return nil
}

// workspaceAt finds a workspace by slug or by UUID with braces.
func (d *data) workspaceAt(name string) *workspace {
	if w := d.workspaces[name]; w != nil {
		return w
	}
	for _, w := range d.workspaces {
		if w.Slug == name {
			return w
		}
	}
	return nil
}

// repositoryAt finds a repository by slugs or UUIDs with braces. An empty workspace,
// written {}, goes with a repository's UUID.
func (d *data) repositoryAt(workspaceName, name string) *repository {
	if workspaceName == "{}" {
		return d.repositories[name]
	}
	w := d.workspaceAt(workspaceName)
	if w == nil {
		return nil
	}
	if r := d.repositories[name]; r != nil && r.Workspace == w.ID {
		return r
	}
	return d.slugs[w.ID+"/"+name]
}

// fullName is workspace/repository by their slugs.
func (d *data) fullName(r *repository) string {
	return d.workspaces[r.Workspace].Slug + "/" + r.Slug
}

// repositoriesOf lists a workspace's repositories, the oldest first.
func (d *data) repositoriesOf(workspaceID string) []*repository {
	var list []*repository
	for _, r := range d.repositories {
		if r.Workspace == workspaceID {
			list = append(list, r)
		}
	}
	slices.SortFunc(list, func(a, b *repository) int {
		if c := a.CreatedAt.Compare(b.CreatedAt); c != 0 {
			return c
		}
		return strings.Compare(a.Slug, b.Slug)
	})
	return list
}
