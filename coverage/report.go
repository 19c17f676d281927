package coverage

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// State is whether an image came to its node through the mirror.
type State string

// The states of an image.
const (
	Missed  State = "missed"  // the node has pulled it, and this mirror has not served it
	Unknown State = "unknown" // it can't be told
	Through State = "through"
)

// States are all states, in the order in which they are shown.
var States = []State{Missed, Unknown, Through}

// Why is the cause of a state other than through.
type Why string

// The causes.
const (
	WhyPast    Why = "past"          // the node did not ask the mirror
	WhyLater   Why = "stopped"       // an earlier pull came through the mirror, the last one did not
	WhyRefused Why = "refused"       // the mirror refused it, and the node went on to the registry
	WhyLayers  Why = "layers"        // manifest and config came through the mirror, the layers did not
	WhyBefore  Why = "before"        // it was there before the record began
	WhyGap     Why = "not-recording" // it was pulled while the mirror did not record
	WhyNever   Why = "never-pulled"  // imagePullPolicy is Never
	WhyAddress Why = "other-address" // a client that may be this node has pulled it
	WhyReplica Why = "replica"       // another replica may have served it
	// WhyNotProven: the node may have had it before the pod was made, and no Event of the kubelet says that it pulled.
	WhyNotProven Why = "not-proven"
	WhyNoDigest  Why = "no-digest" // the runtime does not say which image it is
)

// Report is what was found. Its nodes are sorted by name.
type Report struct {
	Nodes    []NodeReport `json:"nodes"`
	Summary  Summary      `json:"summary"`
	Since    time.Time    `json:"since"`    // when this mirror's record begins
	Replicas int          `json:"replicas"` // that have a record each
	Notes    []string     `json:"notes,omitempty"`
}

// Summary counts over all nodes.
type Summary struct {
	Nodes   int `json:"nodes"`
	Images  int `json:"images"` // through and missed
	Through int `json:"through"`
	Missed  int `json:"missed"`
	Unknown int `json:"unknown"`
}

func (s *Summary) add(n NodeReport) {
	s.Nodes++
	s.Images += n.Images
	s.Through += n.Through
	s.Missed += n.Images - n.Through
	s.Unknown += n.Unknown
}

// NodeReport is what is said of one node.
type NodeReport struct {
	Node     string        `json:"node"`
	Images   int           `json:"images"`  // that run there, and of which it is known how they came
	Through  int           `json:"through"` // of these, those that came through the mirror; the others were missed
	Unknown  int           `json:"unknown"` // images of which it is not known
	Since    time.Time     `json:"since"`   // what was pulled before is not known
	LastSeen time.Time     `json:"lastSeen,omitzero"`
	Reason   string        `json:"reason,omitempty"`  // why images were missed, or are unknown, and what to do
	Clients  []string      `json:"clients,omitempty"` // the names under which the record has the node
	Details  []ImageReport `json:"details,omitempty"`
}

// ImageReport is what is said of one image of a node.
type ImageReport struct {
	Image    string    `json:"image"`
	Digest   string    `json:"digest,omitempty"` // as the runtime has it
	State    State     `json:"state"`
	Why      Why       `json:"why,omitempty"`
	Client   string    `json:"client,omitempty"`  // that may be this node, where another address has pulled it
	PulledAt time.Time `json:"pulledAt,omitzero"` // when the node has pulled it, where that is proven
	Pods     []string  `json:"pods"`              // NAMESPACE/NAME
}

// State is that of the node: missed if an image was, else through if one came so.
func (n *NodeReport) State() State {
	switch {
	case n.Images > n.Through:
		return Missed
	case n.Through > 0:
		return Through
	}
	return Unknown
}

func (n *NodeReport) count() {
	n.Images, n.Through, n.Unknown = 0, 0, 0
	for _, i := range n.Details {
		switch i.State {
		case Through:
			n.Images++
			n.Through++
		case Missed:
			n.Images++
		case Unknown:
			n.Unknown++
		}
	}
}

// causes counts the images of a state by cause.
func (n *NodeReport) causes(s State) map[Why]int {
	counts := make(map[Why]int)
	for _, i := range n.Details {
		if i.State == s {
			counts[i.Why]++
		}
	}
	return counts
}

