package catalog_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/registrymirror/mirror/catalog"
	"github.com/registrymirror/mirror/internal/state"
	"github.com/registrymirror/mirror/internal/state/statetest"
	"github.com/registrymirror/mirror/oci"
)

// expire records that a tag has moved, now.
func expire(t *testing.T, c *catalog.Catalog, repo oci.Repo, tag string) {
	t.Helper()
	if err := c.Expire(oci.Ref{Repo: repo, Tag: tag}, catalog.ByWebhook, time.Now()); err != nil {
		t.Fatal(err)
	}
}

// A tag that has expired is due until it was checked, also over a restart. It is as old as before.
func TestExpired(t *testing.T) {
	t.Parallel()
	for name, tag := range map[string]string{"the tag": "latest", "all tags": ""} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				tags := statetest.NewTable()
				c := catalog.New(tags, statetest.NewTable(), catalog.Options{})
				ref, other := oci.Ref{Repo: nginx, Tag: "latest"}, oci.Ref{Repo: acme, Tag: "latest"}
				was := moved(t, c, ref, catalog.Tag{}, aa)
				moved(t, c, other, catalog.Tag{}, aa)
				time.Sleep(time.Second)
				asked := time.Now()
				time.Sleep(time.Second)
				if was.Due() {
					t.Error("due, and nothing was said")
				}
				expire(t, c, nginx, tag)
				for _, c := range []*catalog.Catalog{c, catalog.New(tags, statetest.NewTable(), catalog.Options{})} {
					got, err := c.Tag(ref)
					if err != nil || !got.Due() || !got.Checked.Equal(was.Checked) || !got.Expired.Equal(time.Now()) ||
						got.ExpiredBy != catalog.ByWebhook {
						t.Errorf("%+v, %v", got, err)
					}
					if got, err := c.Tag(other); err != nil || got.Due() {
						t.Errorf("another repository's: %+v, %v", got, err)
					}
				}
				// An answer to a request from before counts for the age, and leaves it due.
				got, err := c.Moved(ref, was, aa, asked, catalog.ByCheck)
				if err != nil || !got.Due() || !got.Checked.Equal(asked) {
					t.Errorf("an answer to an older request: %+v, %v", got, err)
				}
				if got := moved(t, c, ref, got, bb); got.Due() || got.Digest != bb {
					t.Errorf("checked: %+v", got)
				}
				if got, err := c.Tag(ref); err != nil || got.Due() {
					t.Errorf("checked: %+v, %v", got, err)
				}
				writes := tags.Writes()
				if err := c.Expire(oci.Ref{Repo: nginx, Tag: tag}, catalog.ByWebhook, asked); err != nil || tags.Writes() != writes {
					t.Errorf("a late report, of before the check: %d writes, %v", tags.Writes()-writes, err)
				}
			})
		})
	}
}

// What is not known is asked for in any case: reports on it cost no write.
func TestExpireUnknown(t *testing.T) {
	t.Parallel()
	tags := statetest.NewTable()
	c := catalog.New(tags, statetest.NewTable(), catalog.Options{})
	expire(t, c, nginx, "latest")
	expire(t, c, nginx, "")
	if n := tags.Writes(); n != 0 {
		t.Errorf("%d writes", n)
	}
	moved(t, c, oci.Ref{Repo: oci.Repo{Host: nginx.Host, Name: nginx.Name + "x"}, Tag: "latest"}, catalog.Tag{}, aa)
	expire(t, c, nginx, "")
	if n := tags.Writes(); n != 1 {
		t.Errorf("%d writes: a repository with a longer name is another one", n)
	}
}

// Many reports in a row are one write for a tag, and a check between two of them does not end the second.
func TestExpiredAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tags := statetest.NewTable()
		c := catalog.New(tags, statetest.NewTable(), catalog.Options{})
		ref := oci.Ref{Repo: nginx, Tag: "latest"}
		moved(t, c, ref, catalog.Tag{}, aa)
		for range 10 {
			time.Sleep(time.Second)
			expire(t, c, nginx, "latest")
		}
		if n := tags.Writes(); n != 2 {
			t.Errorf("%d writes, want 2", n)
		}
		got, err := c.Moved(ref, catalog.Tag{}, aa, time.Now().Add(-500*time.Millisecond), catalog.ByWebhook)
		if err != nil || !got.Due() {
			t.Errorf("a check of before the last report: %+v, %v", got, err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_ = c.Run(ctx)
		if got, err := catalog.New(tags, statetest.NewTable(), catalog.Options{}).Tag(ref); err != nil || !got.Due() {
			t.Errorf("after a restart: %+v, %v", got, err)
		}
	})
}

