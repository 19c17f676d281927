package coverage

import (
	"cmp"
	"iter"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/registrymirror/mirror/oci"
)

const (
	// clockSlack is how far the clocks of nodes may be off.
	clockSlack = 30 * time.Second
	// withoutEvent is how long before the start of a container its image may have been pulled, where no Event says it.
	withoutEvent = 10 * time.Minute
	// contactSlack is how long before a pull began the mirror's record of it may end.
	contactSlack = 5 * time.Minute
	// fewImages is how many images must have come without a layer before that is taken to mean something: layers that are on the
	// node already are not fetched.
	fewImages = 3
)

// Container is a container that runs, or has run, with its image.
type Container struct {
	Node, Pod string  // the pod as NAMESPACE/NAME
	Image     oci.Ref // canonical, as the pod names it
	// Digest is what the runtime calls the image: the digest of an index, a manifest or a config. Empty: not known.
	Digest  oci.Digest
	Policy  string    // Always, IfNotPresent or Never
	Started time.Time // zero: not known
	// Began and Ended are the time in which the kubelet has pulled the image, as its Event says. Zero: there is none.
	Began, Ended time.Time
}

// Node is a node with its addresses.
type Node struct {
	Name      string
	Addresses []string
}

// Input is what Judge compares.
type Input struct {
	At         time.Time
	Nodes      []Node
	Containers []Container // of images whose registries are upstreams of the mirror
	// Self is the node that the mirror runs on; clients on loopback are there. Empty: it is not known.
	Self    string
	Since   time.Time // when the record begins
	Gaps    []Gap     // in it
	Clients iter.Seq2[Client, error]
	// Replicas is how many mirrors there are that have a record each. Below 2: this one alone.
	Replicas int
}

// image is one image on one node.
type image struct {
	node       string
	ref        oci.Ref
	digest     oci.Digest
	pods       []string
	never      bool // all containers have imagePullPolicy Never
	started    time.Time
	began      time.Time // of the pull that is proven; zero: none is
	ended      time.Time
	got        Entry // by the node
	gotTag     Entry
	elsewhere  Entry  // by a client that may be this node
	elsewhereC string // that client
}

// prove takes in that the image was pulled in a time. The latest pull counts.
func (i *image) prove(began, ended time.Time) {
	if ended.After(i.ended) {
		i.began, i.ended = began, ended
	}
}

// onNode is what is known of a node.
type onNode struct {
	name     string
	images   []*image
	byKey    map[Key][]*image
	last     int64 // when a client that is the node was last seen; 0: never
	clients  []string
	oldest   time.Time // the record of a full client begins there; zero: none is full
	layers   bool      // it got a layer of some image
	noLayers int       // images whose config it got, and no layer
}

// Judge compares images with what clients got.
func Judge(in Input) (Report, error) {
	j := judge{in: in, nodes: make(map[string]*onNode), images: make(map[Key][]*image)}
	j.names()
	j.collect()
	if in.Clients != nil {
		for c, err := range in.Clients {
			if err != nil {
				return Report{}, err
			}
			j.client(c)
		}
	}
	return j.report(), nil
}

type judge struct {
	in       Input
	nodes    map[string]*onNode
	images   map[Key][]*image  // on all nodes
	byName   map[string]string // node by its name, in lower case, and by its first label where that is one node's
	byAddr   map[string]string // node by its address, or by the /64 of it
	unknown  []string          // clients that are not known as a node
	oldestOf time.Time         // the record of a full client that may be any node begins there
}

// names makes the names by which nodes are known.
func (j *judge) names() {
	j.byName, j.byAddr = make(map[string]string), make(map[string]string)
	put := func(m map[string]string, key, node string) {
		if have, ok := m[key]; ok && have != node {
			node = "" // of two nodes: of neither
		}
		m[key] = node
	}
	for _, n := range j.in.Nodes {
		name := strings.ToLower(n.Name)
		put(j.byName, name, n.Name)
		if short, _, cut := strings.Cut(name, "."); cut {
			put(j.byName, short, n.Name)
		}
		for _, a := range n.Addresses {
			ip, err := netip.ParseAddr(a)
			if err != nil {
				continue
			}
			put(j.byAddr, ip.String(), n.Name)
			if ip.Is6() {
				put(j.byAddr, netip.PrefixFrom(ip, 64).Masked().String(), n.Name)
			}
		}
	}
}

