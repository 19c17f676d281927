package doctor

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/registrymirror/mirror/diagnose"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/upstream"
	"github.com/registrymirror/mirror/upstream/fault"
)

// The steps of examinations, beside those of a pull.
const (
	stepClock      fault.StepName = "clock"      // ours against that of the registry
	stepCredential fault.StepName = "credential" // ours, as the registry takes it
	stepLimit      fault.StepName = "limit"      // of requests, and what is left of it
	stepPlatform   fault.StepName = "platform"   // which part of an image is for which platform
)

// maxBlobs bounds the blobs of an image that are asked for.
const maxBlobs = 64

// walk walks a pull step by step, at each endpoint. A blob costs a byte, the config all of it. Without a platform that was
// asked for it is that of this machine, of linux, if there is one, else the first of the image. The context ends it.
func (x *examination) walk(ctx context.Context, r *upstream.Registry, repository, reference string) {
	var seen sync.Map
	endpoints, end, err := r.Inspect(func(host string, s tls.ConnectionState) { seen.Store(host, s.PeerCertificates) })
	if err != nil {
		var s Step
		x.broke(&s, diagnose.Explain(err))
		x.add(s)
		return
	}
	defer end()
	for _, ep := range endpoints {
		w := &walker{examination: x, ep: ep, repository: repository, reference: reference, seen: &seen}
		_ = w.ping(ctx) && w.manifest(ctx) && w.platform(ctx) && w.blobs(ctx)
		w.done()
		if ctx.Err() != nil {
			return
		}
	}
}

// walker examines one endpoint.
type walker struct {
	*examination
	ep                    *upstream.Inspected
	repository, reference string
	seen                  *sync.Map // the certificates that a host has shown, its own first

	image  *oci.Manifest // first what the reference means, then the manifest for the platform
	index  bool          // the first was an index
	broken fault.StepName
	whole  bool // a blob was reached, or there is none: nothing came after it that broke
}

// say adds a step. err is why the endpoint gave no more. False: it is the last step of the endpoint.
func (w *walker) say(name fault.StepName, s Step, err error) bool {
	s.Stage, s.Endpoint, s.State = string(name), w.ep.Name(), cmp.Or(s.State, OK)
	switch {
	case err != nil:
		w.broken = name
		w.broke(&s, w.explain(err))
	case name == fault.StepManifest && s.Status == 401: // on the way to a token that did not come
		s.Stage, s.Detail = StageChallenge, "the registry wants a login or a token for it"
		w.add(s)
		return true
	}
	// An image without blobs of its own, as an artifact, is whole with its manifest.
	w.whole = w.whole || name == fault.StepManifest || name == fault.StepBlobRegistry
	w.add(s)
	return err == nil
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

// done ends the steps of the endpoint with those that were not tried.
func (w *walker) done() {
	if w.broken == "" {
		w.OK = w.OK || w.whole
		return
	}
	for _, later := range stages[slices.Index(stages, cmp.Or(among[w.broken], w.broken))+1:] {
		// Connections are made to several hosts, also late.
		had := slices.ContainsFunc(w.Steps, func(s Step) bool { return s.Endpoint == w.ep.Name() && s.Stage == string(later) })
		if !had && (later != fault.StepTLS || strings.HasPrefix(w.ep.Name(), "https://")) {
			w.add(Step{Stage: string(later), State: NotTried, Endpoint: w.ep.Name()})
		}
	}
}

// tell says what an attempt went through, and what broke it. Several steps of a kind at one host are one. last adds to the
// last step.
func (w *walker) tell(a *upstream.Attempt, err error, last func(*Step)) bool {
	rows := rowsOf(a.Take(), err == nil)
	if len(rows) == 0 && err != nil {
		rows = []row{{Step: fault.Step{Name: fault.StepManifest}}}
	}
	for i, r := range rows {
		s := Step{Host: r.Host, Addr: r.Addr, Status: r.Status, Took: Duration(r.Took)}
		if r.requests > 1 {
			s.Requests = r.requests
		}
		proxy := w.ep.Proxy(r.Host)
		switch r.Name {
		case fault.StepDNS, fault.StepDial:
			s.Host = cmp.Or(proxy, r.Host)
		case fault.StepTLS:
			s.tls(w.shown(r.Host, err), time.Now())
		case fault.StepProxy:
			s.Detail = throughProxy
		case fault.StepPing:
			if s.Detail = "it is a registry"; r.Status == 401 {
				s.Detail = "it is a registry that asks for a login or a token"
			}
		case fault.StepBlobRegistry:
			s.Detail = count(r.requests, "config and layers") // of which it redirects some
		case fault.StepBlobHost:
			s.Detail = "the registry keeps blobs here"
		}
		var why error
		if i == len(rows)-1 {
			why = err
			if last != nil {
				last(&s)
			}
		}
		if !w.say(r.Name, s, why) {
			return false
		}
		if r.Name == fault.StepDial && proxy != "" && (i+1 == len(rows) || rows[i+1].Name != fault.StepProxy) {
			w.say(fault.StepProxy, Step{Host: proxy, Detail: throughProxy}, nil)
		}
	}
	return err == nil
}

const throughProxy = "the connection goes through a proxy"

// shown are the certificates that a host has shown last.
func (w *walker) shown(host string, err error) (list []*x509.Certificate) {
	if e, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return e.UnverifiedCertificates
	}
	if v, ok := w.seen.Load(host); ok {
		list = v.([]*x509.Certificate)
	}
	return list
}

