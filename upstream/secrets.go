package upstream

import (
	"sync"

	"github.com/registrymirror/mirror/auth"
)

// maxShown is how many tokens are kept out of messages.
const maxShown = 64

// shown are the tokens that were shown last: who has seen one can repeat it, to anybody.
type shown struct {
	mu    sync.Mutex // guards what follows; a leaf
	known map[auth.Secret]bool
	order []auth.Secret
}

func (s *shown) add(token auth.Secret) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.known[token]:
		return
	case s.known == nil:
		s.known = make(map[auth.Secret]bool)
	case len(s.order) == maxShown:
		delete(s.known, s.order[0])
		s.order = s.order[1:]
	}
	s.known[token] = true
	s.order = append(s.order, token)
}

// secrets are what must be in no message.
func (c *core) secrets() []auth.Credential {
	all := c.health.secrets()
	c.shown.mu.Lock()
	defer c.shown.mu.Unlock()
	for _, token := range c.shown.order {
		all = append(all, auth.Credential{Identity: token})
	}
	return all
}
