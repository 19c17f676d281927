package doctor

import (
	"context"
	"time"

	"github.com/registrymirror/mirror/access"
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
	Own      bool  // clients pull with their own logins, and the mirror has none
	// Cached says what a mirror has of the reference, and of the digests that belong to it. Nil: not known.
	Cached func(ref oci.Ref, image []oci.Digest) *Cache
}

// Image examines an image. It ends when the context does, or after a minute.
func Image(ctx context.Context, o Options) *Report {
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	r := &Report{Image: o.Image, Platform: o.Platform, At: o.At, Began: At(began)}
	x := &examination{Report: r, want: o.Platform, nodes: o.Nodes, machine: "which this machine is"}
	if o.Own {
		x.own = o.Ref.Repo
	}
	if o.At == "mirror" {
		x.machine = "which the mirror's machine is"
	}
	if o.Ref.Name != "" {
		r.Image, r.Upstream = o.Ref.String(), o.Ref.Host
		x.add(Step{Stage: StageParse, State: OK, Detail: r.Image})
	}
	if o.Err != nil {
		x.refused(o.Err)
		r.Took = Duration(time.Since(began))
		return r
	}
	if o.Ruled {
		x.add(Step{Stage: StageAccess, State: OK, Detail: "a rule of the mirror lets clients pull it"})
	}
	reference := o.Ref.Tag
	if o.Ref.Digest != "" {
		reference = o.Ref.Digest.String()
	}
	x.walk(ctx, o.Registry, o.Ref.Name, reference)
	if ctx.Err() != nil && !r.OK && r.Failure == nil {
		r.Failure = failureOf(diagnose.Explain(&fault.Error{
			Op: "manifest", Upstream: o.Ref.Host, Repository: o.Ref.Name, Reference: reference, Err: context.Cause(ctx),
		}))
	}
	if r.OK {
		r.Failure = nil // of another endpoint
	}
	if o.Cached != nil {
		r.Cache = o.Cached(o.Ref, x.parts)
	}
	r.Took = Duration(time.Since(began))
	return r
}

// examination is what is known of an image while it is examined. Its failure is that of the first step that broke.
type examination struct {
	*Report
	want    string // platform that was asked for; may be empty
	nodes   []string
	machine string       // whose platform that of this machine is, in words
	parts   []oci.Digest // of the image: what the reference means, the manifest for the platform, the blobs
	own     oci.Repo     // which clients pull with their own logins; empty: the mirror has one, or needs none
}

// explain is why a step broke. Where clients have logins of their own, a refusal of the mirror says nothing of theirs.
func (x *examination) explain(err error) diagnose.Finding {
	f := diagnose.Explain(err)
	if x.own.Name == "" || f.Reason != diagnose.CredentialsMissing && f.Reason != diagnose.NotFoundOrNoAccess {
		return f
	}
	own := diagnose.Explain(&access.LoginError{Repo: x.own, Background: true})
	own.Evidence, own.Host, own.Stage, own.Status = f.Evidence, f.Host, f.Stage, f.Status
	return own
}

func (x *examination) add(s Step) { x.Steps = append(x.Steps, s) }

// broke says why a step broke, and what to do.
func (x *examination) broke(s *Step, f diagnose.Finding) {
	s.State, s.Reason, s.Detail, s.Remedy = Broken, string(f.Reason), f.Summary, f.Remedy
	if x.Failure == nil {
		x.Failure = failureOf(f)
	}
}

// refused is a name that leads nowhere.
func (x *examination) refused(err error) {
	f := diagnose.Explain(err)
	later := []string{StageRoute, "dns", "dial", "tls", "ping", "manifest", "platform", "blob-registry"}
	switch f.Reason {
	case diagnose.BadRequest, diagnose.NameInvalid:
		f.Stage = StageParse
	case diagnose.ClientForbidden, diagnose.BlockedByPolicy:
		x.add(Step{Stage: StageRoute, State: OK, Detail: f.Upstream})
		f.Stage, later = StageAccess, later[1:]
	default:
		f.Stage, later = StageRoute, later[1:]
	}
	s := Step{Stage: f.Stage}
	x.broke(&s, f)
	x.add(s)
	for _, stage := range later {
		x.add(Step{Stage: stage, State: NotTried})
	}
}
