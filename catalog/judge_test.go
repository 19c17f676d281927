package catalog_test

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/registrymirror/mirror/catalog"
	"github.com/registrymirror/mirror/oci"
)

const day = 24 * time.Hour

var (
	noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	ages = catalog.Policy{MaxAge: time.Minute, StaleIfError: 7 * day}
)

// with is the policy ages with a change.
func with(change func(*catalog.Policy)) catalog.Policy {
	p := ages
	change(&p)
	return p
}

func immutable(p *catalog.Policy)  { p.Immutable = true }
func staleFirst(p *catalog.Policy) { p.ServeStaleFirst = true }
func always(p *catalog.Policy)     { p.MaxAge = 0 }
func aDay(p *catalog.Policy)       { p.MinAge = day }
func strictly(p *catalog.Policy)   { p.MinAge, p.HoldUnknown = day, true }
func both(p *catalog.Policy)       { p.MinAge, p.Immutable = day, true }

// checked is a tag that was confirmed some time before noon.
func checked(ago time.Duration) catalog.Tag {
	return catalog.Tag{Ref: oci.Ref{Repo: nginx, Tag: "1"}, Digest: aa, Checked: noon.Add(-ago)}
}

func due(t catalog.Tag, ago time.Duration) catalog.Tag {
	t.Expired = noon.Add(-ago)
	return t
}

func TestJudge(t *testing.T) {
	t.Parallel()
	long := ages
	long.MaxAge = day
	seen := func(t catalog.Tag, ago time.Duration) catalog.Tag {
		t.History = []catalog.Seen{{Digest: t.Digest, First: noon.Add(-ago), Last: t.Checked}}
		return t
	}
	reported := func(t catalog.Tag) catalog.Tag {
		if t.History == nil {
			t = seen(t, noon.Sub(t.Checked))
		}
		t.History[0].Reported = true
		return t
	}
	for _, tt := range []struct {
		name   string
		tag    catalog.Tag
		policy catalog.Policy
		want   catalog.Verdict
		usable bool
	}{
		{"none", catalog.Tag{}, ages, catalog.Ask, false},
		{"none, immutable", catalog.Tag{}, with(immutable), catalog.Ask, false},
		{"none, stale first", catalog.Tag{}, with(staleFirst), catalog.Ask, false},
		{"just checked", checked(0), ages, catalog.Serve, true},
		{"younger than maxAge", checked(time.Minute - 1), ages, catalog.Serve, true},
		{"as old as maxAge", checked(time.Minute), ages, catalog.Ask, true},
		{"maxAge 0", checked(0), with(always), catalog.Ask, true},
		{"the last usable moment", checked(7 * day), ages, catalog.Ask, true},
		{"too old to fall back on", checked(7*day + 1), ages, catalog.Ask, false},
		{"the clock was set back", checked(-time.Hour), ages, catalog.Ask, true},

		{"due", due(checked(time.Second), 0), ages, catalog.Ask, true},
		{"due, and old: no older for that", due(checked(7*day), 0), ages, catalog.Ask, true},
		{"checked since it was due", due(checked(time.Second), 2*time.Second), ages, catalog.Serve, true},

		{"reported, and the registry lags", due(seen(checked(6*time.Second), day), 7*time.Second), long, catalog.Ask, true},
		{"reported, and checked just now", due(seen(checked(4*time.Second), day), 7*time.Second), long, catalog.Serve, true},
		{"reported, and moved since", due(seen(checked(6*time.Second), 6*time.Second), 7*time.Second), long, catalog.Serve, true},
		{"reported, and checked a minute later", due(seen(checked(time.Minute), day), 3*time.Minute), long, catalog.Serve, true},

		{"stale first, young", checked(time.Minute - 1), with(staleFirst), catalog.Serve, true},
		{"stale first, older", checked(time.Minute), with(staleFirst), catalog.ServeAndAsk, true},
		{"stale first, too old", checked(7*day + 1), with(staleFirst), catalog.Ask, false},
		{"stale first, due", due(checked(time.Second), 0), with(staleFirst), catalog.Ask, true},
		{"stale first, the clock was set back", checked(-time.Hour), with(staleFirst), catalog.ServeAndAsk, true},

		{"immutable, young", checked(21 * time.Hour), with(immutable), catalog.Serve, true},
		{"immutable, a day old", checked(day), with(immutable), catalog.ServeAndAsk, true},
		{"immutable, of any age", checked(700 * day), with(immutable), catalog.ServeAndAsk, true},
		{"immutable, due", due(checked(time.Second), 0), with(immutable), catalog.ServeAndAsk, true},
		{"immutable, and only reported", reported(checked(time.Hour)), with(immutable), catalog.Ask, true},
		{"immutable, and reported just now", reported(checked(time.Second)), with(immutable), catalog.Serve, true},
		{"immutable, and reported twice", reported(seen(checked(time.Hour), 2*time.Hour)), with(immutable), catalog.Serve, true},
		{"immutable, the clock was set back", checked(-time.Hour), with(immutable), catalog.ServeAndAsk, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := tt.tag.Judge(tt.policy, noon); got != tt.want {
				t.Errorf("Judge = %v, want %v", got, tt.want)
			}
			if got := tt.tag.Usable(tt.policy, noon); got != tt.usable {
				t.Errorf("Usable = %v, want %v", got, tt.usable)
			}
		})
	}
}

