package catalog_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/registrymirror/mirror/catalog"
	"github.com/registrymirror/mirror/internal/state"
	"github.com/registrymirror/mirror/internal/state/statetest"
	"github.com/registrymirror/mirror/oci"
)

var cc = digest.FromString("cc")

func moved(t *testing.T, c *catalog.Catalog, ref oci.Ref, from catalog.Tag, to oci.Digest) catalog.Tag {
	t.Helper()
	tag, err := c.Moved(ref, from, to, time.Now(), catalog.ByCheck)
	if err != nil {
		t.Fatal(err)
	}
	return tag
}

// Two checks of a tag overlap: the result of each, and the record that stays.
func TestWordsThatMeet(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		first oci.Digest // known to a caller when it asked
		other oci.Digest // recorded by another caller meanwhile
		found oci.Digest // found by the caller then
		want  oci.Digest
	}{
		{"both found the same", aa, bb, bb, bb},
		{"unchanged, against a move", aa, bb, aa, bb},
		{"a move, against another", aa, bb, cc, cc},
		{"a move, against unchanged", aa, aa, bb, bb},
		{"nothing known, against the same", "", aa, aa, aa},
		{"nothing known, against another", "", aa, bb, bb},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tags := statetest.NewTable()
			c := catalog.New(tags, statetest.NewTable(), catalog.Options{})
			ref := oci.Ref{Repo: nginx, Tag: "latest"}
			var from catalog.Tag
			if tt.first != "" {
				from = moved(t, c, ref, catalog.Tag{}, tt.first)
			}
			moved(t, c, ref, from, tt.other)
			if got := moved(t, c, ref, from, tt.found); got.Digest != tt.want {
				t.Errorf("the caller gets %s, want %s", got.Digest, tt.want)
			}
			for name, c := range map[string]*catalog.Catalog{
				"memory": c, "table": catalog.New(tags, statetest.NewTable(), catalog.Options{}),
			} {
				if got, err := c.Tag(ref); err != nil || got.Digest != tt.want || got.History[0].Digest != tt.want {
					t.Errorf("%s has %s, %v; want %s", name, got.Digest, err, tt.want)
				}
			}
		})
	}
}

// A digest that was only reported waits for the batch; once its manifest is here the record is written at once. Of reports that meet the
// later one counts.
func TestOnlyReported(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLedger()
		ref, start := oci.Ref{Repo: nginx, Tag: "1"}, time.Now()
		report := func(d oci.Digest, at time.Time) catalog.Tag {
			t.Helper()
			if err := l.Reported(ref, d, at, catalog.ByPull); err != nil {
				t.Fatal(err)
			}
			tag, err := l.Tag(ref)
			if err != nil {
				t.Fatal(err)
			}
			return tag
		}
		if tag := report(aa, start); tag.Digest != aa || !tag.IsReported() || l.tags.Writes() != 0 {
			t.Errorf("%+v, %d writes", tag, l.tags.Writes())
		}
		if err := l.Expire(oci.Ref{Repo: nginx}, catalog.ByWebhook, start.Add(-time.Second)); err != nil || l.tags.Writes() != 1 {
			t.Errorf("all tags have expired: %v, %d writes", err, l.tags.Writes())
		}
		time.Sleep(time.Hour)
		if tag := report(bb, time.Now()); tag.Digest != bb || len(tag.History) != 2 || !tag.IsReported() {
			t.Errorf("%+v", tag)
		}
		if tag := report(aa, start.Add(time.Minute)); tag.Digest != bb || len(tag.History) != 2 {
			t.Errorf("a late report: %+v", tag)
		}
		l.flush(t)
		l.restart()
		writes := l.tags.Writes()
		tag, err := l.Moved(ref, catalog.Tag{}, bb, time.Now(), catalog.ByCheck)
		if err != nil || tag.IsReported() || tag.History[0].Source != catalog.ByPull || len(tag.History) != 2 || l.tags.Writes() != writes+1 {
			t.Errorf("its manifest is here: %+v, %v, %d writes", tag, err, l.tags.Writes()-writes)
		}
		l.restart()
		if got, err := l.Tag(ref); err != nil || got.IsReported() || !got.History[1].Reported {
			t.Errorf("after a crash: %+v, %v", got, err)
		}
		l.Describe(ref, aa, 7, nil)
		if tag := report(aa, time.Now()); tag.IsReported() || tag.History[2].Reported || tag.History[0].Size != 7 {
			t.Errorf("back to one that is known by its manifest: %+v", tag)
		}
	})
}

