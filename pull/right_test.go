package pull_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/registrymirror/mirror/access"
	"github.com/registrymirror/mirror/internal/state"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/pull"
	"github.com/registrymirror/mirror/upstream"
)

// in asks as a client that takes the mirror for one of docker.io.
func in(a pull.Ask) pull.Ask {
	a.Request.Namespace = hub
	return a
}

// pulls makes each request that a client can make of an image, and returns the errors by the kind of request.
func (w *world) pulls(repo string, im image) map[string]error {
	ctx := context.Background()
	errs := make(map[string]error)
	for name, a := range map[string]pull.Ask{
		"tag": ask(repo, "1"), "digest": ask(repo, im.index.Digest.String()), "child": ask(repo, im.children[0].Digest.String()),
	} {
		_, errs[name] = w.Manifest(ctx, a)
		_, errs["HEAD "+name] = w.Manifest(ctx, head(a))
	}
	blob := askBlob(repo, im.children[0].Children[1].Digest)
	c, err := w.Blob(ctx, blob)
	errs["blob"] = err
	_ = c.Close()
	_, errs["HEAD blob"] = w.Blob(ctx, head(blob))
	_, errs["tags"] = w.Tags(ctx, askTags(repo, nil))
	_, errs["referrers"] = w.Referrers(ctx, pull.Ask{Request: oci.Request{
		Kind: oci.KindReferrers, Name: repo, Digest: im.index.Digest,
	}})
	return errs
}

// A repository that no rule allows is refused before a record is read or a request is sent.
func TestRulesComeFirst(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.useRules(w.hub, policy, forAll("docker.io/acme/app"))
		im := w.hub.push(t, app, "1", "a")
		w.hub.push(t, "acme/other", "1", "a") // the same content, which no client may have through this one
		for what, err := range w.pulls(app, im) {
			if err != nil && what != "tags" && what != "referrers" { // it has none
				t.Errorf("%s of an allowed repository: %v", what, err)
			}
		}
		w.hub.asked()
		for _, repo := range []string{"acme/other", "acme/missing", "acme", "acme/app/x"} {
			for what, err := range w.pulls(repo, im) {
				e, ok := errors.AsType[*access.ForbiddenError](err)
				if !ok || e.Mirrored || e.Repo.Host != hub {
					t.Errorf("%s of %s: %v", what, repo, err)
				}
			}
			_, err := w.Manifest(t.Context(), in(ask(repo, "1")))
			if e, ok := errors.AsType[*access.ForbiddenError](err); !ok || !e.Mirrored {
				t.Errorf("%s with ns: %v", repo, err)
			}
		}
		w.hub.wants(t)
		// Without the rule a client gets nothing, though all is here.
		w.useRules(w.hub, policy, forAll("docker.io/acme/other"))
		for what, err := range w.pulls(app, im) {
			if _, ok := errors.AsType[*access.ForbiddenError](err); !ok {
				t.Errorf("%s without the rule: %v", what, err)
			}
		}
		w.hub.wants(t)
	})
}

// A download that runs is joined by no client that may not read it.
func TestRulesComeBeforeARunningDownload(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.useRules(w.hub, policy, forAll("docker.io/acme/app"))
		im := w.hub.push(t, app, "1", "a")
		w.hub.push(t, "acme/other", "1", "a")
		d := im.children[0].Children[1].Digest
		w.get(ask(app, im.children[0].Digest.String()))
		w.hub.asked()
		w.hub.behave(nil, takes(time.Second))
		done := make(chan struct{})
		go func() {
			defer close(done)
			w.blob(t, askBlob(app, d), im.blobs[d])
		}()
		time.Sleep(time.Second / 2)
		took := since(func() {
			_, err := w.Blob(t.Context(), askBlob("acme/other", d))
			if _, ok := errors.AsType[*access.ForbiddenError](err); !ok {
				t.Errorf("got %v", err)
			}
		})
		<-done
		if took > 0 {
			t.Errorf("refused after %s", took)
		}
		w.hub.wants(t, "BLOB acme/app@"+d.String())
	})
}

// Content that was learnt under rules is for the clients that they allow. Without the rules the upstream has to show it anew,
// without a login, over a restart too; then the cached content is served.
func TestWhatRulesHaveShownStaysPrivate(t *testing.T) {
	for _, restarted := range []bool{false, true} {
		name := "reload"
		if restarted {
			name = "restart"
		}
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				w.useRules(w.hub, policy, forAll("**"))
				im := w.hub.push(t, app, "1", "a")
				w.hub.lists[app] = &upstream.Document{Bytes: []byte(`{"tags":["1"]}`), MediaType: "application/json"}
				pulled := w.pulls(app, im)
				if pulled["tag"] != nil || pulled["blob"] != nil || pulled["tags"] != nil {
					t.Fatal(pulled)
				}
				synctest.Wait() // what the pulls record in the background, they record under rules
				public := newRegistry(hub)
				public.behave(status(403), nil)
				if restarted {
					w.restart()
				}
				w.use(public, policy)
				for what, err := range w.pulls(app, im) {
					if err == nil {
						t.Errorf("%s is served", what)
					}
				}
				// Under rules again, and with the upstream down, all of it is still here.
				w.hub.behave(status(503), nil)
				w.useRules(w.hub, policy, forAll("**"))
				for what, err := range w.pulls(app, im) {
					if err != nil && what != "tags" && what != "referrers" {
						t.Errorf("%s under rules: %v", what, err)
					}
				}
				// It has become public: one manifest of the upstream's is enough for all of it.
				shown := w.hub
				shown.behave(nil, nil)
				w.use(&struct{ *registry }{shown}, policy)
				shown.asked()
				w.get(head(ask(app, "1"))) // headers prove nothing
				shown.wants(t, "HEAD acme/app:1")
				if _, err := w.Blob(t.Context(), askBlob(app, im.children[0].Children[1].Digest)); err != nil {
					t.Error(err)
				}
				shown.wants(t, "STAT acme/app@"+im.children[0].Children[1].Digest.String())
				w.get(ask(app, "1"))
				shown.wants(t, "GET acme/app@"+im.index.Digest.String())
				shown.behave(status(503), nil)
				for what, err := range w.pulls(app, im) {
					if err != nil && what != "tags" && what != "referrers" {
						t.Errorf("%s, shown to all clients: %v", what, err)
					}
				}
			})
		})
	}
}

// The record that a repository is private can be lost to a bad disk. Content that was learnt under rules is still served to no
// other client.
func TestLostPrivateRecordOpensNothing(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.useRules(w.hub, policy, forAll("**"))
		im := w.hub.push(t, app, "1", "a")
		if pulled := w.pulls(app, im); pulled["tag"] != nil || pulled["blob"] != nil {
			t.Fatal(pulled)
		}
		if err := w.marks.Write([]state.Item{{Key: hub + "/" + app}}); err != nil {
			t.Fatal(err)
		}
		w.restart()
		down := newRegistry(hub)
		down.behave(status(503), nil)
		w.use(down, policy)
		for what, err := range w.pulls(app, im) {
			if err == nil {
				t.Errorf("%s is served", what)
			}
		}
	})
}