// Immutable tags that were pulled in the same moment are checked at different times, none later than after a day.
func TestImmutableTagsAreCheckedAtDifferentTimes(t *testing.T) {
	t.Parallel()
	p := with(immutable)
	at := make(map[time.Duration]int)
	for i := range 1000 {
		tag := checked(0)
		tag.Ref.Tag = fmt.Sprintf("1.0.%d", i)
		age := 21 * time.Hour
		for tag.Judge(p, noon.Add(age)) == catalog.Serve {
			age += time.Minute
		}
		if age > day {
			t.Fatalf("%s is checked after %s", tag.Ref.Tag, age)
		}
		at[age]++
	}
	for age, n := range at {
		if n > 50 {
			t.Errorf("%d of 1000 tags are checked after %s", n, age)
		}
	}
}

// tagOf makes a tag of a history like "C 1h, B? 2h, A 49h": digests with the time before noon at which each was first seen, newest
// first. One with a question mark was only reported. The latest one was confirmed a minute before noon, each other one until a second before it was replaced.
func tagOf(t *testing.T, text string) catalog.Tag {
	t.Helper()
	tag := catalog.Tag{Ref: oci.Ref{Repo: nginx, Tag: "1"}, Checked: noon.Add(-time.Minute)}
	end := tag.Checked
	for part := range strings.SplitSeq(text, ", ") {
		name, ago, _ := strings.Cut(part, " ")
		d, err := time.ParseDuration(ago)
		if err != nil {
			t.Fatal(err)
		}
		name, reported := strings.CutSuffix(name, "?")
		tag.History = append(tag.History, catalog.Seen{Digest: meant(name), First: noon.Add(-d), Last: end, Reported: reported})
		end = noon.Add(-d - time.Second)
	}
	tag.Digest = tag.History[0].Digest
	return tag
}

func meant(name string) oci.Digest { return digest.FromString(name) }

// shown writes a choice as "B minAge until 23h": its digest, the hold, and when that ends, in relation to noon.
func shown(c catalog.Choice) string {
	name := "none"
	for _, n := range []string{"A", "B", "C", "D"} {
		if meant(n) == c.Digest {
			name = n
		}
	}
	text := name + map[catalog.Hold]string{
		catalog.HeldByPin: " pin", catalog.HeldByImmutable: " immutable", catalog.HeldByMinAge: " minAge", catalog.HeldUnknown: " unknown",
	}[c.Hold]
	if !c.Until.IsZero() {
		text += " until " + c.Until.Sub(noon).String()
	}
	return text
}