// reason is why images of a node were missed, else why some are unknown, in a sentence with what to do.
func reason(n NodeReport) string {
	if n.Images > n.Through {
		return missedReason(n)
	}
	return unknownReason(n)
}

func missedReason(n NodeReport) string {
	c := n.causes(Missed)
	check := "; run mirror doctor node on it"
	switch {
	case c[WhyRefused] == n.Images-n.Through:
		return fmt.Sprintf("the mirror refused %s, and the node went on to the registry; see mirror failures --declined", number(c[WhyRefused], "image"))
	case c[WhyLayers] > 0:
		return "manifests come through the mirror, and layers do not: a snapshotter with settings of its own, as soci, stargz or nydus" + check
	case n.LastSeen.IsZero():
		return "no request of this node since " + n.Since.Format(time.RFC3339) + check
	}
	if hosts := onlyMissed(n); len(hosts) > 0 {
		return "no image of " + strings.Join(hosts, ", ") + " came through the mirror, images of other registries did: the node has no entry for it" + check
	}
	if c[WhyLater]+c[WhyPast] == n.Images-n.Through && stopped(n) {
		return "no request of this node since " + n.LastSeen.Format(time.RFC3339) + ", and images were pulled after it" + check
	}
	return fmt.Sprintf("%s came past the mirror, others came through", number(n.Images-n.Through, "image")) + check
}

// stopped reports whether all missed images were pulled after the last request of the node.
func stopped(n NodeReport) bool {
	return !slices.ContainsFunc(n.Details, func(i ImageReport) bool { return i.State == Missed && i.PulledAt.Before(n.LastSeen) })
}

// onlyMissed are the registries of which all images were missed, where some of others came through.
func onlyMissed(n NodeReport) (hosts []string) {
	through := make(map[string]bool)
	for _, i := range n.Details {
		host, _, _ := strings.Cut(i.Image, "/")
		through[host] = through[host] || i.State == Through
	}
	if n.Through == 0 {
		return nil
	}
	for _, i := range n.Details {
		host, _, _ := strings.Cut(i.Image, "/")
		if i.State != Missed {
			continue
		}
		if through[host] { // the cause is another one
			return nil
		}
		if !slices.Contains(hosts, host) {
			hosts = append(hosts, host)
		}
	}
	return hosts
}

// unknownReasons are the sentences on unknown images, the one that tells most in front.
var unknownReasons = []struct {
	why  Why
	text string
}{
	{WhyAddress, "may have come through the mirror for another address (%s): have the nodes send their names, mirror setup containerd --node NAME"},
	{WhyReplica, "may have come through another replica: ask them all, mirror coverage --replica URL"},
	{WhyGap, "were pulled while the mirror did not record"},
	{WhyNotProven, "may have been on the node before: no Event says that the kubelet has pulled them"},
	{WhyBefore, "were on the node before the record began"},
	{WhyNoDigest, "have no digest that the runtime shows"},
	{WhyNever, "are never pulled (imagePullPolicy: Never)"},
}

func unknownReason(n NodeReport) string {
	c := n.causes(Unknown)
	var parts []string
	for _, x := range unknownReasons {
		if c[x.why] == 0 {
			continue
		}
		text := x.text
		if x.why == WhyAddress {
			text = fmt.Sprintf(text, strings.Join(addresses(n), ", "))
		}
		parts = append(parts, fmt.Sprintf("%d %s", c[x.why], text))
	}
	if len(parts) == 0 {
		return ""
	}
	return "unknown: " + strings.Join(parts, "; ")
}

// addresses are the clients that may be the node, three at most.
func addresses(n NodeReport) (list []string) {
	for _, i := range n.Details {
		if i.Client != "" && !slices.Contains(list, i.Client) && len(list) < 3 {
			list = append(list, i.Client)
		}
	}
	return list
}