func TestDescribe(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tags := statetest.NewTable()
		c := catalog.New(tags, statetest.NewTable(), catalog.Options{})
		ref := oci.Ref{Repo: nginx, Tag: "latest"}
		c.Describe(ref, aa, 1, nil) // not known
		for _, d := range []oci.Digest{aa, bb, aa} {
			moved(t, c, ref, catalog.Tag{}, d)
			time.Sleep(time.Minute)
		}
		writes := tags.Writes()
		many := append(slices.Repeat([]string{"linux/amd64"}, 100), strings.Repeat("x", 1000))
		for range 3 {
			c.Describe(ref, aa, 77, []string{"linux/amd64", "linux/arm64"})
			c.Describe(ref, bb, 5, many)
			c.Describe(ref, cc, 5, nil)
		}
		if tags.Writes() != writes {
			t.Error("a description is not written at once")
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_ = c.Run(ctx)
		moved(t, c, ref, catalog.Tag{}, bb) // what is known of it is known again
		for _, c := range []*catalog.Catalog{c, catalog.New(tags, statetest.NewTable(), catalog.Options{})} {
			got, err := c.Tag(ref)
			if err != nil || len(got.History) != 4 {
				t.Fatalf("%+v, %v", got, err)
			}
			for i, size := range []int64{5, 77, 5, 77} {
				if s := got.History[i]; s.Size != size || size == 77 && !slices.Equal(s.Platforms, []string{"linux/amd64", "linux/arm64"}) ||
					size == 5 && len(s.Platforms) != 32 || s.Reversion != (i < 2) {
					t.Errorf("%d: %+v", i, s)
				}
			}
		}
	})
}

// A list is in order, has what is not written yet, and leaves out what can't be read.
func TestTags(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tags := statetest.NewTable()
		c := catalog.New(tags, statetest.NewTable(), catalog.Options{})
		port := oci.Repo{Host: "good.example:5000", Name: "team/app"}
		for _, ref := range []oci.Ref{{Repo: port, Tag: "v1"}, {Repo: nginx, Tag: "b"}, {Repo: nginx, Tag: "a"}, {Repo: acme, Tag: "x"}} {
			moved(t, c, ref, catalog.Tag{}, aa)
		}
		if _, err := tags.Swap("docker.io/library/nginx:damaged", 0, []byte("x")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		expire(t, c, nginx, "")
		moved(t, c, oci.Ref{Repo: nginx, Tag: "b"}, catalog.Tag{}, aa)
		for _, ref := range []oci.Ref{{Repo: oci.Repo{Host: "zz.example", Name: "app"}, Tag: "1"}, {Repo: nginx, Tag: "aa"}, {Repo: nginx, Tag: "b"}} {
			if err := c.Reported(ref, aa, time.Now(), catalog.ByPull); err != nil {
				t.Fatal(err)
			}
		}
		list := func(prefix string) (names []string) {
			for tag, err := range c.Tags(prefix) {
				if err != nil {
					t.Fatal(err)
				}
				name := tag.Ref.String()
				if tag.Due() {
					name += " due"
				}
				if got, err := c.Tag(tag.Ref); err != nil || !cmp.Equal(got, tag) {
					t.Errorf("%s: %v %s", name, err, cmp.Diff(got, tag))
				}
				names = append(names, name)
			}
			return names
		}
		want := []string{
			"docker.io/library/nginx:a due", "docker.io/library/nginx:aa", "docker.io/library/nginx:b", "ghcr.io/acme/app:x",
			"good.example:5000/team/app:v1", "zz.example/app:1",
		}
		if got := list(""); !slices.Equal(got, want) {
			t.Errorf("%q", got)
		}
		if got := list("ghcr.io/"); !slices.Equal(got, want[3:4]) {
			t.Errorf("%q", got)
		}
		for _, err := range c.Tags("") {
			if err != nil {
				t.Error(err)
			}
			break
		}
	})
}

func TestArtifactTags(t *testing.T) {
	t.Parallel()
	hex := strings.Repeat("0123456789abcdef", 8)
	for tag, want := range map[string]bool{
		"sha256-" + hex[:64]: true, "sha256-" + hex[:64] + ".sig": true, "sha256-" + hex[:64] + ".att": true,
		"sha256-" + hex[:64] + ".sbom": true, "sha512-" + hex: true, "sha512-" + hex[:64]: true, "sha384-" + hex[:96] + ".sig": true,
		"sha256-" + hex[:64] + "-debug": false, "sha256-" + hex[:63]: false, "sha256-" + hex[:65]: false,
		"sha256-" + strings.ToUpper(hex[:64]): false, "md5-" + hex[:64]: false, "sha256": false, "latest": false, "": false,
		"1.27-alpine": false, "sha-0123456": false, "app-sha256-" + hex[:64]: false,
	} {
		if got := catalog.IsArtifactTag(tag); got != want {
			t.Errorf("%s: %v", tag, got)
		}
	}
}

