package upstream

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/registrymirror/mirror/auth"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/upstream/endpoint"
	"github.com/registrymirror/mirror/upstream/fault"
	"github.com/registrymirror/mirror/upstream/header"
	"github.com/registrymirror/mirror/upstream/limit"
)

// Examined is one step of an examination, with what it has shown. Err is why the endpoint gave no more: an *Error, or a
// *PlatformError; no further step of that endpoint follows.
type Examined struct {
	fault.Step
	Requests     int                 // that it took: several for the same at one host are one step
	Certificates []*x509.Certificate // that the host showed, its own first; of StepTLS
	Skew         time.Duration       // by which the host's clock is before ours; of StepClock
	Credential   auth.Status         // of StepCredential
	Budgets      []limit.Budget      // of StepLimit
	Digest       oci.Digest          // of StepManifest: what the reference means. Of StepPlatform: what was chosen
	Platform     string              // of StepPlatform: that was chosen
	Platforms    []string            // of StepPlatform: those that there are
	Blobs        []oci.Digest        // that the image consists of; of StepPlatform
	Notice       error               // what is wrong with an answer that keeps no pull from going on: an *Error
}

// PlatformError says that an image has nothing for a platform.
type PlatformError struct {
	Want string
	Have []string
}

func (e *PlatformError) Error() string {
	return fmt.Sprintf("nothing for %s, but for %s", e.Want, strings.Join(e.Have, ", "))
}

// maxExamined bounds the blobs of an image that are asked for.
const maxExamined = 64

// Examine walks a pull step by step, at each endpoint, with the code that pulls: over connections of its own, with
// nothing remembered, whatever a breaker says, and with the credential of r. A blob costs a byte, the config all of it.
// platform is OS/ARCH[/VARIANT]; empty: the one of this machine, of linux, if there is one, else the first. The context
// ends it.
func (r *Registry) Examine(ctx context.Context, repo, reference, platform string) iter.Seq[Examined] {
	return func(yield func(Examined) bool) {
		seen := &handshakes{m: make(map[string][]*x509.Certificate)}
		o := r.o
		o.handshake = seen.look
		fresh, err := New(o)
		if err != nil {
			yield(Examined{Step: fault.Step{Err: &fault.Error{Op: "examine", Upstream: r.o.Name, Repository: repo, Err: err}}})
			return
		}
		defer fresh.Close()
		if !r.Configured {
			fresh = fresh.As(r.Source)
		}
		for i, ep := range fresh.endpoints {
			ep.Limits = limit.New(r.endpoints[i].Limits.Spending())
			x := &examination{
				r: fresh, ep: ep, repo: repo, reference: reference, want: platform, yield: yield, seen: seen,
			}
			_ = x.ping(ctx) && x.manifest(ctx) && x.platform(ctx) && x.blobs(ctx)
			if x.left || ctx.Err() != nil {
				return
			}
		}
	}
}

// handshakes are the certificates that hosts have shown.
type handshakes struct {
	mu sync.Mutex // guards m; a leaf
	m  map[string][]*x509.Certificate
}

func (h *handshakes) look(host string, s tls.ConnectionState) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(s.PeerCertificates) > 0 {
		h.m[host] = s.PeerCertificates
	}
}

func (h *handshakes) of(host string, err error) []*x509.Certificate {
	if e, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return e.UnverifiedCertificates
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.m[host]
}

// examination is of one endpoint.
type examination struct {
	r               *Registry
	ep              *target
	repo, reference string
	want            string // platform; may be empty
	yield           func(Examined) bool
	left            bool // who listened has heard enough
	seen            *handshakes

	image *oci.Manifest // first what the reference means, then what is for the platform
	index bool          // the first was an index
}

func (x *examination) call(op, reference string) *call {
	c := x.r.call(op, x.repo, reference)
	c.at(x.ep)
	return c
}

func (x *examination) say(e Examined) bool {
	e.Endpoint = x.ep.Name
	if !x.left && !x.yield(e) {
		x.left = true
	}
	return !x.left && e.Err == nil
}

