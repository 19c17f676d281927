package journal

import (
	"cmp"
	"container/list"
	"context"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/registrymirror/mirror/diagnose"
	"github.com/registrymirror/mirror/oci"
)

// Some failures are nowhere an error: the image lacks the node's platform, and the client asks no further; the client
// leaves; it leaves since it got too little in too long a time. They are concluded from what did not happen, for
// runtimes alone: others look at an index, or at the start of a layer, and have all they want.

const (
	// childWithin is how long after an index a runtime asks for the manifest in it: at once, by all that is known.
	childWithin = 10 * time.Second
	maxIndexes  = 512
	maxLearned  = 10_000 // clients of which a platform is known

	// A client that leaves after so long, and got less than that in a second, left since it was too slow.
	slowAfter = time.Minute
	slowRate  = 1 << 20
)

// isRuntime reports whether who calls itself so pulls images in order to run them.
func isRuntime(agent string) bool {
	for _, name := range [...]string{"containerd/", "docker/", "buildkit/", "cri-o/", "containers/", "libpod/", "podman/"} {
		if strings.HasPrefix(agent, name) {
			return true
		}
	}
	return false
}

// index is what a pull may choose from.
type index struct {
	there    []oci.Platform
	children map[oci.Digest]string
}

// indexOf reads an index, or remembers it; nil where it names no platforms.
func (j *Journal) indexOf(r Request) *index {
	if x, ok := j.indexes[r.Ref.Digest]; ok {
		return x
	}
	if len(j.indexes) >= maxIndexes {
		clear(j.indexes)
	}
	var x *index
	if m, err := oci.ParseManifest("", r.Index); err == nil {
		x = &index{children: make(map[oci.Digest]string)}
		for _, c := range m.Children {
			p := c.Platform
			if p == nil || p.OS == "" || p.Architecture == "" || p.OS == "unknown" || p.Architecture == "unknown" {
				continue
			}
			x.there = append(x.there, *p)
			x.children[c.Digest] = p.OS + "/" + p.Architecture
		}
		if len(x.there) == 0 {
			x = nil
		}
	}
	j.indexes[r.Ref.Digest] = x
	return x
}

var agentPlatform = regexp.MustCompile(`\bos/(\w+) arch/(\w+)`)

// platform is what the client is as far as that is known: Docker says so, and of others it is what they have chosen
// from other indexes. Empty where it is not known, or more than one: a cluster behind one address.
func (j *Journal) platform(client, agent string) string {
	if m := agentPlatform.FindStringSubmatch(agent); m != nil {
		return m[1] + "/" + m[2]
	}
	if l := j.learned[client]; l != nil {
		return l.value.platform
	}
	return ""
}

const several = "-" // the platform of a client that has chosen more than one

// learnt is what a client is.
type learnt struct{ client, platform string }

func (j *Journal) learn(h holder, platform string) {
	if l := j.learned[h.client]; l != nil {
		if j.learnt.use(l); l.value.platform != platform {
			l.value.platform = several
		}
		return
	}
	added, victim := j.learnt.add(h, &learnt{h.client, platform})
	j.learned[h.client] = added
	if victim != nil {
		j.learnt.remove(victim)
		delete(j.learned, victim.value.client)
	}
}

// platformPart stands for the child that a pull has not asked for.
var platformPart = part{reference: "platform"}

// choice follows what a runtime chooses from an index.
func (j *Journal) choice(p *opened, r Request) {
	ok := r.Status/100 == 2 && r.Finding == nil
	if p.index != nil && !r.Head && (r.Kind == oci.KindBlob || r.Kind == oci.KindManifest && r.Ref.Tag == "") {
		platform, child := p.index.children[r.Ref.Digest]
		if child && ok {
			j.learn(p.share.holder(), platform)
		}
		if child || r.Kind == oci.KindBlob { // it goes on: with what it has, perhaps
			p.index = nil
			if _, ok := p.failing[platformPart]; ok {
				delete(p.failing, platformPart)
				p.wants = ""
				j.recovered(p, diagnose.PlatformMissing)
			}
		}
	}
	if r.Kind == oci.KindManifest && !r.Head && ok && len(r.Index) > 0 && !r.Aborted && isRuntime(r.UserAgent) {
		if x := j.indexOf(r); x != nil {
			if p.index == nil {
				j.doubt(p, r.At.Add(r.Took).Add(childWithin))
			}
			p.index, p.agent = x, r.UserAgent
		}
	}
}