// row is a step of a pull, of several of a kind at one host.
type row struct {
	fault.Step
	requests int // that it took
}

// rowsOf makes one step of those of a kind at one host. Where all went well, refusals on the way to it are left out: the
// step of the credential says that. Where it did not, the last step is the one that broke.
func rowsOf(steps []fault.Step, well bool) (rows []row) {
	for i, s := range steps {
		end, final := steps[len(steps)-1], i == len(steps)-1
		switch {
		case well && s.Name == fault.StepToken && s.Status >= 400:
			continue
		case !well && !final && s.Err != nil && s.Status == 0 && (s.Host == end.Host || end.Name == fault.StepProxy):
			continue // a part of the step that broke
		case !well && !final && s.Status >= 400 && !slices.ContainsFunc(steps[i+1:], func(t fault.Step) bool {
			return t.Name == s.Name && t.Host == s.Host
		}):
			continue // a refusal on the way to the one that counts
		}
		e := row{Step: s, requests: 1}
		at := slices.IndexFunc(rows, func(r row) bool { return r.Name == s.Name && r.Host == s.Host })
		if at >= 0 {
			e.requests += rows[at].requests
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

// ping makes a connection, and looks at the registry's clock.
func (w *walker) ping(ctx context.Context) bool {
	a := w.ep.Attempt("manifest", w.repository, w.reference)
	sent := time.Now()
	h, notice, err := a.Ping(ctx)
	between := sent.Add(time.Since(sent) / 2)
	if !w.tell(a, err, func(s *Step) {
		if notice != nil { // what is wrong with the answer, and keeps no pull from going on
			f := diagnose.Explain(notice)
			s.warn(f.Reason, f.Remedy, "%s", f.Summary)
		}
	}) {
		return false
	}
	if at, err := http.ParseTime(h.Get("Date")); err == nil {
		skew := at.Sub(between).Round(time.Second)
		if skew.Abs() <= 2*time.Second { // less than a header in seconds, and the time on the way, can show
			skew = 0
		}
		s := Step{Host: w.ep.Host()}
		s.clock(skew)
		w.say(stepClock, s, nil)
	}
	return true
}

// manifest asks what the reference means, and for that.
func (w *walker) manifest(ctx context.Context) (ok bool) {
	a := w.ep.Attempt("manifest", w.repository, w.reference)
	var err error
	w.image, err = a.Manifest(ctx)
	if !w.tell(a, err, func(s *Step) {
		if err == nil {
			s.Detail = w.image.Digest.String()
			w.Digest, w.parts = s.Detail, []oci.Digest{w.image.Digest}
		}
	}) {
		return false
	}
	s := Step{Host: w.ep.Host()}
	if c := a.Credential(); c.Name != "" {
		s.credential(c)
		w.say(stepCredential, s, nil)
	}
	if list := w.ep.Budgets(); len(list) > 0 {
		s := Step{Host: w.ep.Host()}
		s.limits(list)
		w.say(stepLimit, s, nil)
	}
	return true
}

// platform chooses from an index.
func (w *walker) platform(ctx context.Context) bool {
	var have []string
	var chosen oci.Child
	found := ""
	for _, d := range w.image.Children {
		if !d.Manifest {
			continue
		}
		w.index = true
		p := platformText(d)
		if p == "" {
			continue
		}
		have = append(have, p)
		if found == "" && fits(p, cmp.Or(w.want, "linux/"+runtime.GOARCH)) {
			chosen, found = d, p
		}
	}
	switch {
	case !w.index: // the config says
		return true
	case found == "" && w.want != "", len(have) == 0:
		return w.nothingFor(cmp.Or(w.want, "any platform"), have)
	case found == "":
		i := slices.IndexFunc(w.image.Children, func(d oci.Child) bool { return platformText(d) != "" })
		chosen, found = w.image.Children[i], have[0]
	}
	a := w.ep.Attempt("manifest", w.repository, chosen.Digest.String())
	m, err := a.Manifest(ctx)
	if err != nil {
		return w.tell(a, err, nil)
	}
	w.image = m
	var took time.Duration
	for _, s := range a.Take() {
		took += s.Took
	}
	return w.chosen(found, have, took)
}

// blobs reads the config and asks for one byte of each further blob, once at each host that a redirect leads to. The size that an
// answer says must be the one in the manifest.
func (w *walker) blobs(ctx context.Context) bool {
	a := w.ep.Attempt("blob", w.repository, "")
	hosts := make(map[string]bool)
	for i, d := range w.image.Children {
		switch {
		case d.Manifest || len(d.URLs) > 0:
			continue // what is kept elsewhere the registry need not have
		case i == maxBlobs:
			return w.tell(a, nil, nil)
		}
		var err error
		lacks := ""
		if i == 0 && isConfig(d) {
			lacks, err = w.config(ctx, a, d)
		} else {
			err = a.Peek(ctx, d.Descriptor, func(host string) bool { return hosts[host] })
		}
		for _, s := range a.Steps() {
			if s.Name == fault.StepBlobHost {
				hosts[s.Host] = true
			}
		}
		if lacks != "" {
			return w.tell(a, nil, nil) && w.nothingFor(w.want, []string{lacks})
		}
		if err != nil {
			return w.tell(a, err, nil)
		}
	}
	return w.tell(a, nil, nil)
}

// config reads the config of an image. Where no index has said so, that says which platform the image is for. It returns that if
// it is not the one that was asked for.
func (w *walker) config(ctx context.Context, a *upstream.Attempt, d oci.Child) (other string, err error) {
	b, err := a.Config(ctx, d.Descriptor)
	if err != nil {
		return "", err
	}
	var conf struct{ OS, Architecture, Variant string }
	if w.index || json.Unmarshal(b, &conf) != nil || conf.OS == "" {
		return "", nil
	}
	have := strings.TrimSuffix(conf.OS+"/"+conf.Architecture+"/"+conf.Variant, "/")
	if w.want != "" && !fits(have, w.want) {
		return have, nil
	}
	w.chosen(have, []string{have}, 0)
	return "", nil
}

func isConfig(d oci.Child) bool {
	return d.MediaType == "application/vnd.oci.image.config.v1+json" ||
		d.MediaType == "application/vnd.docker.container.image.v1+json"
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

// platformText is OS/ARCH[/VARIANT] of an entry of an index; empty for one that does not run, as an attestation.
func platformText(d oci.Child) string {
	p := d.Platform
	if !d.Manifest || p == nil || p.OS == "" || p.OS == "unknown" || p.Architecture == "unknown" {
		return ""
	}
	return oci.PlatformText(*p)
}

// fits reports whether a platform is the wanted one, of any variant where none is wanted. The variant of arm64 goes without
// saying.
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
