package journal

import (
	"cmp"
	"container/list"
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/registrymirror/mirror/diagnose"
	"github.com/registrymirror/mirror/internal/bounded"
	"github.com/registrymirror/mirror/oci"
)

// No response shows some failures: the image lacks the node's platform, and the client requests nothing more; or the client
// leaves, perhaps because it got too little in too long a time. They are inferred from what the client does next, for
// runtimes alone: other clients may want just the index, or just the start of a layer.

const (
	// childWithin is how long after an index a runtime requests a manifest in it. All known runtimes do at once.
	childWithin = 10 * time.Second
	maxIndexes  = 512
	maxLearned  = 10_000 // clients whose platform is known

	// A client that leaves after slowAfter, and got less than slowRate bytes a second, left because it was too slow.
	slowAfter = time.Minute
	slowRate  = 1 << 20
)

// runtimes begin the user agents of programs that pull images in order to run them.
var runtimes = []string{"containerd/", "docker/", "buildkit/", "cri-o/", "containers/", "libpod/", "podman/"}

func isRuntime(agent string) bool {
	return slices.ContainsFunc(runtimes, func(name string) bool { return strings.HasPrefix(agent, name) })
}

// inference holds the pulls that may lack a platform, and what is known of platforms.
type inference struct {
	waiting *list.List // pulls whose client got an index and has not requested more, the one whose time ends first in front

	indexes   map[oci.Digest]*index // nil: it names no platforms
	platforms map[string]*share[*learned]
	known     *shares[*learned] // of platforms
}

func newInference() *inference {
	return &inference{
		waiting: list.New(), platforms: make(map[string]*share[*learned]), known: newShares[*learned](maxLearned),
	}
}

// index is what a client may choose from.
type index struct {
	platforms []oci.Platform
	children  map[oci.Digest]string // manifest to OS/ARCH
}

// offer is an index that a client got.
type offer struct {
	*index
	agent string // the client's user agent
}

// indexOf returns the index that a request got, nil where it names no platforms.
func (i *inference) indexOf(r Request) *index {
	if x, ok := i.indexes[r.Ref.Digest]; ok {
		return x
	}
	x := parseIndex(r.Index)
	bounded.Put(&i.indexes, r.Ref.Digest, x, maxIndexes)
	return x
}

func parseIndex(document []byte) *index {
	m, err := oci.ParseManifest("", document)
	if err != nil {
		return nil
	}
	x := &index{children: make(map[oci.Digest]string)}
	for _, c := range m.Children {
		p := c.Platform
		if p == nil || p.OS == "" || p.Architecture == "" || p.OS == "unknown" || p.Architecture == "unknown" {
			continue
		}
		x.platforms = append(x.platforms, *p)
		x.children[c.Digest] = p.OS + "/" + p.Architecture
	}
	if len(x.platforms) == 0 {
		return nil
	}
	return x
}

var agentPlatform = regexp.MustCompile(`\bos/(\w+) arch/(\w+)`)

// platform is the platform of a client: Docker sends it, and other clients show it by what they choose from other
// indexes. Empty where it is not known, or where there are several: a cluster behind one address.
func (i *inference) platform(client, agent string) string {
	if m := agentPlatform.FindStringSubmatch(agent); m != nil {
		return m[1] + "/" + m[2]
	}
	if l := i.platforms[client]; l != nil && !l.value.mixed {
		return l.value.platform
	}
	return ""
}

// learned is the platform that a client has chosen.
type learned struct {
	client, platform string
	mixed            bool // it has chosen others, too
}

func (i *inference) learn(h holder, platform string) {
	if l := i.platforms[h.client]; l != nil {
		i.known.use(l)
		l.value.mixed = l.value.mixed || l.value.platform != platform
		return
	}
	added, victim := i.known.add(h, &learned{client: h.client, platform: platform})
	i.platforms[h.client] = added
	if victim != nil {
		i.known.remove(victim)
		delete(i.platforms, victim.value.client)
	}
}

// await gives the client of a pull time to request what it chooses.
func (i *inference) await(p *pull, until time.Time) {
	i.settle(p)
	p.chooseBy, p.choice = until, i.waiting.PushBack(p)
}

// settle ends that time.
func (i *inference) settle(p *pull) {
	if p.choice != nil {
		i.waiting.Remove(p.choice)
		p.choice = nil
	}
}

// platformPart stands for the child that a pull has not requested.
var platformPart = part{reference: "platform"}

// followChoice notes what a runtime chooses from an index.
func (j *Journal) followChoice(p *pull, r Request) {
	ok := r.Status/100 == 2 && r.Finding == nil
	if p.offer != nil && !r.Head && (r.Kind == oci.KindBlob || r.Kind == oci.KindManifest && r.Ref.Tag == "") {
		platform, child := p.offer.children[r.Ref.Digest]
		if child && ok {
			j.inference.learn(p.share.holder(), platform)
		}
		if child || r.Kind == oci.KindBlob { // the pull goes on, perhaps with content that the client had
			p.offer = nil
			j.inference.settle(p)
			if _, ok := p.failing[platformPart]; ok {
				delete(p.failing, platformPart)
				p.platform = ""
				j.retract(p, diagnose.PlatformMissing)
			}
		}
	}
	if r.Kind == oci.KindManifest && !r.Head && ok && len(r.Index) > 0 && !r.Aborted && isRuntime(r.UserAgent) {
		if x := j.inference.indexOf(r); x != nil {
			if p.offer == nil {
				j.inference.await(p, r.At.Add(r.Took).Add(childWithin))
			}
			p.offer = &offer{x, r.UserAgent}
		}
	}
}

