package doctor

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/upstream"
	"github.com/registrymirror/mirror/upstream/fault"
	"github.com/registrymirror/mirror/upstream/limit"
)

// The steps of examinations, beside those of a pull.
const (
	stepClock      fault.StepName = "clock"      // ours against that of the registry
	stepCredential fault.StepName = "credential" // ours, as the registry takes it
	stepLimit      fault.StepName = "limit"      // of requests, and what is left of it
	stepPlatform   fault.StepName = "platform"   // which part of an image is for which platform
)

// examined is one step of an examination, with what it has shown. Err is why the endpoint gave no more: an *fault.Error or
// a *platformError; it is the last step of the endpoint.
type examined struct {
	fault.Step
	requests     int                       // that it took: several for the same at one host are one step
	certificates []*x509.Certificate       // that the host showed, its own first; of StepTLS
	skew         time.Duration             // by which the host's clock is before ours; of stepClock
	credential   upstream.CredentialStatus // of stepCredential
	budgets      []limit.Budget            // of stepLimit
	digest       oci.Digest                // of StepManifest: what the reference means. Of stepPlatform: the chosen manifest
	platform     string                    // of stepPlatform: the chosen one
	platforms    []string                  // of stepPlatform: those of the image
	blobs        []oci.Digest              // of the chosen manifest; of stepPlatform
	notice       error                     // what is wrong with an answer that keeps no pull from going on: an *fault.Error
}

// platformError says that an image has nothing for a platform.
type platformError struct {
	want string
	have []string
}

func (e *platformError) Error() string {
	return fmt.Sprintf("nothing for %s, but for %s", e.want, strings.Join(e.have, ", "))
}

// maxBlobs bounds the blobs of an image that are asked for.
const maxBlobs = 64

