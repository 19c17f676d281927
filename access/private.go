package access

import (
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/registrymirror/mirror/internal/state"
	"github.com/registrymirror/mirror/oci"
)

// Private is the set of repositories whose content was learnt under rules, with a login of ours. The cached content of one is
// served to no other client, until its upstream has answered a request for it without a login. A nil *Private has none and
// remembers none. It is safe for concurrent use.
type Private struct {
	table state.Table
	log   *slog.Logger

	some atomic.Bool // there is at least one: most mirrors have none, and Has is called for each request

	mu    sync.RWMutex // guards what follows; writers hold it while they write
	all   bool         // the table can't be read: any repository may be private
	repos map[string]bool
}

// NewPrivate reads a table, which no other code uses. If it can't be read, every repository counts as private.
func NewPrivate(table state.Table, log *slog.Logger) *Private {
	p := &Private{table: table, log: log, repos: make(map[string]bool)}
	for it, err := range table.Scan("") {
		if err != nil {
			p.all = true
			log.Error("cannot read the list of private repositories; cached content is served once its upstream has authorized it again; "+
				"restart the mirror when its disk works", "error", err)
			break
		}
		p.repos[it.Key] = true
	}
	p.some.Store(p.all || len(p.repos) > 0)
	return p
}

// Has reports whether a repository is private.
func (p *Private) Has(repo oci.Repo) bool {
	if p == nil || !p.some.Load() {
		return false
	}
	p.mu.RLock()
	defer p.mu.RUnlock()
	is, known := p.repos[repo.String()]
	return is || p.all && !known
}

// Add makes a repository private. That is on disk when it returns nil.
func (p *Private) Add(repo oci.Repo) error { return p.set(repo, true) }

// Remove makes a repository public: its upstream has answered a request without a login.
func (p *Private) Remove(repo oci.Repo) error { return p.set(repo, false) }

func (p *Private) set(repo oci.Repo, private bool) error {
	if p == nil {
		return nil
	}
	key := repo.String()
	p.mu.RLock()
	is, known := p.repos[key]
	done := is == private && (known || !p.all)
	p.mu.RUnlock()
	if done {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	it := state.Item{Key: key}
	if private {
		it.Value = []byte("{}")
	}
	if err := p.table.Write([]state.Item{it}); err != nil {
		return err
	}
	if private || p.all {
		p.repos[key] = private
	} else {
		delete(p.repos, key)
	}
	p.some.Store(p.all || len(p.repos) > 0)
	return nil
}
