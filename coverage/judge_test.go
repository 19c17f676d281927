package coverage_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/registrymirror/mirror/coverage"
	"github.com/registrymirror/mirror/journal"
	"github.com/registrymirror/mirror/oci"
)

var since = time.Date(2026, 11, 30, 9, 0, 0, 0, time.UTC)

// d is a digest by a name.
func d(name string) oci.Digest { return digest.FromString(name) }

func ref(image string) oci.Ref {
	r, err := oci.ParseRef(image)
	if err != nil {
		panic(err)
	}
	return r
}

// after is a time in the record.
func after(minutes int) time.Time { return since.Add(time.Duration(minutes) * time.Minute) }

// pull is the pull of an image by containerd: index, manifest, config, layers.
func pull(client, source, image string, minutes int) journal.Pull {
	r := ref(image)
	r.Digest = d("index " + image)
	return journal.Pull{
		Ref: r, Upstream: r.Host, Client: client, Source: source, Outcome: journal.Served, Began: after(minutes), Took: 10 * time.Second,
		Documents: []oci.Digest{d("index " + image), d("manifest " + image), d("config " + image)}, Config: true, Layers: true,
	}
}

// runs is a container whose image the kubelet has pulled; minutes below zero: no Event says so.
func runs(node, image string, minutes int) coverage.Container {
	c := coverage.Container{
		Node: node, Pod: "prod/" + node, Image: ref(image), Digest: d("index " + image), Policy: "IfNotPresent", Started: after(minutes).Add(time.Second),
	}
	if minutes >= 0 {
		c.Began, c.Ended = after(minutes), after(minutes)
	}
	return c
}

const app, web, db = "ghcr.io/acme/app:v1", "docker.io/library/web:1", "quay.io/acme/db:3"

