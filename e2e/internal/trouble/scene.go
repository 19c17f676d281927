// Package trouble has the ways in which a pull fails, one or more for each reason that the mirror gives, as places that any
// client can pull from.
//
// The end-to-end tests pull from all of them with every client, and the tour shows some: both say what a person sees.
// As root on Linux: the mirror gets a DNS server of its own.
package trouble

import (
	"context"
	"fmt"
	"hash/fnv"
	"strings"

	"github.com/registrymirror/mirror/internal/origin"
)

// Scene is one way in which a pull fails.
type Scene struct {
	Reason string
	Name   string // of the upstream, without ".example"; unique
	What   string // where there are several of a reason, what is special here
	Slow   bool   // it takes more than a few seconds
	set    func(*World, *Place) error
}

// Title names it.
func (s Scene) Title() string {
	if s.What == "" {
		return s.Reason
	}
	return s.Reason + ", " + s.What
}

// Place is where a scene plays.
type Place struct {
	Scene
	Host     string         // of the image's name
	Image    string         // the rest of it
	Upstream string         // what the mirror is told of it, YAML; empty: nothing
	Allowed  string         // a rule for its repositories, for access: rules
	Node     string         // URL where clients go on by themselves; empty: nowhere
	Direct   string         // URL of the registry itself; empty: there is none
	Registry *origin.Origin // that registry
	// Says are words that cause and remedy must have: the host, the credential, the issuer.
	Says []string
	// Late says that the answer had begun when it went wrong, so no client can show why.
	Late bool
	// Unsaid says that the mirror concludes it from what did not happen, so no client hears of it.
	Unsaid bool
	// First pulls something, so that the mirror knows the client. Empty: nothing.
	First string
	// Busy keeps the place busy until the context ends, and returns when it is; nil: nothing.
	Busy func(ctx context.Context, mirror string) error

	addresses bool // instead of names
}

// Ref is the image's whole name.
func (p *Place) Ref() string { return p.Host + "/" + p.Image }

// Set prepares a scene.
func (w *World) Set(s Scene) (*Place, error) {
	p := &Place{Scene: s, Host: s.Name + ".example", Image: "acme/app:v1", addresses: w.dns == nil}
	if err := s.set(w, p); err != nil {
		return nil, fmt.Errorf("%s: %w", s.Title(), err)
	}
	return p, nil
}

// at gives a place an endpoint of its own name.
func (p *Place) at(scheme string, port any, more ...string) {
	host := p.Host
	if p.addresses {
		host = "127.0.0.1"
	}
	p.Upstream = fmt.Sprintf("endpoints: [%s]", strings.Join(append([]string{
		fmt.Sprintf("{url: %s://%s:%v", scheme, host, port),
	}, more...), ", ")+"}")
}

// registry runs a scripted one with the image, which the place leads to. Rules, the last first, say what goes wrong.
func (p *Place) registry(w *World, o origin.Options, rules ...origin.Rule) (*origin.Origin, error) {
	o.Certificate.Names = append(o.Certificate.Names, p.Host)
	g, err := w.origin(o)
	if err != nil {
		return nil, err
	}
	g.AddImage("acme/app", "v1", origin.Image{Seed: p.seed()})
	for _, r := range rules {
		g.Script(r)
	}
	p.Node, p.Direct, p.Registry = g.URL(), g.URL(), g
	p.at("http", portOf(g.Host()))
	if o.Auth.Kind == "bearer" && o.Auth.Realm == "" {
		p.Upstream += ", authHosts: [127.0.0.1]"
	}
	if o.TLS {
		ca, err := w.file(p.Name+"-ca.crt", g.CAPEM(), 0o600)
		if err != nil {
			return nil, err
		}
		p.Node = ""
		p.at("https", portOf(g.Host()), fmt.Sprintf("ca: %q", ca))
	}
	return g, nil
}

// seed makes the images of a place its own: what a client has of another one it does not pull again.
func (p *Place) seed() int64 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(p.Name))
	return int64(h.Sum32())
}

func portOf(host string) string { return host[strings.LastIndexByte(host, ':')+1:] }

// login gives the mirror a credential for the place.
func (p *Place) login(w *World, name, user, password string) error {
	file, err := w.file(p.Name+".pass", []byte(password), 0o600)
	p.credential(fmt.Sprintf("name: %s, username: %s, passwordFile: %q", name, user, file))
	return err
}

func (p *Place) credential(c string) {
	p.Upstream += ", access: rules, credentials: [{" + c + "}]"
	p.Allowed = "**"
}
