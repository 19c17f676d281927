package plugin

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"github.com/registrymirror/mirror/auth"
	"github.com/registrymirror/mirror/auth/internal/ask"
	"github.com/registrymirror/mirror/auth/internal/run"
	"github.com/registrymirror/mirror/internal/bounded"
)

const (
	// leastHold is the shortest time for which an answer is used, whatever its cacheDuration: the provider of GKE says 0,
	// which would run it for each request.
	leastHold = time.Minute
	// defaultHold is how long an answer without a cacheDuration is used.
	defaultHold = 10 * time.Minute
	// maxHold is the longest time for which an answer is used: a credential may have been replaced.
	maxHold = 12 * time.Hour
	// maxImages is for how many repositories answers for an image alone are remembered.
	maxImages = 256
)

// Options are the program, and the registry that it is asked for.
type Options struct {
	Command string // a name is looked up in PATH
	Args    []string
	Env     map[string]string // on top of our own environment
	Host    string            // the registry, as it stands in image names
	// TokenFile is a mounted service account's token, for programs that log in with it. Empty: none.
	TokenFile string
	// Annotations are those of the service account, for the program ("eks.amazonaws.com/ecr-role-arn").
	Annotations map[string]string
}

// Plugin is the source of a program's logins for the images of one registry. Make it by New. It is safe for concurrent use.
type Plugin struct {
	*program
	repository string // empty: the registry as a whole
}

// program is shared by the Plugins of all repositories.
type program struct {
	o Options
	r auth.Refresh

	whole *auth.Refreshed // for the registry as a whole

	mu     sync.Mutex // guards what follows
	keys   keyType    // of the last answer; empty: there was none
	images *bounded.LRU[string, *auth.Refreshed]
}

// New makes the source. The program is not run yet.
func New(o Options, r auth.Refresh) *Plugin {
	r.Kind, r.For = "plugin", o.Host
	p := &program{o: o, r: r, images: bounded.NewLRU(bounded.Options[string, *auth.Refreshed]{Budget: maxImages})}
	p.whole = p.source("")
	return &Plugin{program: p}
}

// source makes the source of one repository, or of the registry as a whole.
func (p *program) source(repository string) *auth.Refreshed {
	image := p.o.Host
	r := p.r
	if repository != "" {
		image += "/" + repository
		r.For = image
	}
	r.Fetch = func(ctx context.Context) (auth.Grant, error) { return p.fetch(ctx, image) }
	return auth.NewRefreshed(r)
}

func (p *program) fetch(ctx context.Context, image string) (auth.Grant, error) {
	req := request{APIVersion: apiVersion, Kind: requestKind, Image: image, Annotations: p.o.Annotations}
	if p.o.TokenFile != "" {
		token, err := ask.File(p.o.TokenFile)
		if err != nil {
			return auth.Grant{}, fmt.Errorf("service account's token: %w", err)
		}
		req.ServiceAccountToken = token
	}
	input, err := json.Marshal(req)
	if err != nil {
		return auth.Grant{}, err
	}
	out, err := run.Output(ctx, run.Program{
		Path: p.o.Command, Args: p.o.Args, Env: p.o.Env, Secrets: []string{req.ServiceAccountToken},
	}, input)
	if err != nil {
		return auth.Grant{}, err
	}
	answer, err := parse(out, image)
	if err != nil {
		return auth.Grant{}, fmt.Errorf("%s: %w", filepath.Base(p.o.Command), err)
	}
	p.mu.Lock()
	p.keys = answer.keys
	p.mu.Unlock()
	hold := defaultHold
	if answer.hold >= 0 {
		hold = min(max(answer.hold, leastHold), maxHold)
	}
	return auth.Grant{Credential: answer.cred, Hold: hold}, nil
}

// For is the source of one repository: that of the registry, unless the program says that its answers are for an image
// alone.
func (p *Plugin) For(repository string) auth.Source { return &Plugin{p.program, repository} }

// Credential is the login for the registry as a whole, or for the repository of For.
func (p *Plugin) Credential(ctx context.Context) (auth.Credential, error) {
	s, err := p.of(ctx)
	if err != nil {
		return auth.Credential{}, err
	}
	return s.Credential(ctx)
}

// Renew runs the program again.
func (p *Plugin) Renew(ctx context.Context, refused auth.Credential) (auth.Credential, error) {
	s, err := p.of(ctx)
	if err != nil {
		return auth.Credential{}, err
	}
	return s.Renew(ctx, refused)
}

// Status says how the last run went. It does not run the program.
func (p *Plugin) Status() auth.Status {
	if s, ok := p.images.Get(p.repository); ok {
		return s.Status()
	}
	return p.whole.Status()
}

// of is the source that answers. Where it is not known yet for what the program's answers hold, the program is asked about the
// registry first.
func (p *Plugin) of(ctx context.Context) (*auth.Refreshed, error) {
	p.mu.Lock()
	known := p.keys != ""
	p.mu.Unlock()
	if !known && p.repository != "" {
		if _, err := p.whole.Credential(ctx); err != nil {
			return nil, err
		}
	}
	return p.pick(p.repository), nil
}

func (p *program) pick(repository string) *auth.Refreshed {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.keys != keyImage || repository == "" {
		return p.whole
	}
	s, ok := p.images.Get(repository)
	if !ok {
		s = p.source(repository)
		p.images.Put(repository, s, 1)
	}
	return s
}

// Run asks ahead of time about the registry as a whole, until the context ends. What is known of one image alone is
// asked for again when it is used.
func (p *Plugin) Run(ctx context.Context) error { return p.whole.Run(ctx) }
