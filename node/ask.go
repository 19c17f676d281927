package node

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/registrymirror/mirror/client"
	"github.com/registrymirror/mirror/internal/text"
	"github.com/registrymirror/mirror/oci"
)

const (
	askLimit = 3 * time.Second  // of one question
	tryLimit = 30 * time.Second // of one request of an image, as containerd waits for an answer
	skewed   = time.Minute      // how wrong a clock may be
)

// errAnother says that something answers at a mirror's address which is not a mirror of ours.
var errAnother = errors.New("another program answers")

// errTLS says that the address of a mirror is for plain HTTP, and that TLS is spoken there.
var errTLS = errors.New("it answers by TLS alone")

// plainToTLS is what a program in Go, as the mirror is, answers to plain HTTP where it speaks TLS.
const plainToTLS = "Client sent an HTTP request to an HTTPS server."

// transport has the limits that containerd has by our files. No CA: the certificates of the system count.
func transport(pem [][]byte, skipVerify bool) (*http.Transport, error) {
	t := &http.Transport{
		DialContext:         (&net.Dialer{Timeout: time.Second}).DialContext,
		TLSHandshakeTimeout: 2 * time.Second, DisableKeepAlives: true, MaxResponseHeaderBytes: 16 << 10,
		TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: skipVerify}, //nolint:gosec // as the node's file says
	}
	for _, b := range pem {
		if t.TLSClientConfig.RootCAs == nil { // containerd adds them to those of the system
			pool, err := x509.SystemCertPool()
			if err != nil {
				pool = x509.NewCertPool()
			}
			t.TLSClientConfig.RootCAs = pool
		}
		if !t.TLSClientConfig.RootCAs.AppendCertsFromPEM(b) {
			return nil, errors.New("it has no certificate in PEM")
		}
	}
	return t, nil
}