// node is the node that a client is; empty: not known. named says that the client gave the node's name itself.
func (j *judge) node(c Client) (node string, named bool) {
	name := strings.ToLower(c.Name)
	if n, ok := j.byName[name]; ok && n != "" {
		return n, true
	}
	if ip, err := netip.ParseAddr(name); err == nil {
		if ip.IsLoopback() {
			return j.in.Self, false
		}
		return j.byAddr[ip.String()], false
	}
	if short, _, cut := strings.Cut(name, "."); cut && j.byName[short] != "" && !strings.Contains(j.byName[short], ".") {
		return j.byName[short], true
	}
	if n := j.byAddr[c.Source]; n != "" {
		return n, false
	}
	if ip, err := netip.ParseAddr(c.Source); err == nil && ip.IsLoopback() {
		return j.in.Self, false
	}
	return "", false
}

// collect joins the containers of one image on one node.
func (j *judge) collect() {
	type key struct {
		node string
		ref  oci.Ref
		d    oci.Digest
	}
	found := make(map[key]*image)
	for _, c := range j.in.Containers {
		if c.Node == "" {
			continue
		}
		k := key{c.Node, c.Image, c.Digest}
		i := found[k]
		if i == nil {
			i = &image{node: c.Node, ref: c.Image, digest: c.Digest, never: true}
			found[k] = i
			j.add(i)
		}
		i.pods = append(i.pods, c.Pod)
		i.never = i.never && c.Policy == "Never"
		if !c.Started.IsZero() && (i.started.IsZero() || c.Started.Before(i.started)) {
			i.started = c.Started
		}
		if !c.Ended.IsZero() {
			i.prove(c.Began, c.Ended)
		}
		if c.Policy == "Always" && !c.Started.IsZero() && c.Started.After(c.Ended.Add(withoutEvent)) {
			i.prove(c.Started.Add(-withoutEvent), c.Started)
		}
	}
}

func (j *judge) add(i *image) {
	n := j.nodes[i.node]
	if n == nil {
		n = &onNode{name: i.node, byKey: make(map[Key][]*image)}
		j.nodes[i.node] = n
	}
	n.images = append(n.images, i)
	for _, k := range i.keys() {
		n.byKey[k] = append(n.byKey[k], i)
		j.images[k] = append(j.images[k], i)
	}
}

// keys are those under which the record may have the image.
func (i *image) keys() (list []Key) {
	for _, d := range []oci.Digest{i.digest, i.ref.Digest} {
		if d != "" && !slices.Contains(list, DigestKey(d)) {
			list = append(list, DigestKey(d))
		}
	}
	if i.ref.Tag != "" {
		list = append(list, TagKey(i.ref))
	}
	return list
}

func (i *image) isTag(k Key) bool { return i.ref.Tag != "" && k == TagKey(i.ref) }

// client takes in what a client got.
func (j *judge) client(c Client) {
	if c.Kubelet {
		j.kubelet(c)
		return
	}
	name, named := j.node(c)
	var oldest time.Time // of a client that is full
	if len(c.Entries) >= maxOfClient {
		oldest = time.Unix(slices.MinFunc(c.Entries, func(a, b Entry) int { return cmp.Compare(a.Last, b.Last) }).Last, 0)
	}
	n := j.nodes[name]
	if name == "" {
		j.unknown = append(j.unknown, c.Name)
		j.oldestOf = later(j.oldestOf, oldest)
	}
	if n != nil {
		n.clients = append(n.clients, c.Name)
		n.oldest = later(n.oldest, oldest)
	}
	for _, e := range c.Entries {
		if n != nil {
			n.take(e)
		}
		if named {
			continue
		}
		// An address may be that of several machines: it is for sure where it is not a node's, or where the node does not run the
		// image, or has fetched it twice.
		if name != "" && n != nil && len(n.byKey[e.Key]) > 0 && e.Flags&Again == 0 {
			continue
		}
		for _, i := range j.images[e.Key] {
			if i.node != name && e.Flags&Refused == 0 && e.Last > i.elsewhere.Last {
				i.elsewhere, i.elsewhereC = e, c.Name
			}
		}
	}
}

// take takes in what a client that is the node got.
func (n *onNode) take(e Entry) {
	n.last = max(n.last, e.Last)
	n.layers = n.layers || e.Flags&Layers != 0
	for _, i := range n.byKey[e.Key] {
		have := &i.got
		if i.isTag(e.Key) {
			have = &i.gotTag
		}
		if have.Flags == 0 {
			*have = e
		} else {
			*have = have.add(e)
		}
	}
}

