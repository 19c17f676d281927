package pull_test

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/registrymirror/mirror/internal/memory"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/pull"
	"github.com/registrymirror/mirror/upstream"
	"github.com/registrymirror/mirror/upstream/fault"
)

// hungry is a registry whose documents take all memory of their kind for a second each.
type hungry struct{ *registry }

func (h hungry) Manifest(ctx context.Context, repo, ref string) (*oci.Manifest, error) {
	if err := h.eat(ctx); err != nil {
		return nil, err
	}
	return h.registry.Manifest(ctx, repo, ref)
}

func (h hungry) Tags(ctx context.Context, repo string, q url.Values) (*upstream.Document, error) {
	if err := h.eat(ctx); err != nil {
		return nil, err
	}
	return h.registry.Tags(ctx, repo, q)
}

func (h hungry) eat(ctx context.Context) error {
	if err := memory.Need(ctx, 1<<40); err != nil {
		return &fault.Error{Op: "manifest", Upstream: hub, Err: err}
	}
	time.Sleep(time.Second)
	return nil
}

// A client that calls itself by many names has one turn for memory: that of the address that its requests come from.
func TestNamesBuyNoTurnsForMemory(t *testing.T) {
	for name, get := range map[string]func(w *world, a pull.Ask, i int) error{
		"manifests": func(w *world, a pull.Ask, i int) error {
			a.Request = ask(fmt.Sprint("acme/", i), "sha256:"+fmt.Sprintf("%064x", i)).Request
			_, err := w.Manifest(context.Background(), a)
			return err
		},
		"lists": func(w *world, a pull.Ask, i int) error {
			a.Request = askTags(fmt.Sprint("acme/", i), nil).Request
			_, err := w.Tags(context.Background(), a)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				w.use(hungry{w.hub}, policy)
				var wg sync.WaitGroup
				for i := range 20 {
					wg.Go(func() { _ = get(w, pull.Ask{Client: fmt.Sprint("name-", i), Peer: "192.0.2.66"}, i) })
				}
				synctest.Wait()
				var err error
				took := since(func() { err = get(w, pull.Ask{Client: "192.0.2.1"}, 100) })
				e, ok := errors.AsType[*fault.Error](err)
				if !ok || e.Status != 404 || took > 3*time.Second {
					t.Errorf("another client waited %s: %v", took, err)
				}
				wg.Wait()
			})
		})
	}
}
