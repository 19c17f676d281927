package pull_test

import (
	"context"
	"testing"
	"time"

	"github.com/registrymirror/mirror/catalog"
	"github.com/registrymirror/mirror/oci"
)

// latest asks for the digest of a tag, as a schedule does, and checks which requests that costs.
func (w *world) latest(t *testing.T, tag string, want oci.Digest, requests ...string) {
	t.Helper()
	got, err := w.Latest(context.Background(), appRef(tag, ""))
	if err != nil || got != want {
		t.Errorf("%s is %s, %v; want %s", tag, got, err, want)
	}
	w.hub.wants(t, requests...)
}

// A tag is asked for by one HEAD when its record is older than maxAge, and after a report that it has moved.
func TestLatest(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		one := w.hub.push(t, app, "v1", "one")
		w.latest(t, "v1", one.index.Digest, "HEAD acme/app:v1")
		w.latest(t, "v1", one.index.Digest)
		two := w.hub.push(t, app, "v1", "two")
		time.Sleep(59 * time.Second)
		w.latest(t, "v1", one.index.Digest)
		time.Sleep(time.Second)
		w.latest(t, "v1", two.index.Digest, "HEAD acme/app:v1")

		w.get(ask(app, "v1"))
		w.hub.asked()
		three := w.hub.push(t, app, "v1", "three")
		time.Sleep(10 * time.Second)
		if err := w.books.Expire(appRef("v1", ""), catalog.ByWebhook, time.Now()); err != nil {
			t.Fatal(err)
		}
		w.latest(t, "v1", three.index.Digest, "HEAD acme/app:v1")

		if err := w.pinTo("v1", one.index.Digest, time.Time{}); err != nil {
			t.Fatal(err)
		}
		w.hub.asked()
		time.Sleep(time.Hour)
		w.latest(t, "v1", one.index.Digest)
		if _, err := w.Latest(context.Background(), appRef("none", "")); err == nil {
			t.Error("a tag that is not there: no error")
		}
	})
}

// What is brought ahead is what nodes are going to pull: under minAge the new digest, of an immutable tag the first one.
func TestLatestByPolicy(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		one := w.hub.push(t, app, "v1", "one")
		w.get(ask(app, "v1"))
		w.hub.asked()
		w.use(w.hub, catalog.Policy{MaxAge: time.Minute, MinAge: time.Hour, StaleIfError: time.Hour, Wait: time.Second})
		w.latest(t, "v1", one.index.Digest)
		two := w.hub.push(t, app, "v1", "two")
		time.Sleep(2 * time.Minute)
		w.latest(t, "v1", two.index.Digest, "HEAD acme/app:v1")

		w.use(w.hub, catalog.Policy{Immutable: true, StaleIfError: time.Hour, Wait: time.Second})
		w.latest(t, "v1", one.index.Digest)
		time.Sleep(24 * time.Hour)
		w.latest(t, "v1", one.index.Digest, "HEAD acme/app:v1")
	})
}
