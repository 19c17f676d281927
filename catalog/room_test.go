package catalog_test

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/registrymirror/mirror/catalog"
	"github.com/registrymirror/mirror/internal/state"
	"github.com/registrymirror/mirror/oci"
)

// Tags that one client makes up, all of one cached manifest, take room from their own repository alone: other tags, and
// what is known of content, stay; of the repository's own the last ones do.
func TestFloodOfTags(t *testing.T) {
	t.Parallel()
	const most = 256 << 10
	db, err := state.Open(filepath.Join(t.TempDir(), "state.db"), state.Options{
		Expendable: map[string]int64{"refs": most * 7 / 16, "tags": most * 7 / 16}, Owner: catalog.Owner, Age: catalog.Age,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	open := func() *catalog.Catalog {
		return catalog.New(db.Table("tags"), db.Table("refs"), catalog.Options{})
	}
	c, start := open(), time.Now().Add(-time.Hour)
	digest := named("content")
	honest := oci.Repo{Host: "good.example:5000", Name: "team/app"}
	tag := func(repo oci.Repo, i int) oci.Ref { return oci.Ref{Repo: repo, Tag: fmt.Sprintf("v%d", i)} }
	for i := range 100 {
		if _, err := c.Moved(tag(honest, i), catalog.Tag{}, digest, start, catalog.ByCheck); err != nil {
			t.Fatal(err)
		}
		if err := c.LearnBlob(honest, oci.Descriptor{Digest: named(fmt.Sprint(i)), Size: 1}, catalog.ShownToAll); err != nil {
			t.Fatal(err)
		}
	}
	flood := oci.Repo{Host: "good.example:5000", Name: "public/many"}
	const made = 2500
	for i := range made {
		if _, err := c.Moved(tag(flood, i), catalog.Tag{}, digest, start.Add(time.Duration(i)*time.Second/10), catalog.ByCheck); err != nil {
			t.Fatal(err)
		}
	}
	if used := db.Used(); used > most {
		t.Errorf("%d bytes are in use of %d", used, most)
	}
	c = open()
	for i := range 100 {
		if _, err := c.Tag(tag(honest, i)); err != nil {
			t.Errorf("tag %d: %v", i, err)
		}
		if m, err := c.Member(honest, named(fmt.Sprint(i))); err != nil || m.Standing != catalog.ShownToAll {
			t.Errorf("content %d: %+v, %v", i, m, err)
		}
	}
	if _, err := c.Tag(tag(flood, made-1)); err != nil {
		t.Errorf("the newest of the flood: %v", err)
	}
	if _, err := c.Tag(tag(flood, 0)); err == nil {
		t.Error("the oldest of the flood is there: nothing was shown")
	}
}