// walk walks a pull step by step, at each endpoint. A blob costs a byte, the config all of it. Platform is
// OS/ARCH[/VARIANT]; empty: the one of this machine, of linux, if there is one, else the first. The context ends it.
func walk(ctx context.Context, r *upstream.Registry, repository, reference, platform string) iter.Seq[examined] {
	return func(yield func(examined) bool) {
		seen := &handshakes{m: make(map[string][]*x509.Certificate)}
		endpoints, end, err := r.Inspect(seen.add)
		if err != nil {
			yield(examined{Step: fault.Step{Err: err}})
			return
		}
		defer end()
		for _, ep := range endpoints {
			w := &walker{
				ep: ep, repository: repository, reference: reference, want: platform, yield: yield, seen: seen,
			}
			_ = w.ping(ctx) && w.manifest(ctx) && w.platform(ctx) && w.blobs(ctx)
			if w.stopped || ctx.Err() != nil {
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

func (h *handshakes) add(host string, s tls.ConnectionState) {
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

// walker examines one endpoint.
type walker struct {
	ep                    *upstream.Inspected
	repository, reference string
	want                  string // platform; may be empty
	yield                 func(examined) bool
	stopped               bool // the caller wants no more steps
	seen                  *handshakes

	image *oci.Manifest // first what the reference means, then the manifest for the platform
	index bool          // the first was an index
}

// say hands a step to the caller. False: it is the last one.
func (w *walker) say(e examined) bool {
	e.Endpoint = w.ep.Name()
	if !w.stopped && !w.yield(e) {
		w.stopped = true
	}
	return !w.stopped && e.Err == nil
}

// tell says what an attempt went through, and what broke it. Several steps of a kind at one host are one. last adds to the
// last step.
func (w *walker) tell(a *upstream.Attempt, err error, last func(*examined)) bool {
	rows := rowsOf(a.Take(), err == nil)
	if len(rows) == 0 && err != nil {
		rows = []examined{{Step: fault.Step{Name: fault.StepManifest}}}
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
			e.certificates = w.seen.of(e.Host, err)
		}
		proxy := w.ep.Proxy(e.Host)
		if proxy != "" && (e.Name == fault.StepDNS || e.Name == fault.StepDial) {
			e.Host = proxy
		}
		if !w.say(e) {
			return false
		}
		ahead := i+1 < len(rows) && rows[i+1].Name == fault.StepProxy
		if proxy != "" && e.Name == fault.StepDial && !ahead &&
			!w.say(examined{Step: fault.Step{Name: fault.StepProxy, Host: proxy}}) {
			return false
		}
	}
	return err == nil
}

// rowsOf makes one step of those of a kind at one host. Where all went well, refusals on the way to it are left out: the
// step of the credential says that. Where it did not, the last step is the one that broke.
func rowsOf(steps []fault.Step, well bool) (rows []examined) {
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
		e := examined{Step: s, requests: 1}
		at := slices.IndexFunc(rows, func(r examined) bool { return r.Name == s.Name && r.Host == s.Host })
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
	if !w.tell(a, err, func(e *examined) { e.notice = notice }) {
		return false
	}
	if at, err := http.ParseTime(h.Get("Date")); err == nil {
		skew := at.Sub(between).Round(time.Second)
		if skew.Abs() <= 2*time.Second { // less than a header in seconds, and the time on the way, can show
			skew = 0
		}
		return w.say(examined{Step: fault.Step{Name: stepClock, Host: w.ep.Host()}, skew: skew})
	}
	return true
}

// manifest asks what the reference means, and for that.
func (w *walker) manifest(ctx context.Context) (ok bool) {
	a := w.ep.Attempt("manifest", w.repository, w.reference)
	var err error
	w.image, err = a.Manifest(ctx)
	if !w.tell(a, err, func(e *examined) {
		if err == nil {
			e.digest = w.image.Digest
		}
	}) {
		return false
	}
	if st := a.Credential(); st.Name != "" &&
		!w.say(examined{Step: fault.Step{Name: stepCredential, Host: w.ep.Host()}, credential: st}) {
		return false
	}
	if list := w.ep.Budgets(); len(list) > 0 {
		return w.say(examined{Step: fault.Step{Name: stepLimit, Host: w.ep.Host()}, budgets: list})
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
	step := examined{Step: fault.Step{Name: stepPlatform, Host: w.ep.Host()}, platform: found, platforms: have}
	switch {
	case !w.index: // the config says
		return true
	case found == "" && w.want != "", len(have) == 0:
		step.platform, step.Err = w.want, &platformError{want: cmp.Or(w.want, "any platform"), have: have}
		return w.say(step)
	case found == "":
		i := slices.IndexFunc(w.image.Children, func(d oci.Child) bool { return platformText(d) != "" })
		chosen, step.platform = w.image.Children[i], have[0]
	}
	a := w.ep.Attempt("manifest", w.repository, chosen.Digest.String())
	m, err := a.Manifest(ctx)
	if err != nil {
		return w.tell(a, err, nil)
	}
	w.image = m
	for _, s := range a.Take() {
		step.Took += s.Took
	}
	step.digest, step.blobs = m.Digest, blobsOf(m)
	return w.say(step)
}

// blobs reads the config and asks for one byte of each further blob, once at each host that a redirect leads to.
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
		var lacking *platformError
		if i == 0 && isConfig(d) {
			lacking, err = w.config(ctx, a, d)
		} else {
			err = a.Peek(ctx, d.Digest, func(host string) bool { return hosts[host] })
		}
		for _, s := range a.Steps() {
			if s.Name == fault.StepBlobHost {
				hosts[s.Host] = true
			}
		}
		if lacking != nil {
			_ = w.tell(a, nil, nil) && w.say(examined{
				Step:     fault.Step{Name: stepPlatform, Host: w.ep.Host(), Err: lacking},
				platform: lacking.want, platforms: lacking.have,
			})
			return false
		}
		if err != nil {
			return w.tell(a, err, nil)
		}
	}
	return w.tell(a, nil, nil)
}

// config reads the config of an image. Where no index has said so, that says which platform the image is for.
func (w *walker) config(ctx context.Context, a *upstream.Attempt, d oci.Child) (*platformError, error) {
	b, err := a.Config(ctx, d.Digest)
	if err != nil {
		return nil, err
	}
	var conf struct{ OS, Architecture, Variant string }
	if w.index || json.Unmarshal(b, &conf) != nil || conf.OS == "" {
		return nil, nil
	}
	have := strings.TrimSuffix(conf.OS+"/"+conf.Architecture+"/"+conf.Variant, "/")
	if w.want != "" && !fits(have, w.want) {
		return &platformError{want: w.want, have: []string{have}}, nil
	}
	w.say(examined{
		Step:     fault.Step{Name: stepPlatform, Host: w.ep.Host()},
		platform: have, platforms: []string{have}, digest: w.image.Digest, blobs: blobsOf(w.image),
	})
	return nil, nil
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