// inferMissing decides about the pulls whose clients have had their time to request a child.
func (j *Journal) inferMissing(ctx context.Context, now time.Time) {
	for p := first(j.inference.waiting); p != nil && !p.chooseBy.After(now); p = first(j.inference.waiting) {
		j.inference.settle(p)
		j.checkPlatform(ctx, p, now)
	}
}

// checkPlatform records that an index lacks the platform of a client, if that is so.
func (j *Journal) checkPlatform(ctx context.Context, p *pull, now time.Time) {
	x := diagnose.UnusedIndex{
		Image: tagged(p.ref), Platforms: p.offer.platforms, Client: p.key.client,
		Platform: j.inference.platform(p.key.client, p.offer.agent), Nodes: *j.nodes.Load(), Waited: childWithin,
	}
	lacks, f, ok := x.Missing()
	if !ok {
		return
	}
	p.platform = strings.Join(lacks, ", ")
	j.infer(ctx, p, f, now, p.offer.agent, platformPart)
}

// infer makes an inferred finding a failure of the pull.
func (j *Journal) infer(ctx context.Context, p *pull, f diagnose.Finding, now time.Time, agent string, of part) {
	f.Upstream, f.Host = p.upstream, p.upstream
	id := f.ID(tagged(p.ref))
	p.setFailing(of, cause{&f, id})
	j.fail(ctx, p, Request{
		At: now, Client: p.key.client, Source: p.share.holder().source, UserAgent: agent, Kind: oci.KindManifest, Ref: p.ref,
		Upstream: p.upstream, Finding: &f, ID: id,
	})
}

// followUnfinished notes a client that leaves in the middle of a blob, or comes back for it.
func (p *pull) followUnfinished(r Request) {
	if r.Kind != oci.KindBlob || r.Head || r.Finding != nil {
		return
	}
	switch {
	// Not a range: lazy pullers request ranges and drop them, and other clients resume with one.
	case r.Aborted && r.Status == 200 && r.Bytes < r.Size && isRuntime(r.UserAgent):
		if p.unfinished == nil {
			p.unfinished = make(map[part]Request)
		}
		if len(p.unfinished) < maxParts {
			p.unfinished[partOf(r)] = r
		}
	case !r.Aborted && r.Status/100 == 2:
		delete(p.unfinished, partOf(r))
	}
}

// inferLeft records that a client has left, and whether because it was too slow, if nothing else has failed.
func (j *Journal) inferLeft(ctx context.Context, p *pull) {
	if len(p.unfinished) == 0 || len(p.failing) > 0 {
		return
	}
	var last Request
	for _, r := range p.unfinished { // the largest tells most
		if last.Size < r.Size || last.Size == r.Size && cmp.Less(last.Ref.Digest, r.Ref.Digest) {
			last = r
		}
	}
	summary := fmt.Sprintf("%s left after %s of %s of a layer of %s, in %s", p.key.client, megabytes(last.Bytes),
		megabytes(last.Size), tagged(p.ref), last.Took.Round(time.Second))
	reason, remedy := diagnose.ClientGone, "nothing, if the pod was removed; else look at the client for why it gave up"
	evidence := []string{"layer " + last.Ref.Digest.String()}
	if rate := float64(last.Bytes) / max(last.Took.Seconds(), 1); last.Took >= slowAfter && rate < slowRate {
		reason = diagnose.TooSlow
		remedy = "find what is slow between the upstream, the mirror and the node; or raise the runtime's timeout " +
			"(containerd: image_pull_progress_timeout)"
		evidence = append(evidence, fmt.Sprintf("%s a second", megabytes(int64(rate))))
		if rate >= 1 {
			evidence = append(evidence, "at that rate the layer takes "+
				(time.Duration(float64(last.Size)/rate)*time.Second).String())
		}
		if limit := progressTimeout(last.UserAgent); limit != "" {
			evidence = append(evidence, limit)
		}
	}
	e := diagnose.New(reason, summary, remedy)
	e.Finding.Evidence = evidence
	j.infer(ctx, p, e.Finding, last.At.Add(last.Took), last.UserAgent, partOf(last))
}

// progressTimeout describes when a runtime ends a pull that makes no progress.
func progressTimeout(agent string) string {
	switch {
	case strings.HasPrefix(agent, "containerd/"):
		return "containerd ends a pull that gets no byte for image_pull_progress_timeout, 5m unless it is set"
	case strings.HasPrefix(agent, "cri-o/"):
		return "CRI-O ends a pull that gets no byte for pull_progress_timeout"
	}
	return ""
}

func megabytes(n int64) string { return fmt.Sprintf("%.1f MB", float64(n)/1e6) }
