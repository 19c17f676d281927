package doctor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/registrymirror/mirror/diagnose"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/upstream"
	"github.com/registrymirror/mirror/upstream/fault"
)

const (
	// patience is how long an examination takes at most: ten seconds to connect and twenty-five for an answer, at two
	// endpoints, are less.
	patience = time.Minute
	// soon is how long a certificate should still be good, or a tenth of its life where that is less: one that lives for
	// days is renewed on its last day.
	soon = 14 * 24 * time.Hour
	// skewed is how wrong a clock may be. Signed addresses of object stores are valid for minutes.
	skewed = time.Minute
)

// Options say what is examined. Exactly one of Registry and Err is set.
type Options struct {
	Image    string  // as the operator wrote it
	Ref      oci.Ref // the same, canonical
	Platform string  // OS/ARCH[/VARIANT]; empty: that of this machine, else the first of the image
	// Nodes are the platforms of the nodes. Without a Platform, there is a warning about an image that has nothing for one of
	// them.
	Nodes    []string
	At       string // where the examination runs: see Report
	Registry *upstream.Registry
	Err      error // why there is no Registry: the name is wrong, leads to no upstream, or is not for clients
	Ruled    bool  // a rule of the mirror lets clients pull it
	// Cached says what a mirror has of the reference, and of the digests that belong to it. Nil: not known.
	Cached func(ref oci.Ref, image []oci.Digest) *Cache
}

// Image examines an image. It ends when the context does, or after a minute.
func Image(ctx context.Context, o Options) *Report {
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if o.Platform != "" {
		o.Nodes = nil
	}
	b := &builder{nodes: o.Nodes, any: o.Platform == "", machine: "which this machine is", report: &Report{Image: o.Image, Platform: o.Platform, At: o.At, Began: At(began)}}
	if o.At == "mirror" {
		b.machine = "which the mirror's machine is"
	}
	r := b.report
	if o.Ref.Name != "" {
		r.Image, r.Upstream = o.Ref.String(), o.Ref.Host
		b.add(Step{Stage: StageParse, State: OK, Detail: r.Image})
	}
	if o.Err != nil {
		b.refused(o.Err)
		r.Took = Duration(time.Since(began))
		return r
	}
	if o.Ruled {
		b.add(Step{Stage: StageAccess, State: OK, Detail: "a rule of the mirror lets clients pull it"})
	}
	reference := o.Ref.Tag
	if o.Ref.Digest != "" {
		reference = o.Ref.Digest.String()
	}
	for e := range walk(ctx, o.Registry, o.Ref.Name, reference, o.Platform) {
		b.examined(e)
	}
	b.endpointDone()
	if ctx.Err() != nil && !r.OK && b.first == nil {
		f := diagnose.Explain(&fault.Error{
			Op: "manifest", Upstream: o.Ref.Host, Repository: o.Ref.Name, Reference: reference, Err: context.Cause(ctx),
		})
		b.first = &f
	}
	if !r.OK {
		r.Failure = b.first
	}
	if o.Cached != nil {
		r.Cache = o.Cached(o.Ref, b.blobs)
	}
	r.Took = Duration(time.Since(began))
	return r
}

// builder makes a report of what is examined.
type builder struct {
	report   *Report
	nodes    []string
	any      bool   // no platform was asked for
	machine  string // whose platform that of this machine is, in words
	endpoint string // whose steps come now
	broken   string // the stage of it that broke
	whole    bool   // a blob of it was reached: nothing came after it that broke
	blobs    []oci.Digest
	first    *Failure
}

func (b *builder) add(s Step) { b.report.Steps = append(b.report.Steps, s) }

