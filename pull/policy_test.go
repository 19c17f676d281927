package pull_test

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/registrymirror/mirror/catalog"
	"github.com/registrymirror/mirror/internal/testlog"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/pull"
	"github.com/registrymirror/mirror/upstream/fault"
)

const day = 24 * time.Hour

// play is a world in which images are called by letters.
type play struct {
	*world
	t      *testing.T
	images map[string]image
	policy catalog.Policy
	byHead bool // clients ask by HEAD for the tag, and by GET for the digest that they get
}

var tagOne = oci.Ref{Repo: oci.Repo{Host: hub, Name: app}, Tag: "1"}

// step is one event, and what comes of it.
type step struct {
	do string
	// want is for a pull the image that comes, and how: "a", "a stale", "a held", "a new", "a first", "a pin"; or "error" with
	// the start of its name.
	want string
	// calls are the requests to the registry since the last step, without the repository.
	calls string
}

// happen makes an event happen.
func (p *play) happen(s step) {
	p.t.Helper()
	synctest.Wait()
	verb, of, _ := strings.Cut(s.do, " ")
	at := "step " + s.do
	switch verb {
	case "push":
		p.images[of] = p.hub.push(p.t, app, "1", of)
	case "wait":
		d, err := time.ParseDuration(of)
		if err != nil {
			p.t.Fatal(err)
		}
		time.Sleep(d)
		synctest.Wait()
	case "status":
		code := 0
		if _, err := fmt.Sscan(of, &code); err != nil {
			p.t.Fatal(err)
		}
		p.hub.behave(status(code), nil)
	case "slow":
		d, err := time.ParseDuration(of)
		if err != nil {
			p.t.Fatal(err)
		}
		p.hub.behave(nil, takes(d))
	case "well":
		p.hub.behave(nil, nil)
	case "restart":
		p.restart()
		p.use(p.hub, p.policy)
	case "evict":
		p.shelf.evict(p.images[of].index.Digest)
		p.restart() // out of memory, too
		p.use(p.hub, p.policy)
	case "gone": // the registry has an image no longer
		p.hub.mu.Lock()
		delete(p.hub.manifests, app+"@"+p.images[of].index.Digest.String())
		p.hub.mu.Unlock()
	case "untag":
		p.hub.mu.Lock()
		delete(p.hub.tags, app+":1")
		p.hub.mu.Unlock()
	case "due":
		if err := p.books.Expire(tagOne, catalog.ByWebhook, time.Now()); err != nil {
			p.t.Fatal(err)
		}
	case "pin":
		if err := p.books.Catalog.(*catalog.Catalog).SetPin(catalog.Pin{Ref: tagOne, Digest: p.images[of].index.Digest}); err != nil {
			p.t.Fatal(err)
		}
	case "unpin":
		if err := p.books.Catalog.(*catalog.Catalog).RemovePin(tagOne); err != nil {
			p.t.Fatal(err)
		}
	case "pull":
		if got := p.pullOnce(); got != s.want {
			p.t.Errorf("%s: got %q, want %q", at, got, s.want)
		}
	default:
		p.t.Fatalf("no event is called %q", s.do)
	}
	synctest.Wait()
	var calls []string
	for _, c := range p.hub.asked() {
		if c = p.named(c); len(calls) == 0 || c != calls[len(calls)-1] || !strings.HasPrefix(c, "rest") {
			calls = append(calls, c)
		}
	}
	if got := strings.Join(calls, ", "); got != s.calls {
		p.t.Errorf("%s: the registry was sent %q, want %q", at, got, s.calls)
	}
}

// named writes a call to the registry with the letter of its image. The manifests and blobs of an index are its "rest".
func (p *play) named(call string) string {
	call = strings.Replace(call, " "+app, " ", 1)
	for name, im := range p.images {
		call = strings.Replace(call, "@"+im.index.Digest.String(), name, 1)
		for _, m := range im.children {
			for _, d := range append([]oci.Digest{m.Digest}, m.Children[0].Digest, m.Children[1].Digest) {
				if strings.HasSuffix(call, d.String()) {
					return "rest " + name
				}
			}
		}
	}
	return strings.TrimSuffix(call, " :1")
}

// pullOnce pulls the tag as a client does, and writes what came.
func (p *play) pullOnce() string {
	p.t.Helper()
	a := ask(app, "1")
	a.Request.Head = p.byHead
	c, err := p.Manifest(p.t.Context(), a)
	if err != nil {
		held, isHeld := errors.AsType[*pull.HeldError](err)
		e, isFault := errors.AsType[*fault.Error](err)
		_, isFixed := errors.AsType[*pull.FixedError](err)
		switch {
		case isHeld:
			return "error held for " + time.Until(held.Until).String()
		case isFault && isFixed:
			return fmt.Sprint("error fixed ", e.Status)
		case isFault:
			return fmt.Sprint("error ", e.Status)
		}
		return "error " + err.Error()
	}
	got, s := p.letter(c.Digest), c.Status
	if c.Ref.Digest != c.Digest || c.Ref.Tag != "1" || s.Choice.Digest != c.Digest {
		p.t.Errorf("got %s as %s, chosen was %s", c.Digest, c.Ref, s.Choice.Digest)
	}
	if s.Stale != (s.Reason != nil) {
		p.t.Errorf("stale is %t, and the reason %v", s.Stale, s.Reason)
	}
	if s.Stale {
		got += " stale"
	}
	got += map[catalog.Hold]string{
		catalog.HeldByPin: " pin", catalog.HeldByImmutable: " first", catalog.HeldByMinAge: " held", catalog.HeldUnknown: " new",
	}[s.Choice.Hold]
	if p.byHead {
		whole, err := p.Manifest(p.t.Context(), ask(app, c.Digest.String()))
		if err != nil {
			return got + ", then " + err.Error()
		}
		c = whole
	}
	if digest.FromBytes(c.Bytes) != c.Digest {
		p.t.Errorf("the bytes of %s have another digest", c.Digest)
	}
	return got
}