// ask asks a mirror whether it serves, and returns the time on its clock; zero: it has not said.
func ask(ctx context.Context, t *http.Transport, mirror string) (clock time.Time, err error) {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	at, err := url.JoinPath(mirror, "readyz")
	if err != nil {
		return clock, fmt.Errorf("the mirror's address: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil)
	if err != nil {
		return clock, fmt.Errorf("ask the mirror: %w", err)
	}
	resp, err := t.RoundTrip(req) // no redirect is followed
	if err != nil {
		return clock, fmt.Errorf("ask the mirror: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	clock, _ = http.ParseTime(resp.Header.Get("Date"))
	b, err := io.ReadAll(io.LimitReader(resp.Body, 64))
	switch text := strings.TrimSpace(string(b)); {
	case err != nil:
		return clock, fmt.Errorf("read the mirror's answer: %w", err)
	case resp.StatusCode == http.StatusOK && text == "ready":
		return clock, nil
	case resp.StatusCode == http.StatusServiceUnavailable && (text == "starting" || text == "stopping"):
		return clock, errNotReady(text)
	case resp.StatusCode == http.StatusBadRequest && text == plainToTLS:
		return clock, errTLS
	}
	return clock, fmt.Errorf("%w at %s: %s", errAnother, mirror, resp.Status)
}

// errNotReady is what a mirror says that does not serve yet, or any more.
type errNotReady string

func (e errNotReady) Error() string { return "the mirror is " + string(e) }

// Answer is what a mirror of a Report has said.
type Answer struct {
	Mirror   Mirror
	Ours     bool   // it is a mirror of this program
	Identity string // that it takes this node for; empty: an anonymous client, or it does not say
	Took     time.Duration
}

// AskAll asks the mirrors of a report from here, all at once, each for a few seconds at most, and adds what is wrong to the report. root is that
// of the files that were checked.
func (r *Report) AskAll(ctx context.Context, root fs.FS) []Answer {
	answers, findings, logins := make([]Answer, len(r.Mirrors)), make([]*Finding, len(r.Mirrors)), make([]*Finding, len(r.Mirrors))
	var group sync.WaitGroup
	for i, m := range r.Mirrors {
		group.Go(func() {
			began := time.Now()
			clock, err := time.Time{}, error(nil)
			t, err := m.transport(root)
			if err == nil {
				clock, err = ask(ctx, t, m.URL)
			}
			_, notReady := errors.AsType[errNotReady](err)
			answers[i] = Answer{Mirror: m, Ours: err == nil || notReady, Took: time.Since(began)}
			findings[i] = m.explain(err, clock)
			if err == nil {
				answers[i].Identity, logins[i] = m.login(ctx, t)
			}
		})
	}
	group.Wait()
	for _, f := range logins {
		if f != nil {
			r.Add(*f)
		}
	}
	some := slices.ContainsFunc(answers, func(a Answer) bool { return a.Ours })
	for _, f := range findings {
		if f == nil {
			continue
		}
		if f.Rule == "not-ours" && !some {
			f.Level = Broken
		}
		r.Add(*f)
	}
	return answers
}

// login asks which client the mirror takes this node for, and is the finding if its login does not count; nil: it does, or there is none.
func (m Mirror) login(ctx context.Context, t *http.Transport) (identity string, f *Finding) {
	authorization := m.Header.Get("Authorization")
	if authorization == "" && len(m.Pairs) == 0 {
		return "", nil
	}
	identity, err := askIdentity(ctx, t, m.URL, authorization)
	f = &Finding{File: m.File, Line: m.Line}
	refused, isRefused := errors.AsType[*LoginError](err)
	switch {
	case isRefused:
		f.Rule, f.Level, f.Cause = "login-refused", Broken, m.URL+" does not accept the login of this node: "+refused.Reason+": images that need one are "+
			"pulled past it, or not at all"
		f.Remedy = "give the node a login that is valid there: mirror token new makes a token (Authorization), mirror setup tls a certificate (client)"
	case err != nil:
		f.Rule, f.Level, f.Cause, f.Remedy = "login-unknown", Note, err.Error(), "update the mirror if it is of an earlier version; mirror failures there shows logins that were refused"
	case identity == "":
		f.Rule, f.Level, f.Cause = "login-unused", Note, m.URL+" has no way to log in by what this node shows: it takes it for an anonymous client"
		f.Remedy = "set clients in the mirror's configuration (tokens, htpasswd, ca), or remove the login here"
	default:
		return identity, nil
	}
	return identity, f
}

// transport is one with the certificates that the node's file names.
func (m Mirror) transport(root fs.FS) (*http.Transport, error) {
	c := checker{root: root}
	var pem [][]byte
	for _, ca := range m.CA {
		b, err := c.read(ca)
		if err != nil {
			return nil, fmt.Errorf("read the mirror's CA: %w", err)
		}
		pem = append(pem, b)
	}
	t, err := transport(pem, m.SkipVerify)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", strings.Join(m.CA, ", "), err)
	}
	for _, paths := range m.Pairs {
		pair, err := readPair(c.read, paths)
		if err != nil {
			return nil, &pairError{err}
		}
		t.TLSClientConfig.Certificates = append(t.TLSClientConfig.Certificates, pair)
	}
	return t, nil
}

// pairError says that the mirror was not asked, since the node's certificate can't be used: a finding of the file says why.
type pairError struct{ error }

// explain is the finding of an answer; nil: all is well.
func (m Mirror) explain(err error, clock time.Time) *Finding {
	f := &Finding{Level: Broken, File: m.File, Line: m.Line}
	name, isName := errors.AsType[*net.DNSError](err)
	_, notReady := errors.AsType[errNotReady](err)
	invalid, isInvalid := errors.AsType[x509.CertificateInvalidError](err)
	_, untrusted := errors.AsType[*tls.CertificateVerificationError](err)
	skew := time.Since(clock).Round(time.Second)
	if _, ok := errors.AsType[*pairError](err); ok {
		return nil
	}
	switch {
	case err == nil && !clock.IsZero() && skew.Abs() > skewed:
		f.Rule, f.Level = "clock-skew", Warning
		f.Cause = fmt.Sprintf("the clock of this node is %s %s that of %s: certificates and tokens may seem not to be valid", skew.Abs(),
			map[bool]string{true: "ahead of", false: "behind"}[skew > 0], m.URL)
		f.Remedy = "set both by NTP: timedatectl shows whether this one is"
	case err == nil:
		return nil
	case errors.Is(err, errTLS):
		f.Rule, f.Cause = "tls-needed", m.URL+" is an address for plain HTTP, and "+err.Error()
		f.Remedy = "write https:// there, and name the CA of its certificate; for containerd mirror setup containerd --ca writes both"
	case errors.Is(err, errAnother):
		f.Rule, f.Level, f.Cause = "not-ours", Warning, err.Error()+", and not this mirror"
		f.Remedy = "if it is to be the mirror, correct the address; a web server, an ingress or another registry stands there"
	case notReady:
		f.Rule, f.Level, f.Cause, f.Remedy = "mirror-not-ready", Warning, m.URL+": "+err.Error(), "ask again in a minute"
	case isName:
		f.Rule, f.Cause = "name-unknown", "this node can't resolve "+name.Name+": "+err.Error()
		f.Remedy = "use an address that the node's own DNS has, or an IP address"
	case isInvalid && (invalid.Reason == x509.Expired):
		f.Rule, f.Cause = "certificate-expired", err.Error()
		f.Remedy = "renew the mirror's certificate; if it is not that old, this node's clock is wrong"
	case untrusted:
		f.Rule, f.Cause = "certificate-untrusted", err.Error()
		f.Remedy = "name the CA that has signed the mirror's certificate as ca of that host, and check the host's name"
	default:
		f.Rule, f.Cause = "mirror-unreachable", m.URL+" does not answer this node: "+err.Error()
		f.Remedy = "check that the mirror runs, its address and port, and firewalls between; until then each pull waits before it goes on"
	}
	return f
}

// Tried is the request of an image at a mirror.
type Tried struct {
	Image  string        `json:"image"` // canonical
	Mirror string        `json:"mirror"`
	Node   string        `json:"node,omitempty"` // the name that the node's files give it; empty: none
	Status string        `json:"status"`         // of the mirror's last answer, with its reason
	Digest string        `json:"digest,omitempty"`
	Took   time.Duration `json:"-"`
}

// Try asks for the manifest of an image as containerd does: at the mirror that the node's files have for its registry, the tag with HEAD, then
// what it means with GET. Nil: no mirror was asked, and the report says why.
func (r *Report) Try(ctx context.Context, root fs.FS, answers []Answer, image string) (*Tried, error) {
	ref, err := oci.ParseRef(image)
	if err != nil {
		return nil, err
	}
	list := r.For(ref.Host)
	if len(list) == 0 {
		r.Add(Finding{
			Rule: "image-not-covered", Level: Broken, Cause: "no file of this node names a mirror for " + ref.Host + ", so " + ref.String() +
				" is pulled past it", Remedy: "mirror setup containerd --mirror URL --registry " + ref.Host + " --install",
		})
		return nil, nil
	}
	m := list[0]
	for _, a := range answers {
		if i := slices.IndexFunc(list, func(l Mirror) bool { return l.URL == a.Mirror.URL }); a.Ours && i >= 0 {
			m = list[i]
			break
		}
	}
	began := time.Now()
	done := &Tried{Image: ref.String(), Mirror: m.URL, Node: m.Header.Get(client.NodeHeader)}
	t, err := m.transport(root)
	if err == nil {
		done.Status, done.Digest, err = m.manifest(ctx, t, http.MethodHead, ref, cmp.Or(string(ref.Digest), ref.Tag))
	}
	if err == nil && done.Digest != "" {
		done.Status, _, err = m.manifest(ctx, t, http.MethodGet, ref, done.Digest)
	}
	done.Took = time.Since(began)
	cause := "the mirror answers " + done.Status + " for " + done.Image
	if err != nil {
		cause = "the mirror does not answer for " + done.Image + ": " + err.Error()
	}
	if err != nil || !strings.HasPrefix(done.Status, "200 ") {
		r.Add(Finding{
			Rule: "image-refused", Level: Broken, File: m.File, Line: m.Line, Cause: cause,
			Remedy: "mirror doctor image " + done.Image + " goes through the pull step by step",
		})
	}
	return done, nil
}

// manifest asks for a manifest, and reads it to its end. The status is the text of the status line, in which the mirror gives its reason.
func (m Mirror) manifest(ctx context.Context, t *http.Transport, method string, ref oci.Ref, version string) (status, digest string, err error) {
	ctx, cancel := context.WithTimeout(ctx, tryLimit)
	defer cancel()
	at := m.URL + "/v2/" + ref.Name + "/manifests/" + version + "?ns=" + url.QueryEscape(ref.Host)
	if m.Client == podman {
		at = m.URL + "/v2/" + ref.Host + "/" + ref.Name + "/manifests/" + version // it has no ns
	}
	req, err := http.NewRequestWithContext(ctx, method, at, nil)
	if err != nil {
		return "", "", err
	}
	req.Header.Set("Accept", oci.AcceptManifests)
	req.Header.Set("User-Agent", "mirror-doctor")
	maps.Copy(req.Header, m.Header)
	resp, err := t.RoundTrip(req)
	if err != nil {
		return "", "", err
	}
	defer func() { _ = resp.Body.Close() }()
	if _, err := io.Copy(io.Discard, io.LimitReader(resp.Body, 8<<20)); err != nil {
		return resp.Status, "", fmt.Errorf("read the manifest: %w", err)
	}
	return text.Line(resp.Status, 300), resp.Header.Get("Docker-Content-Digest"), nil
}