// kubelet takes in which images a kubelet has pulled.
func (j *judge) kubelet(c Client) {
	n := j.nodes[c.Name]
	if n == nil {
		return
	}
	for _, e := range c.Entries {
		for _, i := range n.byKey[e.Key] {
			at := time.Unix(e.Last, 0)
			i.prove(at, at)
		}
	}
}

// recorded reports whether the mirror has recorded from one time to another.
func recorded(since time.Time, gaps []Gap, from, to time.Time) bool {
	return !from.Add(-clockSlack).Before(since) && !slices.ContainsFunc(gaps, func(g Gap) bool {
		return from.Add(-clockSlack).Before(g.To) && to.Add(clockSlack).After(g.From)
	})
}

// state is what is said of an image, and why.
func (j *judge) state(n *onNode, i *image) (State, Why) {
	proven := !i.ended.IsZero()
	inTime := func(e Entry) bool {
		return e.Flags&Shown != 0 && e.Flags&Refused == 0 && !time.Unix(e.Last, 0).Before(i.began.Add(-contactSlack))
	}
	got, tag := i.got, i.gotTag
	switch {
	case got.Flags&Shown != 0 && got.Flags&Refused == 0 && !proven, proven && inTime(got),
		(proven || i.digest == "") && inTime(tag):
		if j.in.Replicas < 2 && n.onlyManifests(i) { // of several, another one may have sent the layers
			return Missed, WhyLayers
		}
		return Through, ""
	case !proven && i.never:
		return Unknown, WhyNever
	case !proven && !i.started.IsZero() && i.started.Before(j.in.Since):
		return Unknown, WhyBefore
	case !proven && i.digest == "" && i.started.IsZero():
		return Unknown, WhyNoDigest
	case !proven:
		return Unknown, WhyNotProven
	case i.began.Add(-clockSlack).Before(j.in.Since):
		return Unknown, WhyBefore
	case !recorded(j.in.Since, j.in.Gaps, i.began, i.ended), i.began.Before(n.oldest), i.began.Before(j.oldestOf):
		return Unknown, WhyGap
	case inTime(i.elsewhere):
		return Unknown, WhyAddress
	case j.in.Replicas > 1:
		return Unknown, WhyReplica
	case got.Flags&Refused != 0 || tag.Flags&Refused != 0:
		return Missed, WhyRefused
	case got.Flags&Shown != 0:
		return Missed, WhyLater
	}
	return Missed, WhyPast
}

// onlyManifests reports whether the node gets manifests and configs through the mirror, and no layers of any image.
func (n *onNode) onlyManifests(i *image) bool {
	return !n.layers && n.noLayers >= fewImages && i.got.Flags&Config != 0
}

func (j *judge) report() Report {
	r := Report{Since: j.in.Since.UTC(), Replicas: max(1, j.in.Replicas), Nodes: []NodeReport{}, Notes: []string{}}
	for _, name := range slices.Sorted(maps.Keys(j.nodes)) {
		n := j.nodes[name]
		for _, i := range n.images {
			if i.got.Flags&Config != 0 {
				n.noLayers++
			}
		}
		r.Nodes = append(r.Nodes, j.nodeReport(n))
	}
	for _, n := range r.Nodes {
		r.Summary.add(n)
	}
	r.Notes = append(r.Notes, j.notes(r)...)
	return r
}

// nodeReport is what is said of a node.
func (j *judge) nodeReport(n *onNode) NodeReport {
	r := NodeReport{Node: n.name, Since: j.in.Since.UTC(), Clients: n.clients}
	if n.last > 0 {
		r.LastSeen = time.Unix(n.last, 0).UTC()
	}
	for _, i := range n.images {
		state, why := j.state(n, i)
		slices.Sort(i.pods)
		x := ImageReport{Image: i.ref.String(), Digest: i.digest.String(), State: state, Why: why, Pods: slices.Compact(i.pods), PulledAt: utc(i.ended)}
		if why == WhyAddress {
			x.Client = i.elsewhereC
		}
		r.Details = append(r.Details, x)
	}
	slices.SortStableFunc(r.Details, func(a, b ImageReport) int {
		return cmp.Or(cmp.Compare(slices.Index(States, a.State), slices.Index(States, b.State)), strings.Compare(a.Image, b.Image), strings.Compare(a.Digest, b.Digest))
	})
	r.count()
	r.Reason = reason(r)
	return r
}

func utc(t time.Time) time.Time {
	if t.IsZero() {
		return t
	}
	return t.UTC().Truncate(time.Second)
}
