package warm

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/registrymirror/mirror/diagnose"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/pull"
)

// inspector finds out about images, by the puller and the cache. It has no state.
type inspector struct{ Options }

// platforms are those of the nodes.
func (i inspector) platforms() []string {
	if i.Platforms != nil {
		if list := i.Platforms(); len(list) > 0 {
			return list
		}
	}
	return []string{"linux/" + runtime.GOARCH}
}

// known is the reference of an image with the digest that an earlier attempt has found.
func (m *image) known() oci.Ref {
	ref := m.ref
	if ref.Digest == "" {
		ref.Digest = m.digest
	}
	return ref
}

// options are those with which a puller works for jobs. progress may be nil.
func (i inspector) options(r *Request, progress func(pull.Part, int64)) pull.FetchOptions {
	return pull.FetchOptions{Platforms: r.Platforms, As: "warm", By: r.By, Background: true, Fresh: r.Fresh, Progress: progress}
}

// found is an image whose manifests are here.
type found struct {
	digest    oci.Digest
	platforms []string
	attached  []oci.Digest
	parts     []pull.Part // each once
}

// add adds the parts of an image.
func (f *found) add(m *pull.Image, seen map[oci.Digest]bool) {
	for _, p := range m.Parts {
		if !seen[p.Digest] {
			seen[p.Digest] = true
			f.parts = append(f.parts, p)
		}
	}
}

// manifests fetches the manifests of an image, and of what is attached to it if the request says so.
func (i inspector) manifests(ctx context.Context, ref oci.Ref, r *Request, explicit bool) (*found, error) {
	o := i.options(r, nil)
	m, err := i.Puller.Manifests(ctx, ref, o)
	if err != nil {
		return nil, err
	}
	if config, ok := m.Config(); ok && explicit && len(m.Platforms) == 0 {
		if err := i.Puller.Part(ctx, m.Ref.Repo, config, o); err != nil {
			return nil, err
		}
	}
	if err := i.runnable(m, r.Platforms, explicit); err != nil {
		return nil, err
	}
	f, seen := &found{digest: m.Ref.Digest, platforms: m.Platforms}, make(map[oci.Digest]bool)
	f.add(m, seen)
	if len(r.With) == 0 {
		return f, nil
	}
	attached, err := i.Puller.Attached(ctx, m.Ref, o)
	if err != nil {
		return nil, fmt.Errorf("what is attached to %s: %w", ref, err)
	}
	for _, a := range attached {
		kind := Referrers
		if a.Tag != "" {
			kind = Signatures
		}
		if !slices.Contains(r.With, kind) {
			continue
		}
		m, err := i.Puller.Manifests(ctx, a, o)
		if err != nil {
			return nil, err
		}
		f.attached = append(f.attached, m.Ref.Digest)
		f.add(m, seen)
	}
	return f, nil
}

// runnable is nil for an image with manifests for the platforms: for all of them, or for one if they were not asked for by the
// request. An image without an index is of the platform that its config gives, and must be for one of those that were asked for.
func (i inspector) runnable(m *pull.Image, platforms []string, explicit bool) error {
	texts, all := m.Platforms, explicit
	if built := i.Puller.Built(m); len(texts) == 0 && explicit && built != "" {
		texts, all = []string{built}, false
	}
	if len(texts) == 0 {
		return nil
	}
	have := make([]oci.Platform, len(texts))
	for i, text := range texts {
		have[i] = oci.ParsePlatform(text)
	}
	lacks := oci.Lacking(platforms, have)
	if len(lacks) == 0 || !all && len(lacks) < len(platforms) {
		return nil
	}
	return diagnose.New(diagnose.PlatformMissing,
		fmt.Sprintf("%s has %s, and nothing for %s", m.Ref, strings.Join(texts, ", "), strings.Join(lacks, ", ")),
		"build the image for "+strings.Join(lacks, ", ")+", or ask for the platforms that it has")
}

// survey reads which parts of an image are here.
func (i inspector) survey(m *image) *found {
	f, seen := &found{digest: m.digest, platforms: m.platforms, attached: m.attached}, make(map[oci.Digest]bool)
	for _, d := range append([]oci.Digest{m.digest}, m.attached...) {
		if own, err := i.Puller.Survey(oci.Ref{Repo: m.ref.Repo, Digest: d}, m.job.request.Platforms); err == nil {
			f.add(own, seen)
		}
	}
	return f
}