// The writes of another catalog on the same table count, and older values in memory are dropped.
func TestTwoOnOneTable(t *testing.T) {
	t.Parallel()
	tags := statetest.NewTable()
	one := catalog.New(tags, statetest.NewTable(), catalog.Options{})
	two := catalog.New(tags, statetest.NewTable(), catalog.Options{})
	ref := oci.Ref{Repo: nginx, Tag: "latest"}
	first := moved(t, one, ref, catalog.Tag{}, aa)
	moved(t, two, ref, first, bb)
	got := moved(t, one, ref, first, cc)
	if got.Digest != cc || len(got.History) != 3 || got.History[1].Digest != bb {
		t.Errorf("%+v", got)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	moved(t, two, ref, catalog.Tag{}, bb) // in its memory bb is what the tag means still: a confirmation
	if err := two.Run(ctx); err != nil {  // which the flush finds to be overtaken
		t.Fatal(err)
	}
	if got, err := two.Tag(ref); err != nil || got.Digest != cc {
		t.Errorf("after its flush the other has %s, %v; want %s", got.Digest, err, cc)
	}
}

// A tag that fell out of memory is read anew before anything is said of it.
func TestForgottenByMemory(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tags := statetest.NewTable()
		c := catalog.New(tags, statetest.NewTable(), catalog.Options{Remembered: 64})
		ref := oci.Ref{Repo: nginx, Tag: "latest"}
		old := moved(t, c, ref, catalog.Tag{}, aa)
		moved(t, c, ref, old, bb)
		crowd := func() {
			for i := range 2000 {
				moved(t, c, oci.Ref{Repo: nginx, Tag: fmt.Sprint(i)}, catalog.Tag{}, aa)
			}
		}
		crowd()
		if got := moved(t, c, ref, old, aa); got.Digest != bb {
			t.Errorf("unchanged by a caller that knew the older state: %s", got.Digest)
		}
		if got, err := c.Tag(ref); err != nil || got.Digest != bb {
			t.Errorf("%s, %v", got.Digest, err)
		}
		time.Sleep(time.Hour)
		moved(t, c, ref, old, bb)
		crowd()
		if got, err := c.Tag(ref); err != nil || !got.Checked.Equal(time.Now()) {
			t.Errorf("a confirmation fell out of memory: checked %v, %v", got.Checked, err)
		}
	})
}

func TestForgetIsForGood(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tags := statetest.NewTable()
		c := catalog.New(tags, statetest.NewTable(), catalog.Options{})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); _ = c.Run(ctx) }()
		ref := oci.Ref{Repo: nginx, Tag: "latest"}
		tag := moved(t, c, ref, catalog.Tag{}, aa)
		time.Sleep(time.Second)
		tag = moved(t, c, ref, tag, aa) // waits to be flushed
		if err := c.Forget(ref); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		cancel()
		<-done
		restarted := catalog.New(tags, statetest.NewTable(), catalog.Options{})
		if _, err := restarted.Tag(ref); !errors.Is(err, catalog.ErrUnknown) {
			t.Errorf("the flush brought it back: %v", err)
		}
		// A caller that still holds it may record it anew.
		if again := moved(t, c, ref, tag, aa); again.Digest != aa || len(again.History) != 1 {
			t.Errorf("%+v", again)
		}
		if err := c.Forget(oci.Ref{Repo: nginx, Tag: "never"}); err != nil {
			t.Errorf("a tag that is not known: %v", err)
		}
	})
}

// lazy is a table in which others come between a write and its return.
type lazy struct{ *statetest.Table }

func (l lazy) Get(key string) (state.Item, error) {
	it, err := l.Table.Get(key)
	for range 1 << rand.IntN(9) {
		runtime.Gosched()
	}
	return it, err
}

func (l lazy) Swap(key string, old state.Version, v []byte) (state.Version, error) {
	next, err := l.Table.Swap(key, old, v)
	for range 1 << rand.IntN(9) {
		runtime.Gosched()
	}
	return next, err
}