// letter is the name of an image.
func (p *play) letter(d oci.Digest) string {
	for name, im := range p.images {
		if im.index.Digest == d {
			return name
		}
	}
	return d.String()
}

// TestTransitions has each transition of a tag's policy, with the requests to the registry. Each is played by clients that ask
// with GET, and by those that ask with HEAD first.
func TestTransitions(t *testing.T) {
	t.Parallel()
	const cold = "HEAD, GET a"
	hold := func(p *catalog.Policy) { p.MinAge = day }
	strict := func(p *catalog.Policy) { p.MinAge, p.HoldUnknown = day, true }
	fixed := func(p *catalog.Policy) { p.Immutable = true }
	first := func(p *catalog.Policy) { p.ServeStaleFirst = true }
	drop := func(p *catalog.Policy) { p.DropDeleted = true }
	for _, tt := range []struct {
		name    string
		change  func(*catalog.Policy)
		getOnly bool // clients that ask by HEAD first cause other requests
		steps   []step
	}{
		{"none, then young, then older", nil, false, []step{
			{"push a", "", ""},
			{"pull", "a", cold},
			{"push b", "", ""},
			{"wait 59s", "", ""},
			{"pull", "a", ""},
			{"wait 1s", "", ""},
			{"pull", "b", "HEAD, GET b"},
			{"pull", "b", ""},
			{"wait 1m", "", ""},
			{"pull", "b", "HEAD"},
		}},
		{"no tag", nil, false, []step{
			{"pull", "error 404", "HEAD"},
			{"push a", "", ""},
			{"pull", "error 404", ""},
			{"wait 10s", "", ""},
			{"pull", "a", cold},
		}},
		{"due", nil, false, []step{
			{"push a", "", ""},
			{"pull", "a", cold},
			{"push b", "", ""},
			{"wait 1s", "", ""},
			{"due", "", ""},
			{"pull", "b", "HEAD, GET b"},
			{"pull", "b", ""},
			{"wait 1s", "", ""},
			{"due", "", ""},
			{"restart", "", ""},
			{"status 503", "", ""},
			{"pull", "b stale", "HEAD"},
			{"wait 160h", "", ""},
			{"pull", "b stale", "HEAD"}, // having been due makes it not a moment older
			{"well", "", ""},
			{"wait 2s", "", ""},
			{"pull", "b", "HEAD"},
		}},
		{"registry down", nil, false, []step{
			{"push a", "", ""},
			{"pull", "a", cold},
			{"wait 1h", "", ""},
			{"status 0", "", ""},
			{"pull", "a stale", "HEAD"},
			{"pull", "a stale", ""},
			{"wait 167h", "", ""},
			{"pull", "a stale", "HEAD"},
			{"wait 2s", "", ""},
			{"pull", "error 0", "HEAD"},
		}},
		{"registry limits", nil, false, []step{
			{"push a", "", ""},
			{"pull", "a", cold},
			{"wait 1h", "", ""},
			{"status 429", "", ""},
			{"pull", "a stale", "HEAD"},
			{"pull", "a stale", ""},
			{"well", "", ""},
			{"wait 1s", "", ""},
			{"pull", "a", "HEAD"},
		}},
		{"registry hangs", nil, false, []step{
			{"push a", "", ""},
			{"pull", "a", cold},
			{"wait 1h", "", ""},
			{"slow 2h", "", ""},
			{"pull", "a stale", "HEAD"},
			{"pull", "a stale", ""}, // the same HEAD goes on
			{"well", "", ""},
			{"wait 2m", "", ""},
			{"pull", "a", "HEAD"},
		}},
		{"registry is slow, and healthy", nil, false, []step{
			{"push a", "", ""},
			{"slow 4s", "", ""},
			{"pull", "a", cold},
			{"wait 1h", "", ""},
			{"push b", "", ""},
			{"slow 2s", "", ""},
			{"pull", "b", "HEAD, GET b"},
			{"wait 1h", "", ""},
			{"push a", "", ""},
			{"slow 4900ms", "", ""},
			{"pull", "a", "HEAD"},
		}},
		{"the manifest does not come", nil, true, []step{
			{"push a", "", ""},
			{"pull", "a", cold},
			{"wait 1h", "", ""},
			{"push b", "", ""},
			{"gone b", "", ""},
			{"pull", "a stale", "HEAD"},
		}},
		{"deleted, keep", nil, false, []step{
			{"push a", "", ""},
			{"pull", "a", cold},
			{"wait 1h", "", ""},
			{"untag", "", ""},
			{"pull", "a stale", "HEAD"},
			{"wait 167h", "", ""},
			{"pull", "a stale", "HEAD"},
			{"wait 10s", "", ""},
			{"pull", "error 404", "HEAD"},
		}},
		{"deleted, drop", drop, false, []step{
			{"push a", "", ""},
			{"pull", "a", cold},
			{"untag", "", ""},
			{"pull", "a", ""},
			{"wait 1m", "", ""},
			{"pull", "error 404", "HEAD"},
			{"status 503", "", ""},
			{"wait 10s", "", ""},
			{"pull", "error 503", "HEAD"}, // it was believed
			{"well", "", ""},
			{"push b", "", ""},
			{"wait 10s", "", ""},
			{"pull", "b", "HEAD, GET b"},
		}},

		{"stale first", first, false, []step{
			{"push a", "", ""},
			{"pull", "a", cold},
			{"push b", "", ""},
			{"wait 1m", "", ""},
			{"pull", "a", ""},
			{"wait 1s", "", "HEAD"},
			{"pull", "b", "GET b"},
			{"wait 1m", "", ""},
			{"pull", "b", ""},
			{"pull", "b", ""},
			{"wait 1s", "", "HEAD"}, // one for both
			{"pull", "b", ""},
		}},
		{"stale first, registry down", first, false, []step{
			{"push a", "", ""},
			{"pull", "a", cold},
			{"status 503", "", ""},
			{"wait 1h", "", ""},
			{"pull", "a", ""},
			{"wait 1s", "", "HEAD"},
			{"wait 10s", "", ""},
			{"pull", "a", ""}, // a check that failed is not repeated at once
			{"wait 10s", "", ""},
			{"wait 1m", "", ""},
			{"pull", "a", ""},
			{"wait 1s", "", "HEAD"},
			{"wait 167h", "", ""},
			{"pull", "error 503", "HEAD"},
		}},
		{"stale first, due", first, false, []step{
			{"push a", "", ""},
			{"pull", "a", cold},
			{"push b", "", ""},
			{"wait 1s", "", ""},
			{"due", "", ""},
			{"pull", "b", "HEAD, GET b"},
		}},
		{"stale first, deleted, drop", func(p *catalog.Policy) { p.ServeStaleFirst, p.DropDeleted = true, true }, false, []step{
			{"push a", "", ""},
			{"pull", "a", cold},
			{"untag", "", ""},
			{"wait 1m", "", ""},
			{"pull", "a", ""},
			{"wait 1s", "", "HEAD"},
			{"pull", "error 404", ""},
		}},

		{"immutable", fixed, false, []step{
			{"push a", "", ""},
			{"pull", "a", cold},
			{"wait 20h", "", ""},
			{"pull", "a", ""},
			{"push b", "", ""},
			{"wait 4h", "", ""},
			{"pull", "a", ""},
			{"wait 1s", "", "HEAD"},
			{"pull", "a first", ""},
			{"restart", "", ""},
			{"pull", "a first", ""},
			{"wait 24h", "", ""},
			{"pull", "a first", ""},
			{"wait 1s", "", "HEAD"},
			{"push a", "", ""},
			{"wait 24h", "", ""},
			{"pull", "a first", ""},
			{"wait 1s", "", "HEAD"},
			{"pull", "a", ""},
		}},
		{"immutable, the registry is down for a month", fixed, false, []step{
			{"push a", "", ""},
			{"pull", "a", cold},
			{"status 0", "", ""},
			{"wait 720h", "", ""},
			{"pull", "a", "HEAD a"}, // whether the repository is still shown
			{"pull", "a", ""},
			{"wait 1s", "", "HEAD"},
		}},
		{"immutable, its content was evicted", fixed, false, []step{
			{"push a", "", ""},
			{"pull", "a", cold},
			{"evict a", "", ""},
			{"push b", "", ""},
			{"pull", "a", "GET a"},
			{"wait 24h", "", ""},
			{"pull", "a", ""},
			{"wait 1s", "", "HEAD"},
			{"evict a", "", ""},
			{"pull", "a first", "GET a"},
			{"evict a", "", ""},
			{"gone a", "", ""},
			{"pull", "error fixed 404", "GET a"}, // never b
			{"pin b", "", ""},
			{"wait 2s", "", ""},
			{"pull", "b pin", "GET b"},
		}},
		{"immutable, due", fixed, false, []step{
			{"push a", "", ""},
			{"pull", "a", cold},
			{"push b", "", ""},
			{"wait 1s", "", ""},
			{"due", "", ""},
			{"pull", "a", ""},
			{"wait 1s", "", "HEAD"},
			{"pull", "a first", ""},
		}},

		{"minAge", hold, false, []step{
			{"push a", "", ""},
			{"pull", "a new", cold}, // no other is known
			{"wait 23h59m59s", "", ""},
			{"pull", "a new", "HEAD"},
			{"wait 1s", "", ""},
			{"pull", "a", ""}, // it has come of age, and needs no check for that
			{"push b", "", ""},
			{"wait 1m", "", ""},
			{"pull", "a held", "HEAD"},
			{"wait 59s", "", ""},
			{"pull", "a held", ""},
			{"restart", "", ""},
			{"pull", "a held", ""},
			{"wait 23h59m", "", ""},
			{"pull", "a held", "HEAD"},
			{"wait 1s", "", ""},
			{"pull", "b", "GET b"},
		}},
		{"minAge, a digest after another", hold, false, []step{
			{"push a", "", ""},
			{"pull", "a new", cold},
			{"wait 24h", "", ""},
			{"push b", "", ""},
			{"pull", "a held", "HEAD"},
			{"wait 12h", "", ""},
			{"push c", "", ""},
			{"pull", "a held", "HEAD"},
			{"wait 12h", "", ""},
			{"pull", "a held", "HEAD"}, // b was withdrawn before it was old enough
			{"wait 12h", "", ""},
			{"pull", "c", "HEAD, GET c"},
			{"push b", "", ""},
			{"wait 1m", "", ""},
			{"pull", "c held", "HEAD"},
			{"push a", "", ""},
			{"wait 1m", "", ""},
			{"pull", "a", "HEAD"}, // it was old enough before
		}},
		{"minAge, pushed again before the first is old enough", hold, false, []step{
			{"push a", "", ""},
			{"pull", "a new", cold},
			{"wait 1h", "", ""},
			{"push b", "", ""},
			{"pull", "a new", "HEAD"},
			{"wait 23h", "", ""},
			{"pull", "a new", "HEAD"},
			{"wait 1h", "", ""},
			{"pull", "b", "HEAD, GET b"},
		}},
		{"minAge, registry down", hold, true, []step{ // a digest is asked for: the repository was not shown for a week
			{"push a", "", ""},
			{"pull", "a new", cold},
			{"wait 24h", "", ""},
			{"push b", "", ""},
			{"pull", "a held", "HEAD"},
			{"status 503", "", ""},
			{"wait 1h", "", ""},
			{"pull", "a stale held", "HEAD"},
			{"wait 23h", "", ""},
			{"pull", "a stale held", "HEAD"}, // b is due, and is not here
			{"wait 167h", "", ""},
			{"pull", "a stale held", "HEAD"},
			{"wait 1h1s", "", ""},
			{"pull", "error 503", "HEAD"},
		}},
		{"minAge, the older digest was evicted", hold, false, []step{
			{"push a", "", ""},
			{"pull", "a new", cold},
			{"wait 24h", "", ""},
			{"push b", "", ""},
			{"evict a", "", ""},
			{"pull", "a held", "HEAD, GET a"},
			{"evict a", "", ""},
			{"status 503", "", ""},
			{"wait 2s", "", ""},
			{"pull", "error fixed 503", "GET a"}, // never b
			{"well", "", ""},
			{"gone a", "", ""},
			{"wait 2s", "", ""},
			{"pull", "b new", "GET a, GET b"}, // no older digest is to be had
		}},
		{"minAge, due", hold, false, []step{
			{"push a", "", ""},
			{"pull", "a new", cold},
			{"wait 24h", "", ""},
			{"pull", "a", "HEAD"},
			{"push b", "", ""},
			{"wait 1s", "", ""},
			{"due", "", ""},
			{"pull", "a held", "HEAD"},
		}},
		{"minAge and stale first", func(p *catalog.Policy) { p.MinAge, p.ServeStaleFirst = day, true }, false, []step{
			{"push a", "", ""},
			{"pull", "a new", cold},
			{"wait 24h", "", ""},
			{"push b", "", ""},
			{"pull", "a", ""},
			{"wait 1s", "", "HEAD"},
			{"pull", "a held", ""},
			{"wait 24h", "", ""},
			{"pull", "b", "GET b"},
			{"wait 1s", "", "HEAD"},
		}},
		{"minAge, deleted, drop, and another image pushed", func(p *catalog.Policy) { p.MinAge, p.DropDeleted = day, true }, false, []step{
			{"push a", "", ""},
			{"pull", "a new", cold},
			{"wait 24h", "", ""},
			{"untag", "", ""},
			{"pull", "error 404", "HEAD"},
			{"wait 10s", "", ""},
			{"pull", "error 404", "HEAD"},
			{"push b", "", ""},
			{"wait 10s", "", ""},
			{"pull", "a held", "HEAD, GET a"}, // the registry still has a
		}},
		{"hold", strict, false, []step{
			{"push a", "", ""},
			{"pull", "error held for 24h0m0s", "HEAD"},
			{"pull", "error held for 24h0m0s", ""},
			{"wait 1m", "", ""},
			{"pull", "error held for 23h59m0s", "HEAD"},
			{"restart", "", ""},
			{"pull", "error held for 23h59m0s", ""},
			{"status 503", "", ""},
			{"wait 1m", "", ""},
			{"pull", "error 503", "HEAD"},
			{"well", "", ""},
			{"wait 23h58m", "", ""},
			{"pull", "a", "HEAD, GET a"},
			{"push b", "", ""},
			{"wait 1m", "", ""},
			{"pull", "a held", "HEAD"},
			{"evict a", "", ""},
			{"gone a", "", ""},
			{"pull", "error held for 24h0m0s", "GET a"},
			{"wait 24h", "", ""},
			{"pull", "b", "HEAD, GET b"},
		}},

		{"pinned", nil, false, []step{
			{"push a", "", ""},
			{"pull", "a", cold},
			{"push b", "", ""},
			{"wait 1m", "", ""},
			{"pull", "b", "HEAD, GET b"},
			{"pin a", "", ""},
			{"pull", "a pin", ""},
			{"wait 24h", "", "rest a"}, // all of it is kept
			{"status 0", "", ""},       // the registry is stopped
			{"pull", "a pin", ""},
			{"restart", "", ""},
			{"pull", "a pin", ""},
			{"unpin", "", ""},
			{"pull", "b stale", "HEAD"},
			{"well", "", ""},
			{"wait 2s", "", ""},
			{"pull", "b", "HEAD"},
		}},
		{"pinned to a digest that is not here", nil, false, []step{
			{"push a", "", ""},
			{"push b", "", ""},
			{"pin a", "", ""},
			{"pull", "a pin", "GET a"},
			{"gone a", "", ""},
			{"evict a", "", "GET a"}, // it is looked after
			{"wait 2s", "", ""},
			{"pull", "error fixed 404", "GET a"},
			{"unpin", "", ""},
			{"pull", "b", "HEAD, GET b"},
		}},
		{"pinned, under minAge", strict, false, []step{
			{"push a", "", ""},
			{"pull", "error held for 24h0m0s", "HEAD"},
			{"pin a", "", ""},
			{"pull", "a pin", "GET a"},
			{"unpin", "", ""},
			{"pull", "error held for 24h0m0s", ""},
		}},
	} {
		for _, byHead := range []bool{false, true} {
			if byHead && tt.getOnly {
				continue
			}
			t.Run(tt.name+map[bool]string{false: "", true: ", by HEAD"}[byHead], func(t *testing.T) {
				inBubble(t, func(t *testing.T, w *world) {
					p := &play{world: w, t: t, images: make(map[string]image), policy: policy, byHead: byHead}
					if tt.change != nil {
						tt.change(&p.policy)
					}
					w.use(w.hub, p.policy)
					for _, s := range tt.steps {
						p.happen(s)
					}
				})
			})
		}
	}
}

