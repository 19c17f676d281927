package catalog_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/registrymirror/mirror/catalog"
	"github.com/registrymirror/mirror/internal/state/statetest"
	"github.com/registrymirror/mirror/oci"
)

// A machine whose clock was hours ahead has it set back and starts again: what was recorded then is as old as the start,
// and what the upstream says from then on is newer.
func TestClockIsSetBackOverARestart(t *testing.T) {
	t.Parallel()
	ref := oci.Ref{Repo: oci.Repo{Host: "docker.io", Name: "library/nginx"}, Tag: "1"}
	tags, refs := statetest.NewTable(), statetest.NewTable()
	synctest.Test(t, func(t *testing.T) { // three hours ahead
		time.Sleep(3 * time.Hour)
		c := catalog.New(tags, refs, catalog.Options{})
		moved(t, c, ref, catalog.Tag{}, aa)
	})
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Minute)
		c := catalog.New(tags, refs, catalog.Options{})
		was, err := c.Tag(ref)
		if err != nil || was.Digest != aa || was.Checked.After(time.Now()) {
			t.Fatalf("%+v, %v", was, err)
		}
		time.Sleep(2 * time.Minute)
		p := catalog.Policy{MaxAge: time.Minute, StaleIfError: time.Hour}
		if verdict := was.Judge(p, time.Now()); verdict != catalog.Ask {
			t.Errorf("after two minutes: %v", verdict)
		}
		if next := moved(t, c, ref, was, bb); next.Digest != bb || !next.Checked.Equal(time.Now()) {
			t.Errorf("the new word: %+v", next)
		}
	})
}