// tell says what a call went through, and what broke it. What it went through several times at one host is told once.
// last adds to the last step.
func (x *examination) tell(c *call, err error, last func(*Examined)) bool {
	rows := rowsOf(c.trace.Steps, err == nil)
	c.trace.Steps = nil
	if len(rows) == 0 && err != nil {
		rows = []Examined{{Step: fault.Step{Name: fault.StepManifest}}}
	}
	for i, e := range rows {
		e.Err = nil
		if i == len(rows)-1 {
			e.Err = err
			if last != nil {
				last(&e)
			}
		}
		if e.Name == fault.StepTLS {
			e.Certificates = x.seen.of(e.Host, err)
		}
		proxy := x.proxyOf(e.Host)
		if proxy != "" && (e.Name == fault.StepDNS || e.Name == fault.StepDial) {
			e.Host = proxy
		}
		if !x.say(e) {
			return false
		}
		ahead := i+1 < len(rows) && rows[i+1].Name == fault.StepProxy
		if proxy != "" && e.Name == fault.StepDial && !ahead && !x.say(Examined{Step: fault.Step{Name: fault.StepProxy, Host: proxy}}) {
			return false
		}
	}
	return err == nil
}

// rowsOf makes one step of those of a kind at one host. Where all went well, refusals on the way to it are left out: that
// of a credential is told of that. Where it did not, the last step is the one that broke.
func rowsOf(steps []fault.Step, well bool) (rows []Examined) {
	for i, s := range steps {
		end, final := steps[len(steps)-1], i == len(steps)-1
		switch {
		case well && s.Name == fault.StepToken && s.Status >= 400:
			continue
		case !well && !final && s.Err != nil && s.Status == 0 && (s.Host == end.Host || end.Name == fault.StepProxy):
			continue // what broke, told before by what it is a part of
		case !well && !final && s.Status >= 400 && !slices.ContainsFunc(steps[i+1:], func(t fault.Step) bool {
			return t.Name == s.Name && t.Host == s.Host
		}):
			continue // a refusal on the way to the one that was meant
		}
		e := Examined{Step: s, Requests: 1}
		at := slices.IndexFunc(rows, func(r Examined) bool { return r.Name == s.Name && r.Host == s.Host })
		if at >= 0 {
			e.Requests += rows[at].Requests
			e.Took += rows[at].Took
		}
		switch {
		case at >= 0 && s.Name == fault.StepBlobRegistry && (well || !final):
			rows[at] = e // before the hosts that it leads to
			continue
		case at >= 0:
			rows = slices.Delete(rows, at, at+1)
		}
		rows = append(rows, e)
	}
	return rows
}

// proxyOf is the proxy through which a host is reached; empty: none.
func (x *examination) proxyOf(host string) string {
	p, err := x.ep.Proxy(&url.URL{Scheme: x.ep.Origin.Scheme, Host: host})
	if err != nil || p == nil {
		return ""
	}
	return p.Host
}

// ping makes a connection, and looks at the registry's clock.
func (x *examination) ping(ctx context.Context) bool {
	c := x.call("manifest", x.reference)
	sent := time.Now()
	a := endpoint.Request{Step: fault.StepPing, Method: http.MethodGet, URL: x.ep.At("/v2/", ""), Reach: endpoint.ReachAny}
	resp, err := c.login.Bare(ctx, x.ep.Registry, a)
	if err != nil {
		return x.tell(c, c.wrap(err), nil)
	}
	between := sent.Add(time.Since(sent) / 2)
	var notice error
	switch {
	case resp.StatusCode >= 500, resp.StatusCode == http.StatusForbidden:
		notice = c.wrap(c.login.Refuse(resp))
	case resp.StatusCode == http.StatusOK && header.IsHTML(resp.Header):
		notice = c.wrap(&fault.Failure{
			Err:  &fault.ContentError{Kind: fault.ContentNotRegistry, Want: "a registry", Got: "a web page"},
			Step: *c.trace.Last(),
		})
	}
	endpoint.Drain(resp.Body)
	if !x.tell(c, nil, func(e *Examined) { e.Notice = notice }) {
		return false
	}
	if at, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
		skew := at.Sub(between).Round(time.Second)
		if skew.Abs() <= 2*time.Second { // what a clock of seconds, and the way, can't tell
			skew = 0
		}
		return x.say(Examined{Step: fault.Step{Name: fault.StepClock, Host: x.ep.Origin.String()}, Skew: skew})
	}
	return true
}

