package main

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/registrymirror/mirror/e2e/internal/mirrord"
)

// memoryScenes ask for large documents.
func memoryScenes() []scene {
	list := []scene{
		{line: 6, name: "memory-one-list-200-queries", timed: true, limit: 5 * time.Minute, play: playLists},
		{line: 6, name: "memory-600-manifests-in-turn", timed: true, limit: 5 * time.Minute, play: playInTurn},
	}
	for _, l := range []listener{plain, tls11, http2} {
		list = append(list, scene{
			line: 6, name: "memory-100-manifests-at-once-over-" + string(l), timed: true, limit: 5 * time.Minute,
			play: func(ctx context.Context, s *stage) error { return playAtOnce(ctx, s, l) },
		})
	}
	return list
}

const mostMemory = 400 // MiB resident

// larges makes manifests of so many entries with so many annotations each, which differ by their seeds.
type larges struct {
	template []byte
	seeds    []int // offsets of the seed's digits
}

// seedDigits is how long a seed is in the text.
const seedDigits = 32

func newLarges(entries, annotations int) *larges {
	var l larges
	var b bytes.Buffer
	seed := func() {
		l.seeds = append(l.seeds, b.Len())
		fmt.Fprintf(&b, "%0*x", seedDigits, 0)
	}
	fmt.Fprintf(&b, `{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":%q,"digest":%q,"size":2},"annotations":{"seed":"`,
		manifestType, configType, sum([]byte("{}")))
	seed()
	b.WriteString(`"},"layers":[`)
	notes := make([]string, annotations)
	for i := range notes {
		notes[i] = fmt.Sprintf(`"a%d":""`, i)
	}
	more := strings.Join(notes, ",")
	for i := range entries {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(`{"mediaType":"x","size":1,"digest":"sha256:`)
		seed()
		fmt.Fprintf(&b, `%032x","annotations":{%s}}`, i, more)
	}
	b.WriteString("]}")
	l.template = b.Bytes()
	return &l
}

func (l *larges) make(seed int) document {
	doc := document{mediaType: manifestType, bytes: bytes.Clone(l.template)}
	digits := fmt.Sprintf("%0*x", seedDigits, seed)
	for _, at := range l.seeds {
		copy(doc.bytes[at:], digits)
	}
	doc.digest = sum(doc.bytes)
	return doc
}

// note makes a manifest whose entries are the same for every number.
func (l *larges) note(n int) document {
	doc := document{mediaType: manifestType, bytes: bytes.Clone(l.template)}
	copy(doc.bytes[l.seeds[0]:], fmt.Sprintf("%0*x", seedDigits, n))
	doc.digest = sum(doc.bytes)
	return doc
}

// playAtOnce asks for a hundred manifests of nearly 4 MiB at once, half of them with thousands of entries, half with one
// long annotation, while a victim pulls small cold ones.
func playAtOnce(ctx context.Context, s *stage, l listener) error {
	const manifests = 100
	g, m, err := s.open(ctx, setup{listener: l})
	if err != nil {
		return err
	}
	var digests []string
	large := newLarges(9000, 30)
	for i := range manifests {
		doc := large.make(i)
		if i%2 == 1 {
			doc = documentOf(manifestType, map[string]any{
				"schemaVersion": 2, "mediaType": manifestType, "layers": []descriptor{}, "annotations": map[string]string{"long": strings.Repeat("x", 3_900_000), "n": fmt.Sprint(i)},
				"config": descriptor{MediaType: configType, Digest: sum([]byte("{}")), Size: 2},
			})
		}
		g.repo("attacker/large").put("", doc)
		digests = append(digests, doc.digest)
	}
	stop := watch(ctx, 300*time.Millisecond, s.coldManifest(ctx, g, m))
	var t tally
	each(ctx, manifests, manifests, func(i int) {
		c := m.attacker()
		defer c.close()
		t.add(c.get(ctx, manifestPath("docker.io/attacker/large", digests[i])))
	})
	s.verdict("a victim's small cold manifest beside them", stop(), 5*time.Second)
	_, most, err := m.resident()
	if err != nil {
		return err
	}
	s.atMost("resident at most: "+t.String(), most, mostMemory, "MiB")
	s.holds("each is served, refused with a reason, or asked to come back", t.of(200)+t.of(403)+t.of(502)+t.of(503) == manifests, t.String())
	return nil
}

// coldManifest asks for a small manifest of a victim that no client has asked for.
func (s *stage) coldManifest(ctx context.Context, g *registry, m *mirror) func(i int) answer {
	c := m.victim()
	s.ends = append(s.ends, c.close)
	r := g.repo("victim/app")
	return func(i int) answer {
		doc := manifestOf(fmt.Sprint("victim ", i), descriptor{MediaType: configType, Digest: sum([]byte(fmt.Sprint(i))), Size: 2})
		g.change(func() { r.put("", doc) })
		return c.get(ctx, manifestPath("docker.io/victim/app", doc.digest))
	}
}

// open starts a registry that needs no login, as docker.io, and a mirror before it.
func (s *stage) open(ctx context.Context, o setup) (*registry, *mirror, error) {
	g, err := s.newRegistry(ctx)
	if err != nil {
		return nil, nil, err
	}
	o.Upstreams = strings.TrimSpace("docker.io: {endpoints: [" + g.url() + "]}\n" + o.Upstreams)
	m, err := s.start(ctx, o)
	return g, m, err
}

// playInTurn asks for six hundred large manifests, a few at a time.
func playInTurn(ctx context.Context, s *stage) error {
	g, m, err := s.open(ctx, setup{})
	if err != nil {
		return err
	}
	c := m.attacker()
	defer c.close()
	r := g.repo("attacker/large")
	var t tally
	large := newLarges(9000, 30)
	each(ctx, 600, 4, func(i int) {
		doc := large.make(i)
		g.change(func() { r.put("", doc) })
		t.add(c.get(ctx, manifestPath("docker.io/attacker/large", doc.digest)))
		g.change(func() { delete(r.docs, doc.digest) })
	})
	_, most, err := m.resident()
	if err != nil {
		return err
	}
	s.atMost("resident at most: "+t.String(), most, mostMemory, "MiB")
	return nil
}

// playLists asks for one list of tags of 4 MB with two hundred parameters that mean nothing.
func playLists(ctx context.Context, s *stage) error {
	g, m, err := s.open(ctx, setup{Options: mirrord.Options{}})
	if err != nil {
		return err
	}
	tags := make([]string, 0, 77_000)
	for i := range cap(tags) {
		tags = append(tags, fmt.Sprintf(`"a-rather-long-name-of-a-tag-with-the-number-%06d"`, i))
	}
	body := `{"name":"attacker/list","tags":[` + strings.Join(tags, ",") + `]}`
	g.behave(func(w http.ResponseWriter, _ *http.Request, q question) bool {
		return q.kind == "tags" && page(w, "application/json", body)
	})
	var t tally
	each(ctx, 200, 200, func(i int) {
		c := m.attacker()
		defer c.close()
		t.add(c.get(ctx, fmt.Sprintf("/v2/docker.io/attacker/list/tags/list?x=%d", i)))
	})
	_, most, err := m.resident()
	if err != nil {
		return err
	}
	s.atMost(fmt.Sprintf("resident at most, a list of %d bytes: %s", len(body), t.String()), most, mostMemory, "MiB")
	s.atMost("requests at the registry for 200 queries", float64(g.hits(func(h hit) bool { return h.kind == "tags" })), 3, "")
	return nil
}
