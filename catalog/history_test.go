package catalog_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/registrymirror/mirror/catalog"
	"github.com/registrymirror/mirror/internal/state/statetest"
	"github.com/registrymirror/mirror/oci"
)

// A tag that moves ten times a day, for a year: the newest periods are all there, older ones become rarer with their age,
// the first one stays, and so the tag's meaning can be told for any time, the more exactly the more recent it is.
func TestHistoryIsThinnedByAge(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tags := statetest.NewTable()
		c := catalog.New(tags, statetest.NewTable(), catalog.Options{})
		ref := oci.Ref{Repo: nginx, Tag: "nightly"}
		const moves, every = 3650, 24 * time.Hour / 10
		start := time.Now()
		for i := range moves {
			if i > 0 {
				time.Sleep(every)
			}
			if _, err := c.Moved(ref, catalog.Tag{}, digest.FromString(fmt.Sprint(i)), time.Now(), catalog.ByCheck); err != nil {
				t.Fatal(err)
			}
		}
		tag, err := catalog.New(tags, statetest.NewTable(), catalog.Options{}).Tag(ref)
		if err != nil || len(tag.History) != 100 {
			t.Fatalf("%d periods, %v", len(tag.History), err)
		}
		for i, s := range tag.History[:50] {
			if want := digest.FromString(fmt.Sprint(moves - 1 - i)); s.Digest != want {
				t.Fatalf("period %d is missing", i)
			}
		}
		if first := tag.History[99]; !first.First.Equal(start) {
			t.Errorf("the first period began at %v, the tag at %v", first.First, start)
		}
		now := time.Now()
		for age := 5 * 24 * time.Hour; age < now.Sub(start); age += 5 * 24 * time.Hour {
			when := now.Add(-age)
			s, ok := tag.At(when)
			if late := when.Sub(s.First); !ok || late < 0 || late > age/2 {
				t.Errorf("of %v ago the nearest period began %v before that", age, late)
			}
		}
		if _, ok := tag.At(start.Add(-time.Second)); ok {
			t.Error("something is known of a time before the tag was")
		}
	})
}

func TestWhatATagMeantAtATime(t *testing.T) {
	t.Parallel()
	noon := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	at := func(minutes int) time.Time { return noon.Add(time.Duration(minutes) * time.Minute) }
	tag := catalog.Tag{Digest: aa, History: []catalog.Seen{
		{Digest: aa, First: at(20), Last: at(30), Reversion: true},
		{Digest: bb, First: at(10), Last: at(15)},
		{Digest: aa, First: at(0), Last: at(9)},
	}}
	for minutes, want := range map[int]catalog.Seen{
		0: tag.History[2], 5: tag.History[2], 9: tag.History[2], 10: tag.History[1], 19: tag.History[1],
		20: tag.History[0], 500: tag.History[0],
	} {
		if got, ok := tag.At(at(minutes)); !ok || !cmp.Equal(got, want) {
			t.Errorf("after %d minutes: %+v, %v", minutes, got, ok)
		}
	}
	if got, ok := tag.At(at(-1)); ok {
		t.Errorf("before the first sight: %+v", got)
	}
}