func number(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// notes say what limits the whole report.
func (j *judge) notes(r Report) (notes []string) {
	if r.Replicas > 1 {
		notes = append(notes, fmt.Sprintf("this is what 1 of %d replicas has seen; images that another one served are unknown here: ask all of "+
			"them at once, mirror coverage --admin URL --replica URL", r.Replicas))
	}
	if n := len(j.unknown); n > 0 {
		slices.Sort(j.unknown)
		notes = append(notes, fmt.Sprintf("clients that are not known as nodes: %d, as %s; behind NAT or a load balancer, nodes are told apart by the header "+
			"Mirror-Node alone: mirror setup containerd --node NAME", n, strings.Join(j.unknown[:min(n, 3)], ", ")))
	}
	return notes
}

// SortMissed puts the nodes with most missed images first.
func (r *Report) SortMissed() {
	slices.SortStableFunc(r.Nodes, func(a, b NodeReport) int { return (b.Images - b.Through) - (a.Images - a.Through) })
}

// Only is the report of the images that are chosen. The details of all are needed. Nodes without such an image, and notes, which are
// of all images, are left out.
func (r Report) Only(chosen func(image string) bool) Report {
	only := Report{Nodes: []NodeReport{}, Since: r.Since, Replicas: r.Replicas}
	for _, n := range r.Nodes {
		n.Details = slices.DeleteFunc(slices.Clone(n.Details), func(i ImageReport) bool { return !chosen(i.Image) })
		if len(n.Details) == 0 {
			continue
		}
		n.count()
		n.Reason = reason(n)
		only.Nodes = append(only.Nodes, n)
		only.Summary.add(n)
	}
	return only
}

// Merge joins the reports of replicas: an image that one of them has served came through, and one is missed if no replica of them all
// has served it. The details of all are needed.
func Merge(reports []Report) Report {
	if len(reports) == 0 {
		return Report{Nodes: []NodeReport{}}
	}
	m := Report{Nodes: []NodeReport{}, Since: reports[0].Since}
	byNode := make(map[string]*merging)
	var names []string
	for _, r := range reports {
		m.Replicas = max(m.Replicas, r.Replicas)
		m.Since = later(m.Since, r.Since)
		for _, n := range r.Nodes {
			x := byNode[n.Node]
			if x == nil {
				x = &merging{images: make(map[[2]string][]ImageReport)}
				byNode[n.Node] = x
				names = append(names, n.Node)
			}
			x.add(n)
		}
	}
	slices.Sort(names)
	whole := len(reports) >= m.Replicas
	for _, name := range names {
		m.Nodes = append(m.Nodes, byNode[name].report(name, m.Since, len(reports), whole))
		m.Summary.add(m.Nodes[len(m.Nodes)-1])
	}
	if !whole {
		m.Notes = append(m.Notes, fmt.Sprintf("%d of %d replicas were asked; images that another one served are unknown here", len(reports), m.Replicas))
	}
	return m
}

// merging is one node as several replicas report it.
type merging struct {
	lastSeen time.Time
	clients  []string
	keys     [][2]string
	images   map[[2]string][]ImageReport
}

func (x *merging) add(n NodeReport) {
	x.lastSeen = later(x.lastSeen, n.LastSeen)
	for _, c := range n.Clients {
		if !slices.Contains(x.clients, c) {
			x.clients = append(x.clients, c)
		}
	}
	for _, i := range n.Details {
		k := [2]string{i.Image, i.Digest}
		if x.images[k] == nil {
			x.keys = append(x.keys, k)
		}
		x.images[k] = append(x.images[k], i)
	}
}

func (x *merging) report(name string, since time.Time, asked int, whole bool) NodeReport {
	n := NodeReport{Node: name, Since: since, LastSeen: x.lastSeen, Clients: x.clients}
	for _, k := range x.keys {
		n.Details = append(n.Details, mergeImage(x.images[k], asked, whole))
	}
	n.count()
	n.Reason = reason(n)
	return n
}

// mergeImage joins what replicas say of one image. A replica that does not know the image has not looked at the same time.
func mergeImage(list []ImageReport, asked int, whole bool) ImageReport {
	missed := 0
	best := list[0]
	for _, i := range list {
		switch {
		case i.State == Through:
			return i
		case i.State == Missed || i.Why == WhyReplica:
			missed++
			if best.State != Unknown || best.Why == WhyReplica {
				if i.State == Missed {
					best = i
				}
			}
		default:
			best = i
		}
	}
	if whole && missed == asked {
		if best.State == Unknown {
			best.State, best.Why = Missed, WhyPast
		}
		return best
	}
	if best.State == Missed {
		best.State, best.Why = Unknown, WhyReplica
	}
	return best
}
