package doctor

import (
	"crypto/x509"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/registrymirror/mirror/diagnose"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/upstream/fault"
	"github.com/registrymirror/mirror/upstream/limit"
)

// warn makes a step one that works, and yet should be looked at.
func (s *Step) warn(r diagnose.Reason, remedy, format string, args ...any) {
	s.State, s.Reason = Warning, string(r)
	s.Detail, s.Remedy = diagnose.Clean(fmt.Sprintf(format, args...)), diagnose.Clean(remedy)
}

// shown says what a step has shown.
func (b *builder) shown(s *Step, e examined) {
	if e.notice != nil {
		f := diagnose.Explain(e.notice)
		s.warn(f.Reason, f.Remedy, "%s", f.Summary)
		return
	}
	switch e.Name {
	case fault.StepTLS:
		s.tls(e.certificates, time.Now())
	case fault.StepProxy:
		s.Detail = "the connection goes through a proxy"
	case fault.StepPing:
		if s.Detail = "it is a registry"; e.Status == 401 {
			s.Detail = "it is a registry that asks for a login or a token"
		}
	case stepClock:
		s.clock(e.skew)
	case fault.StepManifest:
		if e.digest != "" {
			s.Detail = e.digest.String()
			b.report.Digest = s.Detail
			b.blobs = []oci.Digest{e.digest}
		}
	case stepPlatform:
		b.platform(s, e)
	case stepCredential:
		s.credential(e)
	case stepLimit:
		s.limits(e.budgets)
	case fault.StepBlobRegistry:
		s.Detail = count(e.requests, "config and layers") // of which it redirects some
	case fault.StepBlobHost:
		s.Detail = "the registry keeps blobs here"
	}
}

func count(n int, what string) string {
	if n == 1 {
		return what + ": 1 request"
	}
	return fmt.Sprintf("%s: %d requests", what, n)
}

func (s *Step) tls(chain []*x509.Certificate, now time.Time) {
	for _, c := range chain {
		s.Certificates = append(s.Certificates, Certificate{
			Subject: diagnose.Clean(c.Subject.String()), Issuer: diagnose.Clean(c.Issuer.String()), Names: c.DNSNames,
			NotBefore: At(c.NotBefore), NotAfter: At(c.NotAfter),
		})
	}
	if len(chain) == 0 {
		return
	}
	issuer := chain[0].Issuer.CommonName
	if issuer == "" {
		issuer = chain[0].Issuer.String()
	}
	first := chain[0]
	for _, c := range chain {
		if c.NotAfter.Before(first.NotAfter) {
			first = c
		}
	}
	text := fmt.Sprintf("issued by %s, expires %s", issuer, first.NotAfter.UTC().Format(time.DateOnly))
	if left := first.NotAfter.Sub(now); left < min(soon, first.NotAfter.Sub(first.NotBefore)/10) {
		s.warn(diagnose.TLSExpired, "have the certificate of "+s.Host+" renewed", "%s, in %s", text,
			left.Round(time.Hour))
		return
	}
	s.Detail = diagnose.Clean(text)
}

func (s *Step) clock(skew time.Duration) {
	s.Skew = Duration(skew)
	switch {
	case skew == 0:
		s.Detail = "our clock agrees with that of " + s.Host
		return
	case skew > 0:
		s.Detail = fmt.Sprintf("our clock is %s behind that of %s", skew, s.Host)
	default:
		s.Detail = fmt.Sprintf("our clock is %s ahead of that of %s", -skew, s.Host)
	}
	if skew.Abs() > skewed {
		s.warn(diagnose.ClockSkew, "set the clock of this machine, or tell the operator of "+s.Host+", if it is theirs",
			"%s", s.Detail)
	}
}