// In any order of calls, no caller gets an older state than it got before, and memory and table end up equal.
func TestEverythingAtOnce(t *testing.T) {
	t.Parallel()
	tags := lazy{statetest.NewTable()}
	c := catalog.New(tags, statetest.NewTable(), catalog.Options{Remembered: 40})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	ref := func(i int) oci.Ref { return oci.Ref{Repo: nginx, Tag: fmt.Sprint(i)} }
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(w), 1))
			seen := make(map[string]uint64) // versions, which never come again
			for range 2000 {
				ref := ref(r.IntN(60))
				switch r.IntN(10) {
				case 0:
					if err := c.Forget(ref); err != nil {
						t.Error(err)
					}
				case 1:
					if r.IntN(3) == 0 {
						_ = c.Run(ctx) // one flush
					}
				default:
					from, err := c.Tag(ref)
					if err != nil && !errors.Is(err, catalog.ErrUnknown) {
						t.Error(err)
					}
					if err == nil && from.Version < seen[ref.Tag] {
						t.Errorf("tag %s: version %d after version %d", ref.Tag, from.Version, seen[ref.Tag])
					}
					to, err := c.Moved(ref, from, []oci.Digest{aa, bb, cc}[r.IntN(3)], time.Now(), catalog.ByCheck)
					if err != nil {
						t.Error(err)
					}
					seen[ref.Tag] = to.Version
				}
			}
		})
	}
	wg.Wait()
	_ = c.Run(ctx)
	restarted := catalog.New(tags, statetest.NewTable(), catalog.Options{})
	for i := range 60 {
		mem, memErr := c.Tag(ref(i))
		disk, diskErr := restarted.Tag(ref(i))
		if d := cmp.Diff(disk, mem); d != "" || (memErr == nil) != (diskErr == nil) {
			t.Errorf("tag %d, table (-) and memory (+), %v, %v: %s", i, diskErr, memErr, d)
		}
	}
}

func TestFlushThatFails(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tags := statetest.NewTable()
		var log bytes.Buffer
		c := catalog.New(tags, statetest.NewTable(), catalog.Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
		refs := make([]oci.Ref, 500)
		for i := range refs {
			refs[i] = oci.Ref{Repo: nginx, Tag: fmt.Sprint(i)}
			moved(t, c, refs[i], catalog.Tag{}, aa)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); _ = c.Run(ctx) }()
		time.Sleep(10 * time.Second)
		for _, ref := range refs {
			moved(t, c, ref, catalog.Tag{}, aa)
		}
		checked := time.Now()
		tags.SetFail(func() error { return errors.New("no space left on device") })
		time.Sleep(30 * time.Second)
		synctest.Wait()
		if n := strings.Count(log.String(), "\n"); n != 1 || !strings.Contains(log.String(), "items=500") {
			t.Errorf("%d lines: %s", n, log.String())
		}
		tags.SetFail(nil)
		time.Sleep(30 * time.Second)
		synctest.Wait()
		restarted := catalog.New(tags, statetest.NewTable(), catalog.Options{})
		for _, ref := range refs {
			if got, err := restarted.Tag(ref); err != nil || !got.Checked.Equal(checked) {
				t.Fatalf("%s: checked %v, %v; want %v", ref, got.Checked, err, checked)
			}
		}
		cancel()
		<-done
	})
}