// manifest asks what the reference means, and for that.
func (x *examination) manifest(ctx context.Context) bool {
	c := x.call("manifest", x.reference)
	err := x.get(ctx, c)
	if !x.tell(c, err, func(e *Examined) {
		if err == nil {
			e.Digest = x.image.Digest
		}
	}) {
		return false
	}
	host := x.ep.Origin.String()
	if st := c.login.Status(); st.Name != "" && !x.say(Examined{Step: fault.Step{Name: fault.StepCredential, Host: host}, Credential: st}) {
		return false
	}
	if list := x.ep.Limits.All(); len(list) > 0 {
		return x.say(Examined{Step: fault.Step{Name: fault.StepLimit, Host: host}, Budgets: list})
	}
	return true
}

// get is the manifest as a pull gets it: a tag by HEAD, then what it means.
func (x *examination) get(ctx context.Context, c *call) (err error) {
	if !isDigest(x.reference) {
		c.op = "resolve"
		desc, err := c.resolve(ctx)
		if err != nil {
			return c.inquire(ctx, c.wrap(err))
		}
		c.op, c.reference = "manifest", desc.Digest.String()
	}
	if x.image, err = c.manifest(ctx); err != nil {
		return c.inquire(ctx, c.wrap(err))
	}
	return nil
}

// platform chooses from an index.
func (x *examination) platform(ctx context.Context) bool {
	var have []string
	var chosen oci.Child
	found := ""
	for _, d := range x.image.Children {
		if !d.Manifest {
			continue
		}
		x.index = true
		p := platformText(d)
		if p == "" {
			continue
		}
		have = append(have, p)
		if found == "" && fits(p, cmp.Or(x.want, "linux/"+runtime.GOARCH)) {
			chosen, found = d, p
		}
	}
	host := x.ep.Origin.String()
	step := Examined{Step: fault.Step{Name: fault.StepPlatform, Host: host}, Platform: found, Platforms: have}
	switch {
	case !x.index: // the config says
		return true
	case found == "" && x.want != "", len(have) == 0:
		step.Platform, step.Err = x.want, &PlatformError{Want: cmp.Or(x.want, "any platform"), Have: have}
		return x.say(step)
	case found == "":
		i := slices.IndexFunc(x.image.Children, func(d oci.Child) bool { return platformText(d) != "" })
		chosen, step.Platform = x.image.Children[i], have[0]
	}
	c := x.call("manifest", chosen.Digest.String())
	m, err := c.manifest(ctx)
	if err != nil {
		return x.tell(c, c.wrap(err), nil)
	}
	x.image = m
	for _, s := range c.trace.Steps {
		step.Took += s.Took
	}
	step.Digest, step.Blobs = m.Digest, blobsOf(m)
	return x.say(step)
}

// blobsOf are the blobs of an image, the config first.
func blobsOf(m *oci.Manifest) (list []oci.Digest) {
	for _, d := range m.Children {
		if !d.Manifest && !slices.Contains(list, d.Digest) {
			list = append(list, d.Digest)
		}
	}
	return list
}

// platformText is OS/ARCH[/VARIANT] of an entry of an index; empty for what is none to run, as an attestation.
func platformText(d oci.Child) string {
	p := d.Platform
	if !d.Manifest || p == nil || p.OS == "" || p.OS == "unknown" || p.Architecture == "unknown" {
		return ""
	}
	return oci.PlatformText(*p)
}

// fits reports whether what is for a platform is what is wanted, of any variant where none is wanted. The variant of
// arm64 goes without saying.
func fits(have, want string) bool {
	plain := func(p string) string {
		if strings.HasPrefix(p, "linux/arm64") {
			return strings.TrimSuffix(p, "/v8")
		}
		return p
	}
	have, want = plain(have), plain(want)
	return have == want || strings.Count(want, "/") == 1 && strings.HasPrefix(have, want+"/")
}