func TestChoose(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, history string
		change        func(*catalog.Policy)
		want          string
		copies        string // if the upstream does not answer
	}{
		{"no hold", "B 1h, A 49h", always, "B", "B"},
		{"no hold, back again", "A 1h, B 2h, A 49h", always, "A", "A"},

		{"only reported", "B? 1h, A 49h", always, "B", "B; A"},
		{"only reported, twice", "C? 1h, B? 2h, A 49h", always, "C", "C; A"},
		{"only reported, and none before", "B? 1h, A? 2h", always, "B", "B"},

		{"immutable", "A 1h", immutable, "A", "A"},
		{"immutable, one wrong report", "B 1h, A? 1h0m1s", immutable, "B", "B"},
		{"immutable, a wrong report amid others", "C 1h, A? 1h0m1s, B 2h", immutable, "B immutable", "B immutable"},
		{"immutable, only reports", "B? 0s, A? 1s", immutable, "B", "B"},
		{"immutable, reported by two checks", "B 1h, A? 49h", immutable, "A immutable", "A immutable"},
		{"immutable, moved", "B 1h, A 49h", immutable, "A immutable", "A immutable"},
		{"immutable, moved twice", "C 1h, B 2h, A 49h", immutable, "A immutable", "A immutable"},
		{"immutable, moved and back", "A 1h, B 2h, A 49h", immutable, "A", "A"},

		{"minAge, old", "A 24h", aDay, "A", "A"},
		{"minAge, new", "B 1h, A 49h", aDay, "A minAge until 23h0m0s", "A minAge until 23h0m0s"},
		{"minAge, one moment too new", "B 23h59m59s, A 49h", aDay, "A minAge until 1s", "A minAge until 1s"},
		{"minAge, old enough", "B 24h, A 49h", aDay, "B", "B; A minAge"},
		{"minAge, two new ones", "C 1h, B 2h, A 49h", aDay, "A minAge until 23h0m0s", "A minAge until 23h0m0s"},
		{"minAge, withdrawn before it was old enough", "C 1h, B 26h, D 30h, A 99h", aDay, "B minAge until 23h0m0s", "B minAge until 23h0m0s; A minAge"},
		{"minAge, withdrawn, and the fix is new", "C 23h, B 25h, A 99h", aDay, "A minAge until 1h0m0s", "A minAge until 1h0m0s"},
		{"minAge, aged in advance", "C 1h, A 47h, C 48h, A 99h", aDay, "A minAge until 23h0m0s", "A minAge until 23h0m0s"},
		{"minAge, one of two is old enough", "C 1h, B 25h, A 49h", aDay, "B minAge until 23h0m0s", "B minAge until 23h0m0s; A minAge"},
		{"minAge, back again is not new", "A 1h, B 2h, A 49h", aDay, "A", "A"},
		{"minAge, back to one that was held", "B 1h, A 2h, B 3h, A 49h", aDay, "A minAge until 23h0m0s", "A minAge until 23h0m0s"},
		{"minAge, none is old enough", "A 1h", aDay, "A unknown until 23h0m0s", "A unknown until 23h0m0s"},
		{"minAge, none of two is old enough", "B 1h, A 2h", aDay, "A unknown until 23h0m0s", "A unknown until 23h0m0s"},
		{"minAge, the clock was set back", "A -1h", aDay, "A unknown until 25h0m0s", "A unknown until 25h0m0s"},

		{"hold, old", "A 24h", strictly, "A", "A"},
		{"hold, new", "B 1h, A 49h", strictly, "A minAge until 23h0m0s", "A minAge until 23h0m0s"},
		{"hold, none is old enough", "B 1h, A 2h", strictly, "none unknown until 23h0m0s", ""},

		{"immutable and minAge", "A 49h", both, "A", "A"},
		{"immutable and minAge, moved", "B 25h, A 49h", both, "A immutable", "A immutable"},
		{"immutable and minAge, new", "A 1h", both, "A unknown until 23h0m0s", "A unknown until 23h0m0s"},
		{"immutable and minAge, new and moved", "B 1h, A 2h", both, "A unknown until 22h0m0s", "A unknown until 22h0m0s"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tag, p := tagOf(t, tt.history), with(tt.change)
			c := tag.Choose(p, noon)
			if got := shown(c); got != tt.want {
				t.Errorf("Choose = %s, want %s", got, tt.want)
			}
			if c.Latest != tag.Digest {
				t.Errorf("the latest is %s, want %s", c.Latest, tag.Digest)
			}
			var copies []string
			for _, c := range tag.Copies(p, noon) {
				copies = append(copies, shown(c))
			}
			if got := strings.Join(copies, "; "); got != tt.copies {
				t.Errorf("Copies = %s, want %s", got, tt.copies)
			}
		})
	}
}