// judge judges with what the record has after pulls.
func judge(t *testing.T, in coverage.Input, pulls ...journal.Pull) coverage.Report {
	t.Helper()
	if in.Since.IsZero() {
		in.Since = since
	}
	if in.Nodes == nil {
		for i := range 9 {
			in.Nodes = append(in.Nodes, coverage.Node{Name: fmt.Sprintf("node-%d", i), Addresses: []string{fmt.Sprintf("10.0.0.%d", i), fmt.Sprintf("2001:db8:%d::1", i)}})
		}
	}
	in.Clients = coverage.Open(nil, nil).Clients(pulls)
	r, err := coverage.Judge(in)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// lines are the images of a report in one line each.
func lines(r coverage.Report) (list []string) {
	for _, n := range r.Nodes {
		for _, i := range n.Details {
			list = append(list, strings.TrimSpace(n.Node+" "+i.Image+" "+string(i.State)+" "+string(i.Why)))
		}
	}
	return list
}

func TestJudge(t *testing.T) {
	t.Parallel()
	with := func(c coverage.Container, change func(*coverage.Container)) coverage.Container { change(&c); return c }
	only := func(c coverage.Container) coverage.Input { return coverage.Input{Containers: []coverage.Container{c}} }
	always := func(c *coverage.Container) { c.Policy, c.Began, c.Ended = "Always", time.Time{}, time.Time{} }
	looked := func(p journal.Pull) journal.Pull {
		p.Outcome, p.Config, p.Layers = journal.Looked, false, false
		p.Documents = p.Documents[:1]
		return p
	}
	refused := journal.Pull{Ref: ref(app), Upstream: "ghcr.io", Client: "node-1", Source: "10.0.0.1", Outcome: journal.Declined, Began: after(60)}
	for _, tt := range []struct {
		name  string
		in    coverage.Input
		pulls []journal.Pull
		want  string
	}{
		{"by its name", only(runs("node-1", app, 60)), []journal.Pull{pull("node-1", "10.9.9.9", app, 60)}, "through"},
		{"by its name in another case", only(runs("node-1", app, 60)), []journal.Pull{pull("NODE-1", "10.9.9.9", app, 60)}, "through"},
		{"by a longer name", only(runs("node-1", app, 60)), []journal.Pull{pull("node-1.corp.example", "10.9.9.9", app, 60)}, "through"},
		{"by its address", only(runs("node-1", app, 60)), []journal.Pull{pull("10.0.0.1", "10.0.0.1", app, 60)}, "through"},
		{"by its IPv6 address", only(runs("node-1", app, 60)), []journal.Pull{pull("2001:db8:1::1", "2001:db8:1::/64", app, 60)}, "through"},
		{"by another name from its address", only(runs("node-1", app, 60)), []journal.Pull{pull("worker-a", "10.0.0.1", app, 60)}, "through"},
		{"by another name from its IPv6 network", only(runs("node-1", app, 60)), []journal.Pull{pull("worker-a", "2001:db8:1::/64", app, 60)}, "through"},
		{
			"on loopback, beside the mirror",
			coverage.Input{Self: "node-1", Containers: []coverage.Container{runs("node-1", app, 60)}},
			[]journal.Pull{pull("127.0.0.1", "127.0.0.1", app, 60)},
			"through",
		},
		{"on loopback, where the mirror's node is not known", only(runs("node-1", app, 60)), []journal.Pull{pull("127.0.0.1", "127.0.0.1", app, 60)}, "unknown other-address"},
		{"the manifest, as CRI-O has it", only(with(runs("node-1", app, 60), func(c *coverage.Container) { c.Digest = d("manifest " + app) })), []journal.Pull{pull("node-1", "", app, 60)}, "through"},
		{"the config, as CRI-O and Docker have it", only(with(runs("node-1", app, 60), func(c *coverage.Container) { c.Digest = d("config " + app) })), []journal.Pull{pull("node-1", "", app, 60)}, "through"},
		{"the config of an image that is only looked at", only(with(runs("node-1", app, 60), func(c *coverage.Container) { c.Digest = d("config " + app) })), []journal.Pull{looked(pull("node-1", "", app, 60))}, "through"},
		{"under the name of another repository", only(with(runs("node-1", web, 60), func(c *coverage.Container) { c.Digest = d("index " + app) })), []journal.Pull{pull("node-1", "", app, 60)}, "through"},
		{"by digest", only(with(runs("node-1", app, 60), func(c *coverage.Container) {
			c.Image, c.Digest = oci.Ref{Repo: c.Image.Repo, Digest: d("index " + app)}, ""
		})), []journal.Pull{pull("node-1", "", app, 60)}, "through"},
		{"past the mirror", only(runs("node-1", app, 60)), nil, "missed past"},
		{"past it, and another node through it", only(runs("node-1", app, 60)), []journal.Pull{pull("node-2", "10.0.0.2", app, 60)}, "missed past"},
		{
			"past it, and another node by its address, which runs it, too",
			coverage.Input{Containers: []coverage.Container{runs("node-1", app, 60), runs("node-2", app, 50)}},
			[]journal.Pull{pull("10.0.0.2", "10.0.0.2", app, 50)},
			"missed past, through",
		},
		{
			"the address of another node, which fetched it twice",
			coverage.Input{Containers: []coverage.Container{runs("node-1", app, 60), runs("node-2", app, 50)}},
			[]journal.Pull{pull("10.0.0.2", "10.0.0.2", app, 50), pull("10.0.0.2", "10.0.0.2", app, 60)},
			"unknown other-address, through",
		},
		{
			"the address of another node, on which nothing runs", only(runs("node-1", app, 60)),
			[]journal.Pull{pull("10.0.0.2", "10.0.0.2", app, 60)},
			"unknown other-address",
		},
		{
			"the address of another node, which runs something else",
			coverage.Input{Containers: []coverage.Container{runs("node-1", app, 60), runs("node-2", web, 60)}},
			[]journal.Pull{pull("10.0.0.2", "10.0.0.2", app, 60), pull("10.0.0.2", "10.0.0.2", web, 60)},
			"unknown other-address, through",
		},
		{"behind NAT", only(runs("node-1", app, 60)), []journal.Pull{pull("192.0.2.1", "192.0.2.1", app, 60)}, "unknown other-address"},
		{"behind NAT, an hour before", only(runs("node-1", app, 60)), []journal.Pull{pull("192.0.2.1", "192.0.2.1", app, 5)}, "missed past"},
		{"behind NAT, another image", only(runs("node-1", app, 60)), []journal.Pull{pull("192.0.2.1", "192.0.2.1", web, 60)}, "missed past"},
		{"another replica may have served it", coverage.Input{Replicas: 2, Containers: []coverage.Container{runs("node-1", app, 60)}}, nil, "unknown replica"},
		{"refused", only(runs("node-1", app, 60)), []journal.Pull{refused}, "missed refused"},
		{"refused, then served", only(runs("node-1", app, 61)), []journal.Pull{refused, pull("node-1", "", app, 61)}, "through"},
		{"pulled through it once, and then past it", only(runs("node-1", app, 90)), []journal.Pull{pull("node-1", "", app, 60)}, "missed stopped"},
		{"no Event, and it came through", only(runs("node-1", app, -60)), []journal.Pull{pull("node-1", "", app, 60)}, "through"},
		{"no Event, and from before the record", only(runs("node-1", app, -60)), nil, "unknown before"},
		{"no Event", only(with(runs("node-1", app, -60), func(c *coverage.Container) { c.Started = after(60) })), nil, "unknown not-proven"},
		{"an Event from before the record", only(with(runs("node-1", app, 60), func(c *coverage.Container) { c.Began = after(-1) })), nil, "unknown before"},
		{"an Event of the first seconds", only(with(runs("node-1", app, 0), func(c *coverage.Container) { c.Ended = after(1) })), nil, "unknown before"},
		{
			"pulled while the mirror was down",
			coverage.Input{Gaps: []coverage.Gap{{From: after(50), To: after(60)}}, Containers: []coverage.Container{runs("node-1", app, 60)}},
			nil, "unknown not-recording",
		},
		{
			"a long pull, in which the mirror was down",
			coverage.Input{Gaps: []coverage.Gap{{From: after(50), To: after(51)}}, Containers: []coverage.Container{
				with(runs("node-1", app, 60), func(c *coverage.Container) { c.Began = after(40) }),
			}},
			nil, "unknown not-recording",
		},
		{"imagePullPolicy Always proves the pull", only(with(runs("node-1", app, 60), always)), nil, "missed past"},
		{"Always, where the image was only looked at", only(with(runs("node-1", app, 60), always)), []journal.Pull{looked(pull("node-1", "", app, 60))}, "through"},
		{"Always, and it was looked at long before", only(with(runs("node-1", app, 60), always)), []journal.Pull{looked(pull("node-1", "", app, 30))}, "missed stopped"},
		{"Always, just after the record began", only(with(runs("node-1", app, 5), always)), nil, "unknown before"},
		{"Never", only(with(runs("node-1", app, -60), func(c *coverage.Container) { c.Policy = "Never" })), nil, "unknown never-pulled"},
		{"the runtime shows no digest", only(with(runs("node-1", app, -1), func(c *coverage.Container) { c.Digest, c.Started = "", time.Time{} })), nil, "unknown no-digest"},
		{"no digest, and its tag came through", only(with(runs("node-1", app, 60), func(c *coverage.Container) { c.Digest = "" })), []journal.Pull{pull("node-1", "", app, 60)}, "through"},
		{"two nodes have one short name", coverage.Input{
			Nodes:      []coverage.Node{{Name: "node-1.a.example"}, {Name: "node-1.b.example"}},
			Containers: []coverage.Container{runs("node-1.a.example", app, 60)},
		}, []journal.Pull{pull("node-1", "10.0.0.1", app, 60)}, "unknown other-address"},
	} {
		var got []string
		for _, line := range lines(judge(t, tt.in, tt.pulls...)) {
			got = append(got, strings.Join(strings.Fields(line)[2:], " "))
		}
		if s := strings.Join(got, ", "); s != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, s, tt.want)
		}
	}
}

