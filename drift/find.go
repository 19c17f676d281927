package drift

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/registrymirror/mirror/oci"
)

// Image is a tag with what is known of it.
type Image struct {
	Ref     oci.Ref    // canonical, by tag
	Now     oci.Digest // what a pull gets now: a digest that is held back does not count
	Clients []Client   // those that pulled the tag
}

// Client is a client that pulled a tag.
type Client struct {
	Name     string
	Digest   oci.Digest // that it got last
	LastPull time.Time
}

// Place is a pod or workload that uses an image by its tag.
type Place struct {
	Name   string     // NAMESPACE/NAME of a pod, NAMESPACE/KIND/NAME of a workload
	Ref    oci.Ref    // canonical, by tag
	Digest oci.Digest // that runs there; empty: nothing runs, or it is not known
	// Fixed says that the place never pulls: imagePullPolicy is Never.
	Fixed bool
	// Idle says that it is a workload without pods: the image would come at its next start.
	Idle bool
}

// GoneAfter is how long after its last pull a client no longer counts: its node may be gone, and its images with it.
const GoneAfter = 30 * 24 * time.Hour

// Input is what Find compares.
type Input struct {
	At     time.Time // when it was read
	Images []Image   // each tag once
	Places []Place
	// Same is the digests that are the same image as d: the manifests of an index with their configs, the index of a
	// manifest, as far as they are known. It need not have d itself. It is called for digests that differ.
	Same func(repo oci.Repo, d oci.Digest) []oci.Digest
	// Change describes what a restart would change. Nil: nothing is known of it.
	Change func(repo oci.Repo, from, to oci.Digest) *Change
}

// Find returns the tags that drift, sorted by image and kind.
func Find(in Input) []Tag {
	f := finder{in: in, same: make(map[oci.Digest]map[oci.Digest]bool)}
	places := make(map[oci.Ref][]Place)
	for _, p := range in.Places {
		places[p.Ref] = append(places[p.Ref], p)
	}
	var found []Tag
	for _, image := range in.Images {
		for _, t := range []*Tag{f.pulled(image), f.running(image, places[image.Ref]), f.restart(image, places[image.Ref])} {
			if t != nil {
				t.Image = image.Ref.String()
				found = append(found, *t)
			}
		}
	}
	slices.SortStableFunc(found, func(a, b Tag) int {
		return cmp.Or(strings.Compare(a.Image, b.Image), cmp.Compare(slices.Index(Kinds, a.Kind), slices.Index(Kinds, b.Kind)))
	})
	return found
}

type finder struct {
	in   Input
	same map[oci.Digest]map[oci.Digest]bool // what Input.Same said
}

// is reports whether two digests are one image: one has the other, or two indexes have the same manifests, as after a build that
// changed an attestation alone.
func (f *finder) is(repo oci.Repo, a, b oci.Digest) bool {
	if a == b {
		return true
	}
	as, bs := f.family(repo, a), f.family(repo, b)
	if as[b] || bs[a] {
		return true
	}
	n := 0
	for d := range as {
		if d != a {
			if !bs[d] {
				return false
			}
			n++
		}
	}
	for d := range bs {
		if d != b && !as[d] {
			return false
		}
	}
	return n > 0
}

func (f *finder) family(repo oci.Repo, d oci.Digest) map[oci.Digest]bool {
	known, ok := f.same[d]
	if !ok {
		known = make(map[oci.Digest]bool)
		if f.in.Same != nil {
			for _, other := range f.in.Same(repo, d) {
				known[other] = true
			}
		}
		f.same[d] = known
	}
	return known
}

// group collects the places of each image.
type group struct {
	repo   oci.Repo
	f      *finder
	groups []*Digest
}

func (g *group) of(d oci.Digest) *Digest {
	for _, x := range g.groups {
		if g.f.is(g.repo, oci.Digest(x.Digest), d) {
			return x
		}
	}
	x := &Digest{Digest: d.String()}
	g.groups = append(g.groups, x)
	return x
}

// tag is what was found, where there is more than one image; nil: there is not.
func (g *group) tag(kind Kind) *Tag {
	if len(g.groups) < 2 {
		return nil
	}
	t := &Tag{Kind: kind}
	for _, x := range g.groups {
		slices.Sort(x.Clients)
		slices.Sort(x.Pods)
		x.Pods = slices.Compact(x.Pods) // several containers of one pod
		t.Digests = append(t.Digests, *x)
	}
	slices.SortStableFunc(t.Digests, func(a, b Digest) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(len(b.Clients)+len(b.Pods), len(a.Clients)+len(a.Pods)), strings.Compare(a.Digest, b.Digest))
	})
	return t
}

// rank puts the current digest first.
func rank(d Digest) int {
	if d.Current {
		return 0
	}
	return 1
}

// pulled compares what clients got last.
func (f *finder) pulled(m Image) *Tag {
	g := group{repo: m.Ref.Repo, f: f}
	for _, c := range m.Clients {
		if f.in.At.Sub(c.LastPull) > GoneAfter {
			continue
		}
		x := g.of(c.Digest)
		x.Clients = append(x.Clients, c.Name)
		x.Current = x.Current || f.is(m.Ref.Repo, m.Now, c.Digest)
	}
	return g.tag(Pulled)
}

// running compares what runs with what the tag means.
func (f *finder) running(m Image, places []Place) *Tag {
	g := group{repo: m.Ref.Repo, f: f}
	drifts := false
	for _, p := range places {
		if p.Digest == "" {
			continue
		}
		x := g.of(p.Digest)
		x.Pods = append(x.Pods, p.Name)
		current := f.is(m.Ref.Repo, m.Now, p.Digest)
		x.Current = x.Current || current
		drifts = drifts || !current
	}
	if !drifts {
		return nil
	}
	g.of(m.Now).Current = true // so that it is shown, whether a pod runs it or not
	return g.tag(Running)
}

// restart compares what runs with what a pull gets now. Of a workload without pods it is what was pulled last.
func (f *finder) restart(m Image, places []Place) *Tag {
	g := group{repo: m.Ref.Repo, f: f}
	from := make(map[oci.Digest]int) // the places by what they have
	for _, p := range places {
		if p.Idle {
			p.Digest = m.last()
		}
		if p.Fixed || p.Digest == "" || f.is(m.Ref.Repo, m.Now, p.Digest) {
			continue
		}
		x := g.of(p.Digest)
		x.Pods = append(x.Pods, p.Name)
		from[oci.Digest(x.Digest)]++
	}
	if len(from) == 0 {
		return nil
	}
	g.of(m.Now).Current = true
	t := g.tag(Restart)
	if f.in.Change != nil {
		t.Change = f.in.Change(m.Ref.Repo, slices.MaxFunc(slices.Sorted(maps.Keys(from)), func(a, b oci.Digest) int { return cmp.Compare(from[a], from[b]) }), m.Now)
	}
	return t
}

// last is what a client pulled last of a tag.
func (m Image) last() oci.Digest {
	if len(m.Clients) == 0 {
		return ""
	}
	return slices.MaxFunc(m.Clients, func(a, b Client) int { return a.LastPull.Compare(b.LastPull) }).Digest
}