// However many clients pull a tag at once, by HEAD and by GET, one check is made, and all get the digest that the policy chooses:
// those that cause the check, those that join it, those that come later, and those that get a stale copy.
func TestGateHoldsForAllClients(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*catalog.Policy){
		"minAge":    func(p *catalog.Policy) { p.MinAge = day },
		"hold":      func(p *catalog.Policy) { p.MinAge, p.HoldUnknown = day, true },
		"immutable": func(p *catalog.Policy) { p.Immutable = true },
		"pinned":    nil,
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				a := w.hub.push(t, app, "1", "a")
				w.get(ask(app, "1")) // before the policy
				p := policy
				if change != nil {
					change(&p)
				} else if err := w.books.Catalog.(*catalog.Catalog).SetPin(catalog.Pin{Ref: tagOne, Digest: a.index.Digest}); err != nil {
					t.Fatal(err)
				}
				w.use(w.hub, p)
				time.Sleep(25 * time.Hour)
				w.hub.push(t, app, "1", "b")
				w.hub.asked()
				most := 1
				if change == nil {
					most = 0
				}
				for _, behave := range []func(){
					func() { w.hub.behave(nil, takes(3*time.Second)) },
					func() { w.hub.behave(status(503), takes(time.Second)) },
					func() { w.hub.behave(nil, takes(time.Hour)) },
				} {
					behave()
					var all sync.WaitGroup
					for i := range 60 {
						all.Go(func() {
							q := ask(app, "1")
							q.Request.Head, q.Client = i%2 == 0, fmt.Sprint("node-", i)
							time.Sleep(time.Duration(i) * 50 * time.Millisecond)
							c, err := w.Manifest(t.Context(), q)
							if err != nil || c.Digest != a.index.Digest || !q.Request.Head && digest.FromBytes(c.Bytes) != c.Digest {
								t.Errorf("client %d: %v, %v", i, c, err)
							}
						})
					}
					all.Wait()
					if calls := w.hub.asked(); len(calls) > most {
						t.Errorf("the registry was asked %d times: %v", len(calls), calls)
					}
					time.Sleep(time.Hour)
					w.hub.asked() // a check in the background
				}
			})
		})
	}
}

