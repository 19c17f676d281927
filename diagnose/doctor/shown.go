package doctor

import (
	"cmp"
	"crypto/x509"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/registrymirror/mirror/diagnose"
	"github.com/registrymirror/mirror/internal/text"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/upstream"
	"github.com/registrymirror/mirror/upstream/limit"
)

// warn makes a step one that works, and yet should be looked at.
func (s *Step) warn(r diagnose.Reason, remedy, format string, args ...any) {
	s.State, s.Reason = Warning, string(r)
	s.Detail, s.Remedy = diagnose.Clean(fmt.Sprintf(format, args...)), diagnose.Clean(remedy)
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
	issuer := cmp.Or(chain[0].Issuer.CommonName, chain[0].Issuer.String())
	first := slices.MinFunc(chain, func(a, b *x509.Certificate) int { return a.NotAfter.Compare(b.NotAfter) })
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

// chosen says which platform's manifest the walk goes on with.
func (w *walker) chosen(platform string, have []string, took time.Duration) bool {
	s := Step{Host: w.ep.Host(), Took: Duration(took), Platforms: clean(have)}
	w.Platform = diagnose.Clean(platform)
	s.Detail = w.Platform
	if len(have) > 1 {
		s.Detail = diagnose.Clean(s.Detail + " of " + strings.Join(s.Platforms, ", "))
	}
	w.lacking(&s, have)
	w.parts = append(append(w.parts, w.image.Digest), blobsOf(w.image)...)
	return w.say(stepPlatform, s, nil)
}

// nothingFor says that the image has nothing for a platform.
func (w *walker) nothingFor(want string, platforms []string) bool {
	s := Step{Host: w.ep.Host(), Platforms: clean(platforms)}
	have := cmp.Or(some(s.Platforms), "nothing that runs")
	e := diagnose.New(diagnose.PlatformMissing, fmt.Sprintf("%s has %s, and nothing for %s", w.Image, have, want),
		"build the image for "+want+", or run it on a node of another platform")
	e.Finding.Evidence = []string{diagnose.Clean("platforms of the image: " + have)}
	e.Finding.Upstream, e.Finding.Host, e.Finding.Stage = w.Upstream, s.Host, string(stepPlatform)
	return w.say(stepPlatform, s, e)
}

// lacking warns of nodes for which there is nothing, where no platform was asked for.
func (w *walker) lacking(s *Step, have []string) {
	if w.want != "" || have[0] == "" {
		return
	}
	there := make([]oci.Platform, len(have))
	for i, p := range have {
		there[i] = oci.ParsePlatform(p)
	}
	nodes := w.nodes
	if len(nodes) == 0 {
		nodes = []string{"linux/" + runtime.GOARCH}
	}
	lack, whose := diagnose.Lacking(nodes, there)
	if len(w.nodes) == 0 {
		whose = w.machine
	}
	if len(lack) == 0 {
		return
	}
	s.warn(diagnose.PlatformMissing, "build the image for "+some(lack)+", or run it on nodes of another platform",
		"it has %s, and nothing for %s, %s", some(clean(have)), some(lack), whose)
	if len(lack) == len(nodes) {
		w.CannotRun = some(lack) + ", " + whose
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

// badStates are the states of a credential that a registry does not take.
var badStates = map[string]diagnose.Reason{
	"expired": diagnose.CredentialsExpired, "rejected": diagnose.CredentialsRejected, "failing": diagnose.CredentialSourceFailed,
}

func (s *Step) credential(c upstream.CredentialStatus) {
	s.Credential = &Credential{
		Name: c.Name, Kind: c.Kind, State: string(c.State), ExpiresAt: At(c.Expires),
		LastError: diagnose.Clean(c.LastError),
	}
	s.Detail = fmt.Sprintf("%s: %s", c.Name, c.State)
	if reason := badStates[string(c.State)]; reason != "" {
		s.warn(reason, "renew credential "+c.Name, "credential %s is %s, and the image was had without it: %s", c.Name, c.State,
			c.LastError)
	}
}

func (s *Step) limits(list []limit.Budget) {
	var texts []string
	empty := false
	for _, l := range list {
		v := Limit{
			Credential: l.Credential, Source: l.Source, Remaining: l.Remaining, Window: Duration(l.Window), ResetAt: At(l.Reset),
		}
		line := fmt.Sprintf("%d left", l.Remaining)
		if l.Limit >= 0 {
			v.Limit = l.Limit
			line = fmt.Sprintf("%d of %d left", l.Remaining, l.Limit)
		}
		if l.Window > 0 {
			line += " in " + text.Duration(l.Window)
		}
		switch {
		case l.Credential != "":
			line += " for credential " + l.Credential
		case l.Source != "":
			line += " for " + l.Source
		default:
			line += " for anonymous requests"
		}
		s.Limits, texts = append(s.Limits, v), append(texts, line)
		empty = empty || l.Remaining == 0
	}
	s.Detail = strings.Join(texts, "; ")
	if empty {
		s.warn(diagnose.RateLimited, "wait until there is more, or use a credential with a higher limit", "%s", s.Detail)
	}
}