// A record that can't be read is unknown, and is learnt again.
func TestUnreadable(t *testing.T) {
	t.Parallel()
	for name, v := range map[string]string{
		"another form": "\x02binary", "empty": "", "cut": `{"digest":"sha2`, "no digest": `{"checked":"2026-01-02T03:04:05Z"}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tags, refs := statetest.NewTable(), statetest.NewTable()
			ref := oci.Ref{Repo: nginx, Tag: "latest"}
			for key, tb := range map[string]*statetest.Table{
				"docker.io/library/nginx:latest": tags, "docker.io/library/nginx@" + string(bb): refs,
			} {
				if _, err := tb.Swap(key, 0, []byte(v)); err != nil {
					t.Fatal(err)
				}
			}
			c := catalog.New(tags, refs, catalog.Options{})
			if _, err := c.Tag(ref); !errors.Is(err, catalog.ErrUnknown) {
				t.Errorf("Tag: %v", err)
			}
			moved(t, c, ref, catalog.Tag{}, aa)
			if m, err := c.Member(nginx, bb); name != "no digest" && (m.Standing != catalog.Unknown || err != nil) {
				t.Errorf("Member: %+v, %v", m, err)
			}
			if err := c.LearnBlob(nginx, oci.Descriptor{Digest: bb, Size: 5}, catalog.ShownToAll); err != nil {
				t.Fatal(err)
			}
			again := catalog.New(tags, refs, catalog.Options{})
			if got, err := again.Tag(ref); err != nil || got.Digest != aa {
				t.Errorf("learnt again: %+v, %v", got, err)
			}
			if d, err := again.Member(nginx, bb); err != nil || d.Size != 5 {
				t.Errorf("learnt again: %+v, %v", d, err)
			}
		})
	}
}

// All of it on a real file, over a restart.
func TestRestart(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "state.db")
	ref := oci.Ref{Repo: acme, Tag: "v1"}
	var want catalog.Tag
	for round := range 3 {
		db, err := state.Open(path, state.Options{})
		if err != nil {
			t.Fatal(err)
		}
		c := catalog.New(db.Table("tags"), db.Table("refs"), catalog.Options{})
		got, err := c.Tag(ref)
		if round == 0 {
			if !errors.Is(err, catalog.ErrUnknown) {
				t.Errorf("a new file: %v", err)
			}
		} else {
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("round %d: %s", round, d)
			}
			if m, err := c.Member(acme, bb); m.Standing != catalog.ShownToAll || err != nil {
				t.Errorf("round %d: member: %+v, %v", round, m, err)
			}
		}
		if err := c.LearnBlob(acme, oci.Descriptor{Digest: bb, Size: 1}, catalog.ShownToAll); err != nil {
			t.Fatal(err)
		}
		moved(t, c, ref, got, []oci.Digest{aa, bb, cc}[round])
		want = moved(t, c, ref, got, []oci.Digest{aa, bb, cc}[round]) // a confirmation, for the flush
		want.Version++                                                // by the flush
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := c.Run(ctx); err != nil {
			t.Fatal(err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func BenchmarkTag(b *testing.B) {
	c := catalog.New(statetest.NewTable(), statetest.NewTable(), catalog.Options{})
	ref := oci.Ref{Repo: nginx, Tag: "1.27"}
	if _, err := c.Moved(ref, catalog.Tag{}, aa, time.Now(), catalog.ByCheck); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := c.Tag(ref); err != nil {
				b.Error(err)
			}
		}
	})
}

// A late record is as old as its report, and never replaces a newer one.
func TestRecordedLate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := catalog.New(statetest.NewTable(), statetest.NewTable(), catalog.Options{})
		ref := oci.Ref{Repo: nginx, Tag: "late"}
		time.Sleep(time.Hour)
		put := func(to oci.Digest, ago time.Duration) catalog.Tag {
			t.Helper()
			from, _ := c.Tag(ref)
			tag, err := c.Moved(ref, from, to, time.Now().Add(-ago), catalog.ByCheck)
			if err != nil {
				t.Fatal(err)
			}
			return tag
		}
		wants := func(tag catalog.Tag, d oci.Digest, age time.Duration) {
			t.Helper()
			if tag.Digest != d || time.Since(tag.Checked) != age || !tag.History[0].Last.Equal(tag.Checked) {
				t.Errorf("%s of age %s, history %+v; want %s of age %s", tag.Digest, time.Since(tag.Checked), tag.History[0], d, age)
			}
		}
		wants(put(aa, 10*time.Minute), aa, 10*time.Minute)
		wants(put(aa, 20*time.Minute), aa, 10*time.Minute)
		wants(put(bb, 20*time.Minute), aa, 10*time.Minute)
		wants(put(aa, 5*time.Minute), aa, 5*time.Minute)
		wants(put(bb, 4*time.Minute), bb, 4*time.Minute)
		// The clock was ahead when this was written, and was set back.
		wants(put(bb, -24*time.Hour), bb, -24*time.Hour)
		wants(put(aa, 0), aa, 0)
	})
}
