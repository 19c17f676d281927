package auth_test

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/registrymirror/mirror/auth"
)

func TestPool(t *testing.T) {
	t.Parallel()
	member := func(name string, globs ...string) auth.Member {
		return auth.Member{Source: auth.Credential{Name: name, Username: name, Password: auth.NewSecret("pw")}, Repositories: globs}
	}
	pool := auth.Pool{
		member("team", "acme/team/**", "acme/shared"), member("acme", "acme/**"), member("exact", "acme/team/app"),
		member("second", "acme/**"),
	}
	for repository, want := range map[string]string{
		"acme/team/x": "team", "acme/team/app": "exact", "acme/shared": "team", "acme/y": "acme", "library/nginx": "", "": "",
	} {
		first := auth.Candidate{Source: auth.Anonymous}
		if all := auth.All(pool, repository); len(all) > 0 {
			first = all[0]
		}
		c, err := first.Credential(t.Context())
		if err != nil || c.Username != want {
			t.Errorf("%q: %q, %v; want %q", repository, c.Username, err, want)
		}
	}
	if c, err := pool.Credential(t.Context()); err != nil || !c.IsAnonymous() {
		t.Errorf("without a repository: %q, %v", c.Username, err)
	}
	all := append(slices.Clip(pool), member("rest"))
	if c, err := all.Credential(t.Context()); err != nil || c.Username != "rest" {
		t.Errorf("%q, %v", c.Username, err)
	}
}

// worker is a source with work in the background.
type worker struct {
	auth.Source
	ran chan struct{}
	err error
}

func (w worker) Run(ctx context.Context) error {
	close(w.ran)
	<-ctx.Done()
	return w.err
}

func TestPoolRunsItsMembers(t *testing.T) {
	t.Parallel()
	one, two := worker{Source: auth.Anonymous, ran: make(chan struct{})}, worker{Source: auth.Anonymous, ran: make(chan struct{}), err: errors.New("broken")}
	pool := auth.Pool{{Source: one}, {Source: two}, {Source: auth.Anonymous}}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- auth.Run(ctx, pool) }()
	<-one.ran
	<-two.ran
	stop()
	if err := <-done; !errors.Is(err, two.err) {
		t.Errorf("Run: %v", err)
	}
}