// A registry that says another digest by HEAD than its manifest has: the client gets an older copy, or an error, and never bytes
// of another digest.
func TestRegistryThatLiesAboutDigests(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		a := w.hub.push(t, app, "1", "a")
		w.get(ask(app, "1"))
		b := w.hub.push(t, app, "1", "b")
		w.hub.mu.Lock()
		w.hub.manifests[app+"@"+b.index.Digest.String()] = &oci.Manifest{
			Digest: b.index.Digest, Bytes: a.index.Bytes, MediaType: a.index.MediaType,
		}
		w.hub.mu.Unlock()
		for range 5 {
			time.Sleep(time.Hour)
			c := w.get(ask(app, "1"))
			if !c.Status.Stale || c.Digest != a.index.Digest || digest.FromBytes(c.Bytes) != c.Digest {
				t.Errorf("got %s, %+v", c.Digest, c.Status)
			}
			if err := w.fails(ask(app, b.index.Digest.String())); err == nil {
				t.Error("wrong bytes were served")
			}
		}
	})
}

// A tag is deleted upstream, and a manifest of its image is damaged on disk: what that names now is not forgotten.
func TestDeletedTagWithADamagedManifest(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		drop := policy
		drop.DropDeleted = true
		w.use(w.hub, drop)
		a, b := w.hub.push(t, app, "1", "a"), w.hub.push(t, app, "2", "b")
		w.pull(t, app, "1", a)
		w.pull(t, app, "2", b)
		w.shelf.set(a.children[0].Digest, b.children[0].Bytes)
		w.hub.mu.Lock()
		delete(w.hub.tags, app+":1")
		w.hub.mu.Unlock()
		time.Sleep(time.Minute)
		_ = w.fails(ask(app, "1"))
		for d, known := range map[oci.Digest]bool{
			a.index.Digest: false, a.children[0].Digest: false, b.children[0].Digest: true, b.children[0].Children[1].Digest: true,
		} {
			if m, err := w.books.Member(tagOne.Repo, d); err != nil || (m.Standing != catalog.Unknown) != known {
				t.Errorf("%s: %v, %v, want known %t", d, m.Standing, err, known)
			}
		}
	})
}