// refused is a name that leads nowhere.
func (b *builder) refused(err error) {
	f := diagnose.Explain(err)
	stage := StageRoute
	if f.Reason == diagnose.BadRequest || f.Reason == diagnose.NameInvalid {
		stage = StageParse
	}
	if f.Reason == diagnose.ClientForbidden {
		stage = StageAccess
		b.add(Step{Stage: StageRoute, State: OK, Detail: f.Upstream})
	}
	f.Stage = stage
	b.report.Failure = &f
	b.add(Step{Stage: stage, State: Broken, Detail: f.Summary, Reason: string(f.Reason), Remedy: f.Remedy})
	for _, later := range []string{StageRoute, "dns", "dial", "tls", "ping", "manifest", "platform", "blob-registry"} {
		if later == StageRoute && stage != StageParse {
			continue
		}
		b.add(Step{Stage: later, State: NotTried})
	}
}

// stages are those that every pull goes through, in order, and where the others stand.
var (
	stages = []fault.StepName{
		fault.StepDNS, fault.StepDial, fault.StepTLS, fault.StepPing, fault.StepManifest,
		stepPlatform, fault.StepBlobRegistry,
	}
	among = map[fault.StepName]fault.StepName{
		fault.StepProxy: fault.StepDial, fault.StepToken: fault.StepPing, fault.StepBody: fault.StepManifest,
		fault.StepBlobHost: fault.StepBlobRegistry,
	}
)

// endpointDone ends the steps of an endpoint with those that were not tried.
func (b *builder) endpointDone() {
	if b.endpoint == "" {
		return
	}
	if b.broken == "" {
		b.report.OK = b.report.OK || b.whole
	} else {
		stage := fault.StepName(b.broken)
		if before, ok := among[stage]; ok {
			stage = before
		}
		for _, later := range stages[slices.Index(stages, stage)+1:] {
			if later == fault.StepTLS && !strings.HasPrefix(b.endpoint, "https://") || b.had(later) {
				continue
			}
			b.add(Step{Stage: string(later), State: NotTried, Endpoint: b.endpoint})
		}
	}
	b.endpoint, b.broken, b.whole = "", "", false
}

// had reports whether the endpoint has shown a stage: connections are made to several hosts, also late.
func (b *builder) had(stage fault.StepName) bool {
	return slices.ContainsFunc(b.report.Steps, func(s Step) bool {
		return s.Endpoint == b.endpoint && s.Stage == string(stage)
	})
}

// examined takes in one step.
func (b *builder) examined(e examined) {
	if e.Endpoint != b.endpoint {
		b.endpointDone()
		b.endpoint = e.Endpoint
	}
	s := Step{
		Stage: string(e.Name), State: OK, Endpoint: e.Endpoint, Host: e.Host, Addr: e.Addr, Status: e.Status,
		Took: Duration(e.Took),
	}
	if e.requests > 1 {
		s.Requests = e.requests
	}
	b.shown(&s, e)
	if e.Err != nil {
		b.broke(&s, e)
	}
	if e.Name == fault.StepManifest && e.Err == nil && e.Status == 401 { // on the way to a token that did not come
		s.Stage, s.Detail = StageChallenge, "the registry wants a login or a token for it"
		b.add(s)
		return
	}
	// An image without blobs of its own, as an artifact, is whole with its manifest.
	b.whole = b.whole || e.Name == fault.StepManifest || e.Name == fault.StepBlobRegistry
	b.add(s)
}

// broke says why, and what to do.
func (b *builder) broke(s *Step, e examined) {
	var f diagnose.Finding
	if p, ok := errors.AsType[*platformError](e.Err); ok {
		have := some(clean(p.have))
		if have == "" {
			have = "nothing that runs"
		}
		d := diagnose.New(diagnose.PlatformMissing, fmt.Sprintf("%s has %s, and nothing for %s", b.report.Image, have, p.want),
			"build the image for "+p.want+", or run it on a node of another platform")
		f = d.Finding
		f.Evidence = []string{diagnose.Clean("platforms of the image: " + have)}
		f.Upstream, f.Host, f.Stage = b.report.Upstream, e.Host, s.Stage
	} else {
		f = diagnose.Explain(e.Err)
	}
	s.State, s.Reason, s.Detail, s.Remedy = Broken, string(f.Reason), f.Summary, f.Remedy
	b.broken = s.Stage
	if b.first == nil {
		b.first = &f
	}
}
