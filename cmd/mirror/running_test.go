package main

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/registrymirror/mirror/admin"
	"github.com/registrymirror/mirror/config"
)

// The answer to a request for a reload has its result.
func TestAnswerOfAReload(t *testing.T) {
	t.Parallel()
	_, invalid := config.Parse("c.yaml", []byte("a: 1\nb: 2\n"), nil)
	for _, tt := range []struct {
		how  reloaded
		want admin.Reloaded
		err  error
	}{
		{reloaded{Reloaded: admin.Reloaded{Changed: []string{"log.level"}, Restart: []string{"listen"}}}, admin.Reloaded{Changed: []string{"log.level"}, Restart: []string{"listen"}}, nil},
		{reloaded{err: errors.New("x")}, admin.Reloaded{}, &admin.NotReloaded{Problems: []string{"x"}}},
		{reloaded{err: invalid}, admin.Reloaded{}, &admin.NotReloaded{Problems: []string{"c.yaml:1:1: a: unknown key", "c.yaml:2:1: b: unknown key"}}},
	} {
		requests := make(chan chan<- reloaded)
		go func() { (<-requests) <- tt.how }()
		got, err := requester(requests)(t.Context())
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Error(diff)
		}
		refused, _ := errors.AsType[*admin.NotReloaded](err)
		want, _ := errors.AsType[*admin.NotReloaded](tt.err)
		if (refused == nil) != (want == nil) || refused != nil && len(refused.Problems) != len(want.Problems) ||
			refused != nil && !strings.HasPrefix(refused.Problems[0], want.Problems[0]) {
			t.Errorf("%v, want %v", err, tt.err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := requester(make(chan chan<- reloaded))(ctx); err == nil {
		t.Error("a mirror that does not answer")
	}
}

// The result of a reload names what is in use now, what no longer is, and what needs a restart.
func TestTextOfAReload(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		r    admin.Reloaded
		want string
	}{
		{admin.Reloaded{}, "The configuration was read again; no setting has changed.\n"},
		{admin.Reloaded{Changed: []string{"log.level", "drain"}}, "The configuration was read again. In use now: log.level, drain.\n"},
		{
			admin.Reloaded{Removed: []string{"upstreams.quay.io"}},
			"The configuration was read again.\nNo longer in use: upstreams.quay.io.\n",
		},
		{
			admin.Reloaded{Changed: []string{"log.level"}, Removed: []string{"upstreams.quay.io"}, Restart: []string{"listen"}},
			"The configuration was read again. In use now: log.level.\nNo longer in use: upstreams.quay.io.\n" +
				"These changes need a restart: listen.\n",
		},
	} {
		if diff := cmp.Diff(c.want, reloadText(c.r)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
}