// doubt is a pull that got an index and has not yet asked for more.
type doubt struct {
	p     *opened
	at    time.Time // when it is settled
	share *share[*list.Element]
}

// doubt waits for what a pull asks for next.
func (j *Journal) doubt(p *opened, at time.Time) {
	d := &doubt{p: p, at: at}
	added, victim := j.doubted.add(p.share.holder(), j.doubts.PushBack(d))
	d.share = added
	if victim != nil {
		j.settled(victim.value)
	}
}

func (j *Journal) settled(e *list.Element) {
	j.doubted.remove(j.doubts.Remove(e).(*doubt).share)
}

// settle decides on the pulls that have had their time to ask for a child, and returns how long the next one has; ok is
// false where there is none.
func (j *Journal) settle(ctx context.Context, now time.Time) (next time.Duration, ok bool) {
	for e := j.doubts.Front(); e != nil; e = j.doubts.Front() {
		d := e.Value.(*doubt)
		if d.at.After(now) {
			return max(d.at.Sub(now), time.Millisecond), true
		}
		if j.settled(e); d.p.index != nil && !d.p.closed {
			j.missing(ctx, d.p, now)
		}
	}
	return 0, false
}

// missing says that an index lacks the platform of a client, if that is so.
func (j *Journal) missing(ctx context.Context, p *opened, now time.Time) {
	x := diagnose.UnusedIndex{
		Image: tagged(p.ref), Platforms: p.index.there, Client: p.key.client, Platform: j.platform(p.key.client, p.agent),
		Nodes: *j.nodes.Load(), Waited: childWithin,
	}
	if x.Platform == several {
		x.Platform = ""
	}
	lacks, f, ok := x.Missing()
	if !ok {
		return
	}
	p.wants = strings.Join(lacks, ", ")
	j.conclude(ctx, p, f, now, p.agent, platformPart)
}

// conclude makes a conclusion a failure of the pull.
func (j *Journal) conclude(ctx context.Context, p *opened, f diagnose.Finding, now time.Time, agent string, of part) {
	f.Upstream, f.Host = p.at, p.at
	id := f.ID(tagged(p.ref))
	if p.failing == nil {
		p.failing = make(map[part]failure)
	}
	p.failing[of] = failure{&f, id}
	j.tell(ctx, p, Request{
		At: now, Client: p.key.client, Source: p.share.holder().source, UserAgent: agent, Kind: oci.KindManifest, Ref: p.ref,
		Upstream: p.at, Finding: &f, ID: id,
	})
}

// leaving follows who leaves in the middle of a blob, and comes back for it.
func (p *opened) leaving(r Request) {
	if r.Kind != oci.KindBlob || r.Head || r.Finding != nil {
		return
	}
	switch {
	// A range is what lazy pullers ask for and drop, and what others come back with.
	case r.Aborted && r.Status == 200 && r.Bytes < r.Size && isRuntime(r.UserAgent):
		if p.left == nil {
			p.left = make(map[part]Request)
		}
		if len(p.left) < maxUnsure {
			p.left[partOf(r)] = r
		}
	case !r.Aborted && r.Status/100 == 2:
		delete(p.left, partOf(r))
	}
}

// gone says that a client has left, and whether since it was too slow, if nothing else has failed.
func (j *Journal) gone(ctx context.Context, p *opened) {
	if len(p.left) == 0 || len(p.failing) > 0 {
		return
	}
	var last Request
	for _, r := range p.left { // the largest tells most
		if last.Size < r.Size || last.Size == r.Size && cmp.Less(last.Ref.Digest, r.Ref.Digest) {
			last = r
		}
	}
	what := fmt.Sprintf("%s left after %s of %s of a layer of %s, in %s", p.key.client, megabytes(last.Bytes),
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
	e := diagnose.New(reason, what, remedy)
	e.Finding.Evidence = evidence
	j.conclude(ctx, p, e.Finding, last.At.Add(last.Took), last.UserAgent, partOf(last))
}

// progressTimeout is what a runtime does about a pull that does not get on.
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
