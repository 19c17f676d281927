package pull_test

import (
	"context"
	"net/url"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/registrymirror/mirror/cache"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/pull"
	"github.com/registrymirror/mirror/upstream"
)

func askTags(repo string, query url.Values) pull.Ask {
	return pull.Ask{Request: oci.Request{Kind: oci.KindTags, Name: repo, Query: query}}
}

func TestTagsArePassedOn(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.hub.lists[app] = &upstream.Document{
			Bytes: []byte(`{"tags":["1"]}`), MediaType: "application/json", Next: "last=1&n=1",
		}
		c, err := w.Tags(t.Context(), askTags(app, url.Values{"n": {"1"}}))
		if err != nil {
			t.Fatal(err)
		}
		type answer struct {
			Body, Type, Link string
			Size             int64
			Status           pull.Status
		}
		want := answer{`{"tags":["1"]}`, "application/json", "?last=1&n=1", 14, pull.Status{Outcome: cache.Miss}}
		got := answer{string(c.Bytes), c.MediaType, c.Link, c.Size, c.Status}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("answer (-want +got):\n%s", diff)
		}
		w.hub.wants(t, "TAGS acme/app:n=1")
		if _, err := w.Tags(t.Context(), askTags(app, nil)); err != nil {
			t.Error(err)
		}
		w.hub.wants(t, "TAGS acme/app:")
	})
}

func TestReferrersArePassedOn(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		d := descriptor("", []byte("x")).Digest
		w.hub.lists[app+"@"+d.String()] = &upstream.Document{
			Bytes: oci.EmptyIndex(), MediaType: oci.MediaTypeOCIIndex, Filters: "artifactType",
		}
		c, err := w.Referrers(t.Context(), pull.Ask{Request: oci.Request{Kind: oci.KindReferrers, Name: app, Digest: d}})
		if err != nil {
			t.Fatal(err)
		}
		if string(c.Bytes) != string(oci.EmptyIndex()) || c.Filters != "artifactType" || c.Link != "" ||
			c.MediaType != oci.MediaTypeOCIIndex {
			t.Errorf("answer %+v", c)
		}
	})
}

func TestListsAreServedStale(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.hub.lists[app] = &upstream.Document{Bytes: []byte(`{}`)}
		tags := func() (*pull.Content, error) { return w.Tags(context.Background(), askTags(app, nil)) }
		if _, err := tags(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		for _, code := range []int{0, 401, 403, 429, 500} {
			w.hub.behave(status(code), nil)
			c, err := tags()
			if err != nil || string(c.Bytes) != "{}" || !c.Status.Stale || c.Status.Reason == nil {
				t.Errorf("%d: %+v, %v", code, c, err)
			}
			time.Sleep(time.Hour)
		}
		w.hub.behave(nil, takes(10*time.Second))
		var c *pull.Content
		if took := since(func() { c, _ = tags() }); took != 5*time.Second || !c.Status.Stale {
			t.Errorf("slow: took %s, status %+v", took, c.Status)
		}
		time.Sleep(time.Hour)
		w.hub.behave(status(404), nil) // that is an answer
		if c, err := tags(); err == nil {
			t.Errorf("404: %+v", c)
		}
		w.hub.behave(status(500), nil)
		time.Sleep(policy.StaleIfError)
		if c, err := tags(); err == nil {
			t.Errorf("too old: %+v", c)
		}
	})
}

// A list is as old as a tag may be. After Forget it is asked for again.
func TestListsHaveATimeToLive(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.hub.lists[app] = &upstream.Document{Bytes: []byte(`{"tags":["1"]}`)}
		d := descriptor("", []byte("x")).Digest
		w.hub.lists[app+"@"+d.String()] = &upstream.Document{Bytes: oci.EmptyIndex()}
		lists := func() (tags, referrers *pull.Content) {
			t.Helper()
			tags, err := w.Tags(t.Context(), askTags(app, nil))
			if err != nil {
				t.Fatal(err)
			}
			referrers, err = w.Referrers(t.Context(), pull.Ask{Request: oci.Request{Kind: oci.KindReferrers, Name: app, Digest: d}})
			if err != nil {
				t.Fatal(err)
			}
			return tags, referrers
		}
		asked := []string{"TAGS acme/app:", "REFERRERS acme/app@" + d.String() + ":"}
		lists()
		w.hub.wants(t, asked...)
		time.Sleep(policy.MaxAge - time.Second)
		for _, c := range []func() (tags, referrers *pull.Content){lists, lists} {
			tags, referrers := c()
			want := pull.Status{Outcome: cache.Hit, Age: policy.MaxAge - time.Second}
			if tags.Status != want || referrers.Status != want {
				t.Errorf("%+v, %+v", tags.Status, referrers.Status)
			}
		}
		w.hub.wants(t)
		time.Sleep(time.Second)
		lists()
		w.hub.wants(t, asked...)
		w.Forget(oci.Repo{Host: hub, Name: app})
		lists()
		w.hub.wants(t, asked...)
	})
}

func TestListsAreAskedForOnceByMany(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.hub.lists[app] = &upstream.Document{Bytes: []byte(`{}`)}
		w.hub.behave(nil, takes(time.Second))
		done := make(chan bool, 100)
		for range cap(done) {
			go func() {
				c, err := w.Tags(context.Background(), askTags(app, nil))
				done <- err == nil && c.Status.Collapsed
			}()
		}
		collapsed := 0
		for range cap(done) {
			if <-done {
				collapsed++
			}
		}
		if collapsed != 99 {
			t.Errorf("%d of 100 shared a trip", collapsed)
		}
		w.hub.wants(t, "TAGS acme/app:")
		w.hub.behave(nil, takes(30*time.Second))
		other := askTags("acme/other", nil)
		if took := since(func() {
			if _, err := w.Tags(context.Background(), other); !isTimeout(err) {
				t.Errorf("got %v", err)
			}
		}); took != 25*time.Second {
			t.Errorf("took %s", took)
		}
	})
}