// Each reason says what happened and what to do.
func TestReasons(t *testing.T) {
	t.Parallel()
	onlyManifests := func(image string) journal.Pull {
		p := pull("node-1", "", image, 60)
		p.Layers = false
		return p
	}
	refused := pull("node-1", "", app, 60)
	refused.Outcome = journal.Declined
	three := []coverage.Container{runs("node-1", app, 60), runs("node-1", web, 60), runs("node-1", db, 60)}
	gap := coverage.Input{Gaps: []coverage.Gap{{From: after(50), To: after(70)}}, Containers: three[:1]}
	later := runs("node-1", db, 80)
	for _, tt := range []struct {
		in     coverage.Input
		pulls  []journal.Pull
		counts string // images, through, unknown
		want   string
	}{
		{coverage.Input{Containers: three}, []journal.Pull{pull("node-1", "", app, 60), pull("node-1", "", web, 60), pull("node-1", "", db, 60)}, "3 3 0", ""},
		{coverage.Input{Containers: three}, nil, "3 0 0", "no request of this node since 2026-11-30T09:00:00Z; run mirror doctor node on it"},
		{
			coverage.Input{Containers: three},
			[]journal.Pull{onlyManifests(app), onlyManifests(web), onlyManifests(db)},
			"3 0 0",
			"manifests come through the mirror, and layers do not: a snapshotter with settings of its own, as soci, stargz or nydus; run mirror doctor node on it",
		},
		{coverage.Input{Containers: three[:2]}, []journal.Pull{onlyManifests(app), onlyManifests(web)}, "2 2 0", ""}, // its layers may be there
		{coverage.Input{Containers: three[:1]}, []journal.Pull{refused}, "1 0 0", "the mirror refused 1 image, and the node went on to the registry; see mirror failures --declined"},
		{
			coverage.Input{Containers: three},
			[]journal.Pull{pull("node-1", "", app, 60), pull("node-1", "", web, 60)},
			"3 2 0",
			"no image of quay.io came through the mirror, images of other registries did: the node has no entry for it; run mirror doctor node on it",
		},
		{
			coverage.Input{Containers: []coverage.Container{three[2], later, runs("node-1", "quay.io/acme/db:4", 80)}},
			[]journal.Pull{pull("node-1", "", db, 60)},
			"2 0 0",
			"no request of this node since 2026-11-30T10:00:10Z, and images were pulled after it; run mirror doctor node on it",
		},
		{
			coverage.Input{Containers: []coverage.Container{three[2], runs("node-1", "quay.io/acme/db:4", 50)}},
			[]journal.Pull{pull("node-1", "", db, 60)},
			"2 1 0",
			"1 image came past the mirror, others came through; run mirror doctor node on it",
		},
		{gap, nil, "0 0 1", "unknown: 1 were pulled while the mirror did not record"},
		{
			coverage.Input{Containers: three[:1]},
			[]journal.Pull{pull("192.0.2.1", "192.0.2.1", app, 60)},
			"0 0 1",
			"unknown: 1 may have come through the mirror for another address (192.0.2.1): have the nodes send their names, mirror setup containerd --node NAME",
		},
	} {
		r := judge(t, tt.in, tt.pulls...)
		if len(r.Nodes) != 1 {
			t.Fatalf("%+v", r)
		}
		n := r.Nodes[0]
		if counts := fmt.Sprint(n.Images, n.Through, n.Unknown); counts != tt.counts || n.Reason != tt.want {
			t.Errorf("%s: %q, want %s: %q\n%s", counts, n.Reason, tt.counts, tt.want, strings.Join(lines(r), "\n"))
		}
	}
}