// One wrong answer to a HEAD ties no immutable tag to a digest that no client was ever served: only a manifest that has come, or two
// checks apart, make a digest the first one.
func TestWrongHeadTiesNoImmutableTag(t *testing.T) {
	said := oci.Descriptor{Digest: digest.FromString("of another image"), Size: 100, MediaType: "application/vnd.oci.image.index.v1+json"}
	fixed := policy
	fixed.Immutable = true
	inBubble(t, func(t *testing.T, w *world) {
		a := w.hub.push(t, app, "1", "a")
		w.use(&lateResolve{registry: w.hub, answers: []oci.Descriptor{said}}, fixed)
		if c := w.get(head(ask(app, "1"))); c.Digest != said.Digest {
			t.Errorf("got %s", c.Digest)
		}
		time.Sleep(time.Second)
		w.fresh(w.get(ask(app, "1")), a.index)
		b := w.hub.push(t, app, "1", "b")
		for range 3 {
			time.Sleep(25 * time.Hour)
			w.fresh(w.get(ask(app, "1")), a.index)
			time.Sleep(2 * time.Second) // a check in the background
			w.restart()
			w.use(w.hub, fixed)
		}
		if tag, err := w.books.Tag(tagOne); err != nil || tag.Digest != b.index.Digest {
			t.Errorf("the ledger: %+v, %v", tag, err)
		}
	})
	t.Run("two checks", func(t *testing.T) {
		inBubble(t, func(t *testing.T, w *world) {
			a := w.hub.push(t, app, "1", "a")
			w.use(w.hub, fixed)
			w.get(head(ask(app, "1")))
			w.get(head(ask(app, "1")))
			w.hub.wants(t, "HEAD acme/app:1")
			time.Sleep(time.Minute)
			w.get(head(ask(app, "1")))
			w.hub.push(t, app, "1", "b")
			time.Sleep(25 * time.Hour)
			for range 2 {
				c := w.get(head(ask(app, "1")))
				time.Sleep(2 * time.Second) // a check in the background
				if c.Digest != a.index.Digest {
					t.Errorf("got %s, want the digest that two checks had found", c.Digest)
				}
			}
			w.hub.wants(t, "HEAD acme/app:1", "HEAD acme/app:1", "GET acme/app@"+a.index.Digest.String())
		})
	})
}