// How old a copy is counts from when it was last served rightly, which under minAge is after the tag had moved.
func TestAgeOfCopies(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, history string
		change        func(*catalog.Policy)
		after         time.Duration // since noon
		want          string        // each with its age
	}{
		{"the latest", "A 49h", always, time.Hour, "A 1h1m0s"},
		{"up to staleIfError", "A 49h", always, 7*day - time.Minute, "A 168h0m0s"},
		{"beyond", "A 49h", always, 7*day - time.Minute + 1, ""},
		{"immutable", "A 49h", immutable, 700 * day, "A 16800h1m0s"},
		{"one that is held back, and the one before", "B 47h, A 100h", aDay, 2 * time.Hour, "B 2h1m0s; A minAge 25h0m0s"},
		{"one that was only reported, and the one before", "B? 1h, A 49h", always, time.Hour, "B 1h1m0s; A 2h0m1s"},
		{"the one before is beyond", "B? 7h, A 49h", always, 7*day - 2*time.Minute, "B 167h59m0s"},
		{"both beyond", "B 47h, A 100h", aDay, 7*day - time.Minute + 1, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			now := noon.Add(tt.after)
			var copies []string
			for _, c := range tagOf(t, tt.history).Copies(with(tt.change), now) {
				copies = append(copies, shown(c)+" "+now.Sub(c.AsOf).String())
			}
			if got := strings.Join(copies, "; "); got != tt.want {
				t.Errorf("copies: %s, want %s", got, tt.want)
			}
		})
	}
}

// A report that is not recorded counts as the record would.
func TestReported(t *testing.T) {
	t.Parallel()
	tag := tagOf(t, "B 1h, A 49h")
	same := tag.Reported(meant("B"), noon, noon)
	if same.Checked != noon || len(same.History) != 2 {
		t.Errorf("unchanged: %+v", same)
	}
	moved := tag.Reported(meant("C"), noon.Add(-time.Second), noon)
	if shown(moved.Choose(with(aDay), noon)) != "A minAge until 23h59m59s" || shown(moved.Choose(ages, noon)) != "C" || moved.Checked != noon {
		t.Errorf("moved: %+v", moved)
	}
	first := catalog.Tag{}.Reported(meant("A"), noon, noon)
	if got := shown(first.Choose(with(aDay), noon)); got != "A unknown until 24h0m0s" {
		t.Errorf("the first: %s", got)
	}
	if len(tag.History) != 2 || tag.Digest != meant("B") {
		t.Error("the record was changed")
	}
}

func TestPolicies(t *testing.T) {
	t.Parallel()
	of := func(age time.Duration) catalog.Policy { return catalog.Policy{MaxAge: age, MinAge: day} }
	p := catalog.Policies{
		Base: of(1),
		Patterns: []catalog.PatternPolicy{
			{"library/*:latest", of(2)}, {"library/**:*", of(3)}, {"**:v1.*", of(4)}, {"acme/app-*:*-rc*", of(5)},
		},
		Immutable: []*regexp.Regexp{regexp.MustCompile(`^v?\d+\.\d+\.\d+$`), regexp.MustCompile(`^release-`)},
	}
	artifact := "sha256-" + strings.Repeat("0", 64) + ".sig"
	for _, tt := range []struct {
		repository, tag string
		age             time.Duration
		immutable       bool
	}{
		{"acme/app", "latest", 1, false},
		{"library/nginx", "latest", 2, false},
		{"library/a/b", "latest", 3, false},
		{"library/nginx", "v1.2", 3, false},
		{"library/nginx", "v1.2.3", 3, true},
		{"acme/app", "v1.2", 4, false},
		{"acme/app", "v1.2.3", 4, true},
		{"acme/app", "1.2.3", 1, true},
		{"acme/app", "1.2.3-rc1", 1, false},
		{"acme/app-x", "1.2.3-rc1", 5, false},
		{"acme/app", "release-1", 1, true},
	} {
		got := p.For(tt.repository, tt.tag)
		want := of(tt.age)
		want.Immutable = tt.immutable
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s:%s: %s", tt.repository, tt.tag, diff)
		}
	}
	p.Immutable = append(p.Immutable, regexp.MustCompile(`^sha256-`))
	if got := p.For("acme/app", artifact); got.MinAge != 0 || got.Immutable {
		t.Errorf("a signature is held back: %+v", got)
	}
}