// Clients that are not nodes are named, and so are the replicas.
func TestNotes(t *testing.T) {
	t.Parallel()
	r := judge(t, coverage.Input{Replicas: 3, Containers: []coverage.Container{runs("node-1", app, 60)}}, pull("192.0.2.1", "192.0.2.1", web, 60))
	if text := strings.Join(r.Notes, "\n"); len(r.Notes) != 2 || !strings.Contains(text, "1 of 3 replicas") || !strings.Contains(text, "192.0.2.1") {
		t.Errorf("notes: %s", text)
	}
	if d := cmp.Diff(coverage.Summary{Nodes: 1, Unknown: 1}, r.Summary); d != "" {
		t.Error(d)
	}
}

// An image is missed when all replicas have looked and none has served it.
func TestMerge(t *testing.T) {
	t.Parallel()
	in := coverage.Input{Replicas: 2, Containers: []coverage.Container{runs("node-1", app, 60), runs("node-1", web, 60), runs("node-1", db, 60)}}
	a, b := judge(t, in, pull("node-1", "", app, 60)), judge(t, in, pull("node-1", "", web, 60))
	merged := coverage.Merge([]coverage.Report{a, b})
	want := []string{"node-1 docker.io/library/web:1 through", "node-1 ghcr.io/acme/app:v1 through", "node-1 quay.io/acme/db:3 missed past"}
	got := lines(merged)
	slices.Sort(got)
	if d := cmp.Diff(want, got); d != "" || merged.Summary.Missed != 1 || merged.Nodes[0].Reason == "" || len(merged.Notes) != 0 {
		t.Errorf("%s\n%+v", d, merged)
	}
	one := coverage.Merge([]coverage.Report{a})
	if one.Summary.Missed != 0 || one.Summary.Unknown != 2 || len(one.Notes) != 1 {
		t.Errorf("one of two: %+v", one)
	}
}