// 10,000 pulls of 100 unchanged tags within maxAge cause no request and no write. After it, one HEAD for each tag.
// That holds for clients that have the images, too, which send HEAD alone.
func TestUnchangedTagsCostNothing(t *testing.T) {
	t.Run("GET and HEAD", func(t *testing.T) { unchangedTagsCostNothing(t, 3) })
	t.Run("HEAD alone", func(t *testing.T) { unchangedTagsCostNothing(t, 1) })
}

// unchangedTagsCostNothing has each n-th request be a HEAD.
func unchangedTagsCostNothing(t *testing.T, n int) {
	t.Helper()
	inBubble(t, func(t *testing.T, w *world) {
		var tags []string
		for i := range 100 {
			tags = append(tags, fmt.Sprintf("1.%d", i))
			w.hub.push(t, app, tags[i], fmt.Sprint(i))
			q := ask(app, tags[i])
			q.Request.Head = n == 1
			w.get(q)
		}
		pullAll := func(times int) {
			var all sync.WaitGroup
			for i := range times {
				for _, tag := range tags {
					all.Go(func() {
						q := ask(app, tag)
						q.Request.Head, q.Client = i%n == 0, fmt.Sprint("node-", i%10)
						if c, err := w.Manifest(t.Context(), q); err != nil || c.Status.Stale {
							t.Errorf("%s: %v", tag, err)
						}
					})
				}
			}
			all.Wait()
		}
		pullAll(10)                  // all clients have pulled
		time.Sleep(40 * time.Second) // what there is to write is written
		w.hub.asked()
		before := w.writes()
		pullAll(100)
		w.hub.wants(t)
		time.Sleep(40 * time.Second)
		if n := w.writes() - before; n != 0 {
			t.Errorf("10,000 pulls of unchanged tags caused %d writes", n)
		}

		pullAll(100)
		calls := w.hub.asked()
		slices.Sort(calls)
		if len(calls) != 100 || len(slices.Compact(calls)) != 100 || !strings.HasPrefix(calls[0], "HEAD ") {
			t.Errorf("after maxAge there were %d requests", len(calls))
		}
		time.Sleep(40 * time.Second)
		t.Logf("100 checks that found nothing new were written in %d transactions", w.writes()-before)
	})
}