func (b *builder) platform(s *Step, e examined) {
	s.Platforms = clean(e.platforms)
	if e.Err != nil {
		return
	}
	b.report.Platform = diagnose.Clean(e.platform)
	s.Detail = b.report.Platform
	if len(s.Platforms) > 1 {
		s.Detail = diagnose.Clean(s.Detail + " of " + strings.Join(s.Platforms, ", "))
	}
	b.lacking(s, e)
	b.blobs = append(b.blobs, e.digest)
	b.blobs = append(b.blobs, e.blobs...)
}

// lacking warns of nodes for which there is nothing.
func (b *builder) lacking(s *Step, e examined) {
	have := e.platforms
	if len(have) == 0 {
		have = []string{e.platform}
	}
	there := make([]oci.Platform, len(have))
	for i, p := range have {
		there[i] = oci.ParsePlatform(p)
	}
	if !b.any || have[0] == "" {
		return
	}
	nodes, whose := b.nodes, b.machine
	if len(nodes) == 0 {
		nodes = []string{"linux/" + runtime.GOARCH}
	}
	lack, theirs := diagnose.Lacking(nodes, there)
	if len(b.nodes) > 0 {
		whose = theirs
	}
	if len(lack) == 0 {
		return
	}
	s.warn(diagnose.PlatformMissing, "build the image for "+some(lack)+", or run it on nodes of another platform",
		"it has %s, and nothing for %s, %s", some(clean(have)), some(lack), whose)
	if len(lack) == len(nodes) {
		b.report.CannotRun = some(lack) + ", " + whose
	}
}

// mostPlatforms bounds a list that the publisher of the image has written.
const mostPlatforms = 64

func clean(platforms []string) (list []string) {
	for _, p := range platforms[:min(len(platforms), mostPlatforms)] {
		list = append(list, diagnose.Clean(p))
	}
	return list
}

// some names as many platforms as fit into a sentence, each once.
func some(platforms []string) string {
	const most = 8
	var list []string
	for _, p := range platforms {
		if !slices.Contains(list, p) {
			list = append(list, p)
		}
	}
	if n := len(list) - most; n > 0 {
		return fmt.Sprintf("%s and %d others", strings.Join(list[:most], ", "), n)
	}
	return strings.Join(list, ", ")
}

func (s *Step) credential(e examined) {
	c := e.credential
	s.Credential = &Credential{
		Name: c.Name, Kind: c.Kind, State: string(c.State), ExpiresAt: At(c.Expires),
		LastError: diagnose.Clean(c.LastError),
	}
	s.Detail = fmt.Sprintf("%s: %s", c.Name, c.State)
	reason := diagnose.Reason("")
	switch c.State {
	case "expired":
		reason = diagnose.CredentialsExpired
	case "rejected":
		reason = diagnose.CredentialsRejected
	case "failing":
		reason = diagnose.CredentialSourceFailed
	default:
		return
	}
	s.warn(reason, "renew credential "+c.Name, "credential %s is %s, and the image was had without it: %s", c.Name, c.State,
		c.LastError)
}

func (s *Step) limits(list []limit.Budget) {
	var texts []string
	empty := false
	for _, l := range list {
		v := Limit{
			Credential: l.Credential, Source: l.Source, Remaining: l.Remaining, Window: Duration(l.Window), ResetAt: At(l.Reset),
		}
		text := fmt.Sprintf("%d left", l.Remaining)
		if l.Limit >= 0 {
			v.Limit = l.Limit
			text = fmt.Sprintf("%d of %d left", l.Remaining, l.Limit)
		}
		if l.Window > 0 {
			text += " in " + strings.NewReplacer("h0m0s", "h", "m0s", "m").Replace(l.Window.String())
		}
		switch {
		case l.Credential != "":
			text += " for credential " + l.Credential
		case l.Source != "":
			text += " for " + l.Source
		default:
			text += " for anonymous requests"
		}
		s.Limits, texts = append(s.Limits, v), append(texts, text)
		empty = empty || l.Remaining == 0
	}
	s.Detail = strings.Join(texts, "; ")
	if empty {
		s.warn(diagnose.RateLimited, "wait until there is more, or use a credential with a higher limit", "%s", s.Detail)
	}
}
