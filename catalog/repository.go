package catalog

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/registrymirror/mirror/internal/state"
	"github.com/registrymirror/mirror/oci"
)

// shownEvery is the precision of the time on disk at which a repository was last shown; in memory it is exact.
const shownEvery = time.Hour

// repository is a Repository as it is stored. Fields are only ever added.
type repository struct {
	Shown   time.Time `json:"shown,omitzero"`
	Refused time.Time `json:"refused,omitzero"`
}

// repositoryKey sorts before the repository's content.
func repositoryKey(repo oci.Repo) string { return repo.Host + "/" + repo.Name + "@" }

// Repository returns when a repository was last shown without a login, and refused. The error says that the table can't
// be read.
func (c *content) Repository(repo oci.Repo) (Repository, error) {
	r, err := c.repository(repositoryKey(repo))
	if err != nil {
		return Repository{}, fmt.Errorf("look up %s: %w", repo, err)
	}
	return r, nil
}

func (c *content) repository(key string) (Repository, error) {
	c.removal.uses(key)
	if r, ok := c.repositories.get(key); ok {
		return r, nil
	}
	r, err := c.storedRepository(key)
	if err != nil {
		return Repository{}, err
	}
	return c.repositories.offer(strings.Clone(key), r), nil // the key may be a part of a longer one
}

func (c *content) storedRepository(key string) (Repository, error) {
	it, err := c.refs.Get(key)
	if errors.Is(err, state.ErrNotFound) {
		return Repository{}, nil
	}
	if err != nil {
		return Repository{}, err
	}
	var r repository
	if err := json.Unmarshal(it.Value, &r); err != nil {
		c.log.Warn("record of a repository is damaged; its registry is asked again", "name", key, "error", err)
		return Repository{}, nil
	}
	return Repository(r), nil
}

// NoteShown records that the registry has just shown something of a repository without a login. The table is written
// once an hour, or when the repository was refused before.
func (c *content) NoteShown(repo oci.Repo) error {
	return c.note(repo, func(r *Repository, now time.Time) (write bool) {
		write = r.Refused.After(r.Shown) || now.Sub(r.Shown) >= shownEvery || now.Before(r.Shown)
		r.Shown = now
		return write
	})
}

// NoteRefused records that the registry has just refused a repository to a request without a login. Only the first
// refusal since it was shown is kept.
func (c *content) NoteRefused(repo oci.Repo) error {
	return c.note(repo, func(r *Repository, now time.Time) (write bool) {
		if r.Shown.IsZero() || r.Refused.After(r.Shown) { // it was never shown: there is nothing to take back
			return false
		}
		r.Refused = now
		return true
	})
}

// note changes the record of a repository. The record on disk is never newer than that in memory.
func (c *content) note(repo oci.Repo, change func(r *Repository, now time.Time) (write bool)) error {
	key := repositoryKey(repo)
	c.removal.learns(key)
	defer c.turns.wait(key)()
	r, err := c.Repository(repo)
	if err != nil {
		return err
	}
	before := r
	write := change(&r, time.Now())
	if r != before {
		c.repositories.put(key, r)
	}
	if !write {
		return nil
	}
	b, err := json.Marshal(repository(r))
	if err != nil {
		return fmt.Errorf("record %s: %w", repo, err)
	}
	if err := c.refs.Write([]state.Item{{Key: key, Value: b}}); err != nil {
		return fmt.Errorf("record %s: %w", repo, err)
	}
	return nil
}
