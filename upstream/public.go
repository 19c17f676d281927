package upstream

import (
	"sync"
	"time"
)

const (
	// publicFor is how long a repository is taken for public after it has answered nobody.
	publicFor = 24 * time.Hour
	// maxPublic is how many such repositories are remembered. More of them are asked anonymously more often.
	maxPublic = 16_384
)

// public are the repositories of an endpoint that have answered a request without a credential.
type public struct {
	mu    sync.Mutex // guards what follows; a leaf
	until map[string]time.Time
}

func (p *public) has(repository string, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return now.Before(p.until[repository])
}

// any reports whether there is one.
func (p *public) any(now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, until := range p.until {
		if now.Before(until) {
			return true
		}
	}
	return false
}

func (p *public) add(repository string, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.until == nil || len(p.until) >= maxPublic {
		p.until = make(map[string]time.Time)
	}
	p.until[repository] = now.Add(publicFor)
}
