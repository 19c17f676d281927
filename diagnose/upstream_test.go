package diagnose_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/registrymirror/mirror/auth"
	"github.com/registrymirror/mirror/cache/flight"
	"github.com/registrymirror/mirror/diagnose"
	"github.com/registrymirror/mirror/internal/origin"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/upstream"
)

// The reasons of the real errors of upstream, with a real registry and a real network.
func TestExplainRealErrors(t *testing.T) {
	t.Parallel()
	type world struct {
		*origin.Origin
		image origin.Built
		o     upstream.Options
	}
	hub := auth.Credential{Name: "hub", Username: "ci-bot", Password: auth.NewSecret("right")}
	stale := auth.Credential{Name: "hub", Username: "ci-bot", Password: auth.NewSecret("wrong")}
	bearer := func(a origin.Auth) origin.Options {
		a.Kind, a.Username, a.Password, a.SeparateHost = "bearer", "ci-bot", "right", true
		return origin.Options{Auth: a}
	}
	status := func(kind origin.Kind, status int, body string) func(*world) {
		return func(w *world) {
			w.Script(origin.Rule{Kind: kind, Early: true, Do: origin.Fault{Status: status, Body: body}})
		}
	}
	for _, c := range []struct {
		name   string
		origin origin.Options
		set    func(*world)
		blob   bool
		get    bool // by GET, whose failed answers have a message, and not by HEAD
		want   diagnose.Reason
		host   func(*world) string // nil: the registry's
	}{
		{name: "refused", set: func(w *world) { w.Down() }, want: diagnose.ConnectRefused},
		{name: "unknown host", want: diagnose.DNSNotFound, set: func(w *world) {
			w.o.Endpoints[0].URL = &url.URL{Scheme: "https", Host: "registry.invalid"}
			w.o.Dial = func(context.Context, string, string) (net.Conn, error) {
				return nil, &net.OpError{Op: "dial", Net: "tcp", Err: &net.DNSError{
					Err:  "no such host",
					Name: "registry.invalid", IsNotFound: true,
				}}
			}
		}, host: func(*world) string { return "registry.invalid" }},
		{
			name: "silent", set: func(w *world) { w.Silent(); w.o.HeaderTimeout = 100 * time.Millisecond },
			want: diagnose.UpstreamTimeout,
		},
		{name: "slow answer", set: func(w *world) {
			w.Script(origin.Rule{Early: true, Do: origin.Fault{Gate: origin.NewGate()}})
			w.o.HeaderTimeout = 100 * time.Millisecond
		}, want: diagnose.UpstreamTimeout},
		{
			name: "reset", set: func(w *world) { w.Script(origin.Rule{Early: true, Do: origin.Fault{Drop: true, Reset: true}}) },
			want: diagnose.ConnectionReset,
		},
		{
			name: "dropped", set: func(w *world) { w.Script(origin.Rule{Early: true, Do: origin.Fault{Drop: true}}) },
			want: diagnose.ConnectionReset,
		},
		{
			name: "proxy down", set: func(w *world) {
				w.o.Proxy = func(*url.URL) (*url.URL, error) { return url.Parse("http://127.0.0.1:1") }
			}, want: diagnose.ProxyRefused, origin: origin.Options{TLS: true},
			host: func(*world) string { return "127.0.0.1:1" },
		},

		{
			name: "untrusted", origin: origin.Options{TLS: true}, set: func(w *world) { w.o.Endpoints[0].RootCAs = nil },
			want: diagnose.TLSUntrusted,
		},
		{
			name: "expired", origin: origin.Options{TLS: true, Certificate: origin.Certificate{Expired: true}},
			want: diagnose.TLSExpired,
		},
		{
			name: "not yet", origin: origin.Options{TLS: true, Certificate: origin.Certificate{NotYet: true}},
			want: diagnose.ClockSkew,
		},
		{
			name: "wrong name", origin: origin.Options{TLS: true, Certificate: origin.Certificate{WrongName: true}},
			want: diagnose.TLSWrongHost,
		},
		{name: "HTTP on https", set: func(w *world) { w.o.Endpoints[0].URL.Scheme = "https" }, want: diagnose.HTTPNotHTTPS},
		{
			name: "HTTPS on http", origin: origin.Options{TLS: true},
			set:  func(w *world) { w.o.Endpoints[0].URL.Scheme = "http" },
			want: diagnose.HTTPSNotHTTP,
		},

		{
			name: "wrong password", origin: bearer(origin.Auth{}), set: func(w *world) { w.o.Credential = stale },
			want: diagnose.CredentialsRejected, host: func(w *world) string { return w.TokenHost() },
		},
		{
			name: "wrong password, basic", origin: origin.Options{Auth: origin.Auth{
				Kind: "basic", Username: "a",
				Password: "b",
			}},
			set: func(w *world) { w.o.Credential = stale }, want: diagnose.CredentialsRejected,
		},
		{
			name: "no credential, basic", origin: origin.Options{Auth: origin.Auth{Kind: "basic", Username: "a", Password: "b"}},
			want: diagnose.CredentialsMissing,
		},
		{
			name: "no credential, useless token", origin: bearer(origin.Auth{
				Anonymous: true,
				Private:   func(string) bool { return true },
			}),
			want: diagnose.NotFoundOrNoAccess,
		},
		{
			name: "no credential, no token", origin: bearer(origin.Auth{NoAccess: 403}), want: diagnose.CredentialsMissing,
			host: func(w *world) string { return w.TokenHost() },
		},
		{name: "no right", origin: bearer(origin.Auth{}), set: func(w *world) {
			w.o.Credential = hub
			w.Script(origin.Rule{Kind: origin.KindManifest, Do: origin.Fault{
				Status: 403,
				Body:   origin.ErrorBody("DENIED", "permission_denied: read_package"),
			}})
		}, want: diagnose.UpstreamForbidden},
		{
			name: "broken source", origin: bearer(origin.Auth{}), set: func(w *world) { w.o.Credential = brokenSource{} },
			want: diagnose.CredentialSourceFailed, host: func(w *world) string { return w.TokenHost() },
		},
		{
			name: "foreign realm", origin: bearer(origin.Auth{Realm: "https://evil.example/token"}),
			want: diagnose.AuthHostNotAllowed, host: func(*world) string { return "evil.example" },
		},
		{
			name: "token service down", origin: bearer(origin.Auth{}), set: status(origin.KindToken, 503, ""),
			want: diagnose.UpstreamError, host: func(w *world) string { return w.TokenHost() },
		},
		{
			name: "token service refuses the name", origin: bearer(origin.Auth{}), set: status(origin.KindToken, 400,
				origin.DetailsBody("invalid repository name")), want: diagnose.TokenServiceRefused,
			host: func(w *world) string { return w.TokenHost() },
		},
		{name: "token service is a web page", origin: bearer(origin.Auth{}), set: status(origin.KindToken, 200,
			origin.HTMLBody("Login")), want: diagnose.NotARegistry, host: func(w *world) string { return w.TokenHost() }},

		{name: "no tag", set: func(w *world) { w.DeleteTag("library/nginx", "1.27") }, want: diagnose.TagNotFound},
		{
			name: "no repository", get: true, set: status(origin.KindManifest, 404, origin.ErrorBody("NAME_UNKNOWN", "unknown")),
			want: diagnose.RepositoryNotFound,
		},
		{
			name: "no blob", blob: true, set: func(w *world) { w.Delete("library/nginx", w.image.Layers[0][0].Digest) },
			want: diagnose.DigestNotFound,
		},
		{
			name: "limited", set: status(origin.KindManifest, 429, origin.ErrorBody("TOOMANYREQUESTS", "slow down")),
			want: diagnose.RateLimited,
		},
		{
			name: "abuse", get: true, set: status(origin.KindManifest, 429, "Too Many Requests (HAP429)"),
			want: diagnose.AbuseLimited,
		},
		{name: "503", set: status(origin.KindManifest, 503, ""), want: diagnose.UpstreamError},
		{
			name: "policy", set: status(origin.KindManifest, 412, origin.ErrorBody("PROJECTPOLICYVIOLATION",
				"4 vulnerabilities")),
			want: diagnose.UpstreamBlocked,
		},
		{
			name: "web page", set: status(origin.KindManifest, 200, origin.HTMLBody("Welcome to nginx")),
			want: diagnose.NotARegistry,
		},
		{
			name: "other JSON", get: true, set: status(origin.KindManifest, 200, `{"manifests":[],"layers":[]}`),
			want: diagnose.UnsupportedImage,
		},
		{
			name: "too large", set: status(origin.KindManifest, 200, `{"schemaVersion":2,"x":"`+strings.Repeat("x", 5<<20)+`"}`),
			want: diagnose.ManifestTooLarge,
		},
		{name: "wrong bytes", set: func(w *world) {
			w.Script(origin.Rule{Kind: origin.KindManifest, Method: "GET", Do: origin.Fault{Wrong: true}})
		}, want: diagnose.DigestMismatch},
		{
			name: "blob host down", blob: true, origin: origin.Options{Redirect: true}, set: func(w *world) { w.DownCDN() },
			want: diagnose.ConnectRefused, host: func(w *world) string { return w.CDNHost() },
		},
		{name: "blob host refuses", blob: true, origin: origin.Options{Redirect: true}, set: func(w *world) {
			w.Script(origin.Rule{Role: origin.RoleCDN, Do: origin.Fault{Status: 403, Body: origin.XMLBody("AccessDenied",
				"no")}})
		}, want: diagnose.UpstreamBlocked, host: func(w *world) string { return w.CDNHost() }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := &world{Origin: origin.Start(t, c.origin)}
			w.image = w.AddImage("library/nginx", "1.27", origin.Image{})
			u, err := url.Parse(w.URL())
			if err != nil {
				t.Fatal(err)
			}
			w.o = upstream.Options{
				Name: "docker.io", Endpoints: []upstream.Endpoint{{URL: u, RootCAs: w.CA()}},
				AuthHosts: []string{"127.0.0.1"}, RedirectHosts: []string{"127.0.0.1"},
				Proxy: func(*url.URL) (*url.URL, error) { return nil, nil },
			}
			if c.set != nil {
				c.set(w)
			}
			r, err := upstream.New(w.o)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			switch {
			case c.blob:
				err = download(ctx, r, w.image.Layers[0][0].Digest)
			case c.get:
				_, err = r.Manifest(ctx, "library/nginx", "1.27")
			default:
				// As in a pull: the tag by HEAD, then its manifest by GET.
				var d oci.Descriptor
				if d, err = r.Resolve(ctx, "library/nginx", "1.27"); err == nil {
					_, err = r.Manifest(ctx, "library/nginx", d.Digest.String())
				}
			}
			if err == nil {
				t.Fatal("nothing failed")
			}
			f := diagnose.Explain(err)
			host := w.Host()
			if c.host != nil {
				host = c.host(w)
			}
			if f.Reason != c.want || f.Host != host || f.Upstream != "docker.io" {
				t.Errorf("reason %s at %s, want %s at %s\n%s\n%s\n%s\n%v", f.Reason, f.Host, c.want, host, f.Summary, f.Remedy,
					strings.Join(f.Evidence, "\n"), err)
			}
			if strings.Contains(strings.Join(append(f.Evidence, f.Summary), " "), "signed-") {
				t.Errorf("a signed address is shown: %v", f.Evidence)
			}
		})
	}
}

func download(ctx context.Context, r *upstream.Registry, d oci.Digest) error {
	b, err := r.Blob(ctx, "library/nginx", d, flight.Want{To: -1})
	if err != nil {
		return err
	}
	defer b.Close()
	_, err = io.Copy(io.Discard, b)
	return err
}

type brokenSource struct{}

func (brokenSource) Credential(context.Context) (auth.Credential, error) {
	return auth.Credential{}, errors.New("docker-credential-pass: exit status 1")
}