// Which client got which digest is noted for each answer by tag, and for no other.
func TestServedClientsAreNoted(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		a := w.hub.push(t, app, "1", "a")
		by := func(client string, q pull.Ask) pull.Ask {
			q.Client = client
			return q
		}
		w.get(by("node-1", head(ask(app, "1"))))
		w.get(by("node-1", ask(app, a.index.Digest.String())))
		w.get(by("node-2", ask(app, "1")))
		w.get(by("node-3", ask(app, a.index.Digest.String()))) // it names no tag
		warm := by("", ask(app, "1"))
		warm.By = catalog.ByWarm
		w.get(warm)
		b := w.hub.push(t, app, "1", "b")
		time.Sleep(time.Hour)
		w.get(by("node-2", ask(app, "1")))
		w.hub.behave(status(503), nil)
		time.Sleep(time.Hour)
		w.get(by("node-4", ask(app, "1"))) // a stale copy
		artifact := "sha256-" + strings.Repeat("0", 64) + ".sig"
		w.hub.behave(nil, nil)
		w.hub.push(t, app, artifact, "c")
		w.get(by("node-5", ask(app, artifact)))

		got := make(map[string]oci.Digest)
		for _, tag := range []string{"1", artifact} {
			list, err := w.books.Catalog.(*catalog.Catalog).Clients(oci.Ref{Repo: tagOne.Repo, Tag: tag})
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range list {
				got[c.Client] = c.Digest
			}
		}
		want := map[string]oci.Digest{"node-1": a.index.Digest, "node-2": b.index.Digest, "node-4": b.index.Digest}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	})
}

// The move of a tag is one line of the log and one count, whatever its kind, and the ledger says how it was learnt.
func TestMovesAreLoggedOnce(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*catalog.Policy)
		pushes string
		moves  string
		lines  []string
		ledger string
	}{
		{
			"moved and back", nil, "abba", "moved reverted",
			[]string{`level=INFO msg="tag moved" ref=docker.io/acme/app:1`, `level=INFO msg="tag moved" ref=docker.io/acme/app:1`},
			"a check back, b check, a pull",
		},
		{
			"immutable", func(p *catalog.Policy) { p.Immutable = true }, "abbb", "immutable",
			[]string{`level=WARN msg="a tag that must not move has moved; its first digest is still served" ref=docker.io/acme/app:1`},
			"b check, a pull",
		},
		{
			"minAge", func(p *catalog.Policy) { p.MinAge = 100 * day }, "abc", "moved moved",
			[]string{`level=INFO msg="tag moved" ref=docker.io/acme/app:1`, `level=INFO msg="tag moved" ref=docker.io/acme/app:1`},
			"c check, b check, a pull",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				var log testlog.Log
				var moves []string
				w.log = slog.New(slog.NewTextHandler(&log, nil))
				w.moved = func(m pull.Move) {
					if m.Ref != tagOne {
						t.Errorf("moved is %v", m.Ref)
					}
					moves = append(moves, string(m.Kind))
				}
				p := policy
				if tt.change != nil {
					tt.change(&p)
				}
				w.restart()
				w.use(w.hub, p)
				names := make(map[oci.Digest]string)
				for _, seed := range tt.pushes {
					im := w.hub.push(t, app, "1", string(seed))
					names[im.index.Digest] = string(seed)
					time.Sleep(25 * time.Hour)
					w.get(ask(app, "1"))
					w.get(head(ask(app, "1")))
					time.Sleep(2 * time.Second) // checks in the background
					w.get(ask(app, "1"))
				}
				if got := strings.Join(moves, " "); got != tt.moves {
					t.Errorf("moves: %s, want %s", got, tt.moves)
				}
				var lines []string
				for line := range strings.Lines(log.String()) {
					_, line, _ = strings.Cut(line, " ") // without the time
					line, _, _ = strings.Cut(line, " digest=")
					lines = append(lines, line)
				}
				if diff := cmp.Diff(tt.lines, lines); diff != "" {
					t.Error(diff)
				}
				tag, err := w.books.Tag(tagOne)
				if err != nil {
					t.Fatal(err)
				}
				var ledger []string
				for _, s := range tag.History {
					text := names[s.Digest] + " " + string(s.Source)
					if s.Reversion {
						text += " back"
					}
					ledger = append(ledger, text)
				}
				if got := strings.Join(ledger, ", "); got != tt.ledger {
					t.Errorf("ledger: %s, want %s", got, tt.ledger)
				}
			})
		})
	}
}

// A push that is reported while a check runs: its answer may be from before the push, so the registry is asked once more.
func TestPushDuringACheck(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.hub.push(t, app, "1", "a")
		w.get(ask(app, "1"))
		time.Sleep(time.Hour)
		w.hub.asked()
		old, err := w.hub.Resolve(t.Context(), app, "1")
		if err != nil {
			t.Fatal(err)
		}
		w.hub.asked()
		late := &lateResolve{registry: w.hub, answers: []oci.Descriptor{old}}
		w.use(late, policy)
		w.hub.behave(nil, takes(time.Second))
		var b image
		go func() {
			time.Sleep(time.Second / 2)
			b = w.hub.push(t, app, "1", "b")
			if err := w.books.Expire(tagOne, catalog.ByWebhook, time.Now()); err != nil {
				t.Error(err)
			}
		}()
		c := w.get(ask(app, "1"))
		w.fresh(c, b.index)
		w.hub.wants(t, "HEAD acme/app:1", "HEAD acme/app:1", "GET acme/app@"+b.index.Digest.String())
	})
}