// used reads which content the images in use have, as far as it is here, with its sizes.
func (i inspector) used(ctx context.Context) map[oci.Digest]int64 {
	sizes := make(map[oci.Digest]int64)
	for _, ref := range i.InUse() {
		if ctx.Err() != nil {
			break
		}
		ref, err := i.meant(ctx, ref)
		if err != nil {
			continue // it was never pulled through this mirror
		}
		m, err := i.Puller.Survey(ref, i.platforms())
		if err != nil {
			continue
		}
		for _, p := range m.Parts {
			if p.Here {
				sizes[p.Digest] = max(p.Size, 0)
			}
		}
	}
	return sizes
}

// plan is one image of a plan; the parts are nil where they are not known.
func (i inspector) plan(ctx context.Context, m *image) (Planned, *found) {
	p := Planned{Image: m.ref.String(), Digest: m.ref.Digest}
	f, err := i.manifests(ctx, m.ref, &m.job.request, m.job.explicit)
	if err == nil {
		p.Digest, p.Platforms = f.digest, f.platforms
		return p, f
	}
	finding := diagnose.Explain(err)
	if p.Waiting = wait(err, finding, time.Now()); p.Waiting != nil {
		p.Requests = 1 + len(m.job.request.Platforms)
	} else {
		p.Failure = newFailure(m.ref, finding)
	}
	return p, nil
}

// costs are what the images of a plan cost at their upstreams.
func (i inspector) costs(j *job, images []Planned) []Cost {
	byHost := make(map[string]int)
	for at, m := range j.images {
		if f := images[at].Failure; f == nil {
			byHost[m.ref.Host] += images[at].Requests
		}
	}
	list := make([]Cost, 0, len(byHost))
	for host, n := range byHost {
		c := Cost{Upstream: host, Requests: n}
		c.Limit, c.Remaining, c.ResetAt, c.Known = i.Puller.Budget(host)
		c.EnoughAt = c.enoughAt(time.Now())
		list = append(list, c)
	}
	slices.SortFunc(list, func(a, b Cost) int { return strings.Compare(a.Upstream, b.Upstream) })
	return list
}

// verify is an image as Verify returns it.
func (i inspector) verify(ctx context.Context, m *image) Image {
	v := Image{Image: m.ref.String(), State: Failed}
	fail := func(err error) Image {
		v.Failure = newFailure(m.ref, diagnose.Explain(err))
		return v
	}
	ref, err := i.meant(ctx, m.ref)
	if err != nil {
		return fail(err)
	}
	found, err := i.Puller.Survey(ref, m.job.request.Platforms)
	if err != nil {
		return fail(err)
	}
	v.Digest, v.Platforms = ref.Digest, found.Platforms
	v.BytesTotal, v.BytesDone = found.Size()
	if missing := found.Missing(); len(missing) > 0 {
		return fail(notCached(m.ref, "%d of the %d known parts of %s are not in the cache", len(missing), len(found.Parts), ref))
	}
	if err := i.runnable(found, m.job.request.Platforms, m.job.explicit); err != nil {
		return fail(err)
	}
	v.State, v.Complete, v.BytesCached = Done, true, v.BytesDone
	return v
}

// meant is a reference with the digest that a pull of it gets, by the record of its tag. No registry is asked.
func (i inspector) meant(ctx context.Context, ref oci.Ref) (oci.Ref, error) {
	if ref.Digest != "" {
		return ref, nil
	}
	tag, err := i.Puller.Known(ctx, ref)
	if err != nil {
		return ref, notCached(ref, "the mirror does not know which digest %s has: it was never pulled", ref)
	}
	ref.Digest = i.Puller.Choice(tag).Digest
	return ref, nil
}

func notCached(ref oci.Ref, format string, args ...any) error {
	return diagnose.New(diagnose.NotCached, fmt.Sprintf(format, args...), "bring it: mirror warm "+ref.String())
}

func newFailure(ref oci.Ref, f diagnose.Finding) *Failure {
	return &Failure{ID: f.ID(ref.String()), Reason: f.Reason, Class: f.Class, Summary: f.Summary, Remedy: f.Remedy}
}