// A table that can't be read makes no tag due, and no call hang.
func TestExpireWithATableThatFails(t *testing.T) {
	t.Parallel()
	tags := statetest.NewTable()
	c := catalog.New(tags, statetest.NewTable(), catalog.Options{})
	ref := oci.Ref{Repo: nginx, Tag: "latest"}
	moved(t, c, ref, catalog.Tag{}, aa)
	broken := errors.New("read-only file system")
	tags.SetFail(func() error { return broken })
	for _, tag := range []string{"latest", ""} {
		if err := c.Expire(oci.Ref{Repo: nginx, Tag: tag}, catalog.ByWebhook, time.Now()); !errors.Is(err, broken) {
			t.Errorf("%q: %v", tag, err)
		}
	}
	if got, err := c.Tag(ref); err != nil || got.Due() {
		t.Errorf("%+v, %v", got, err)
	}
}

// What a call has recorded when it returns is in the file, whatever happens to the process then. A record of an earlier version is
// read, and becomes one of this version with the tag's next move.
func TestKilledAfterACall(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	open := func(name string) (*state.DB, *catalog.Catalog) {
		db, err := state.Open(filepath.Join(dir, name), state.Options{
			Expendable: catalog.Tables(), Owner: catalog.Owner, Age: catalog.Age,
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = db.Close() })
		return db, catalog.New(db.Table("tags"), db.Table("refs"), catalog.Options{
			Clients: db.Table("clients"), Pins: db.Table("pins"),
		})
	}
	db, c := open("state.db")
	n := 0
	killed := func() *catalog.Catalog { // and started again
		t.Helper()
		n++
		b, err := os.ReadFile(filepath.Join(dir, "state.db"))
		if err != nil {
			t.Fatal(err)
		}
		name := fmt.Sprint(n, ".db")
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
		_, c := open(name)
		return c
	}
	ref, old := oci.Ref{Repo: acme, Tag: "v1"}, oci.Ref{Repo: nginx, Tag: "old"}
	v := fmt.Sprintf(`{"digest":%q,"checked":"2026-01-02T03:04:05Z","history":[{"Digest":%[1]q,"First":"2026-01-01T00:00:00Z",`+
		`"Last":"2026-01-02T03:04:05Z"}]}`, aa)
	if err := db.Table("tags").Write([]state.Item{{Key: old.String(), Value: []byte(v)}}); err != nil {
		t.Fatal(err)
	}
	moved(t, c, ref, catalog.Tag{}, aa)
	if got, err := killed().Tag(ref); err != nil || got.Digest != aa || got.Due() {
		t.Errorf("moved: %+v, %v", got, err)
	}
	expire(t, c, acme, "v1")
	if got, err := killed().Tag(ref); err != nil || !got.Due() {
		t.Errorf("expired: %+v, %v", got, err)
	}
	moved(t, c, ref, catalog.Tag{}, bb)
	if got, err := killed().Tag(ref); err != nil || got.Digest != bb || got.Due() || len(got.History) != 2 {
		t.Errorf("moved again: %+v, %v", got, err)
	}
	if got, err := c.Tag(old); err != nil || got.Digest != aa || len(got.History) != 1 {
		t.Errorf("a record of an earlier version: %+v, %v", got, err)
	}
	expire(t, c, nginx, "")
	if got, err := killed().Tag(old); err != nil || !got.Due() {
		t.Errorf("all tags expired: %+v, %v", got, err)
	}
	moved(t, c, old, catalog.Tag{}, cc)
	if got, err := killed().Tag(old); err != nil || got.Due() || len(got.History) != 2 || got.History[1].Digest != aa {
		t.Errorf("moved: %+v, %v", got, err)
	}
	if err := c.SetPin(catalog.Pin{Ref: ref, Digest: aa}); err != nil {
		t.Fatal(err)
	}
	if pin, ok := killed().Pinned(ref, time.Now()); !ok || pin.Digest != aa {
		t.Errorf("pinned: %+v, %v", pin, ok)
	}
	if err := c.RemovePin(ref); err != nil {
		t.Fatal(err)
	}
	if pin, ok := killed().Pinned(ref, time.Now()); ok {
		t.Errorf("the pin was removed: %+v", pin)
	}
}