// The tags of signatures and the like are looked for again soon, since they are pushed right after the image; others are not.
func TestMissingSignaturesAreForgottenSoon(t *testing.T) {
	hex := strings.Repeat("0", 64)
	for tag, memory := range map[string]time.Duration{
		"sha256-" + hex + ".sig": 2 * time.Second, "sha256-" + hex: 2 * time.Second, "1.0": 10 * time.Second,
	} {
		t.Run(tag, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				_ = w.fails(ask(app, tag))
				w.hub.push(t, app, tag, "a")
				time.Sleep(memory - 1)
				_ = w.fails(ask(app, tag))
				w.hub.wants(t, "HEAD acme/app:"+tag)
				time.Sleep(time.Nanosecond)
				w.get(ask(app, tag))
			})
		})
	}
}

// No client with a copy waits more than a second for a sick registry, however many there are; and as long as it answers in time,
// none gets an older digest.
func TestClientsWaitForTheHealthyAndNotForTheSick(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		a := w.hub.push(t, app, "1", "a")
		w.get(ask(app, "1"))
		herd := func(most time.Duration, check func(*pull.Content)) {
			t.Helper()
			var all sync.WaitGroup
			for range 50 {
				all.Go(func() {
					var c *pull.Content
					if took := since(func() { c = w.get(ask(app, "1")) }); took > most {
						t.Errorf("a client waited %s", took)
					}
					check(c)
				})
			}
			all.Wait()
		}
		fresh := func(c *pull.Content) { w.fresh(c, a.index) }
		stale := func(c *pull.Content) {
			if !c.Status.Stale || c.Digest != a.index.Digest {
				t.Errorf("got %s, %+v", c.Digest, c.Status)
			}
		}
		for _, sick := range []func(){
			func() { w.hub.behave(nil, takes(time.Hour)) },
			func() { w.hub.behave(status(503), takes(4*time.Second)) },
			func() { w.hub.behave(status(429), nil) },
		} {
			w.hub.behave(nil, takes(4*time.Second))
			time.Sleep(time.Hour)
			herd(4*time.Second, fresh)
			sick()
			time.Sleep(time.Hour)
			herd(5*time.Second, stale) // it may yet answer
			for range 3 {
				time.Sleep(time.Hour)
				herd(time.Second, stale)
			}
			w.hub.behave(nil, nil)
			time.Sleep(time.Hour)
			herd(0, fresh)
		}
	})
}

// Many tags that are due for a check in the background, and a registry that hangs: a bounded number of checks runs.
func TestChecksInTheBackgroundAreBounded(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		p := policy
		p.Immutable = true
		w.use(w.hub, p)
		for i := range 300 {
			w.hub.push(t, app, fmt.Sprint("1.", i), "a")
			w.get(ask(app, fmt.Sprint("1.", i)))
		}
		time.Sleep(day)
		w.hub.asked()
		w.hub.behave(nil, takes(time.Hour))
		pullAll := func() {
			for i := range 300 {
				w.get(ask(app, fmt.Sprint("1.", i)))
			}
		}
		pullAll()
		time.Sleep(2 * time.Second)
		pullAll()
		if n := len(w.hub.asked()); n != 256 {
			t.Errorf("%d checks run at once", n)
		}
		time.Sleep(time.Hour)
		w.hub.behave(nil, nil)
		pullAll()
		time.Sleep(2 * time.Second)
		pullAll()
		time.Sleep(2 * time.Second)
		if n := len(w.hub.asked()); n != 300 {
			t.Errorf("%d tags were checked then", n)
		}
	})
}

// The ledger has the platforms of an index, and the size of an image, from when its manifest is here.
func TestImagesAreDescribed(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		p := policy
		p.MinAge = day // recorded before the manifest is here
		w.use(w.hub, p)
		a := w.hub.push(t, app, "1", "a")
		w.get(head(ask(app, "1")))
		tag, err := w.books.Tag(tagOne)
		if err != nil || len(tag.History) != 1 || tag.History[0].Platforms != nil {
			t.Fatalf("%+v, %v", tag, err)
		}
		w.get(ask(app, a.index.Digest.String()))
		child := a.children[0]
		w.hub.mu.Lock()
		w.hub.tags[app+":amd64"] = child.Digest
		w.hub.mu.Unlock()
		w.get(ask(app, "amd64"))
		w.restart()
		time.Sleep(time.Minute)
		if tag, err = w.books.Tag(tagOne); err != nil || !slices.Equal(tag.History[0].Platforms, []string{"linux/amd64", "linux/arm64"}) {
			t.Errorf("index: %+v, %v", tag, err)
		}
		want := int64(len(child.Bytes))
		for _, c := range child.Children {
			want += c.Size
		}
		tag, err = w.books.Tag(oci.Ref{Repo: tagOne.Repo, Tag: "amd64"})
		if err != nil || tag.History[0].Size != want {
			t.Errorf("image: %+v, %v; want %d bytes", tag, err, want)
		}
	})
}
