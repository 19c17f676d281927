package trouble

import (
	"context"
	"net/http"
	"slices"

	"github.com/registrymirror/mirror/internal/origin"
)

// By is the scene of a name.
func By(name string) Scene {
	i := slices.IndexFunc(All(), func(s Scene) bool { return s.Name == name })
	return All()[i]
}

// All are the scenes, by class.
func All() []Scene {
	var all []Scene
	for _, list := range [][]Scene{network(), certificates(), logins(), absent(), limits(), broken(), ours()} {
		all = append(all, list...)
	}
	return all
}

// Elsewhere are the reasons that no scene is about, and why.
var Elsewhere = map[string]string{
	"overloaded":           "it takes ten thousand connections",
	"client-limited":       "a client waits for its turn; it takes more requests at once than one pull has",
	"stopping":             "a client that pulls is served to the end, and no other gets in",
	"bad-request":          "no client sends one: it refuses the image's name itself",
	"internal-error":       "no way to cause it is known",
	"client-gone":          "the client has left",
	"too-slow":             "the client has left",
	"client-login-missing": "the registries of these scenes have access: public; the tests of pull, server and internal/app have those with access: client",
	"client-login-refused": "as client-login-missing",
	"login-refused":        "no client that pulls from a mirror of a registry sends the mirror a login of its own accord",
	"no-room":              "no pull fails by it: warm-up jobs alone do",
	"not-cached":           "no pull fails by it: it is the result of mirror warm verify",
}

func says(words ...string) []string { return words }

func network() []Scene {
	elsewhere := func(scheme string, port any, words ...string) func(*World, *Place) error {
		return func(_ *World, p *Place) error {
			p.Says = words
			p.at(scheme, port)
			return nil
		}
	}
	proxied := func(status int, words ...string) func(*World, *Place) error {
		return func(w *World, p *Place) error {
			port, err := w.refusingProxy(status)
			p.Says = words
			p.at("https", 443, "proxy: http://127.0.0.1:"+text(port))
			return err
		}
	}
	return []Scene{
		{Reason: "dns-not-found", Name: nameMissing, set: elsewhere("https", 443, "no host nx.example in DNS", "check the name")},
		{
			Reason: "dns-failed", Name: nameBroken, What: "SERVFAIL",
			set: elsewhere("https", 443, "resolve servfail.example", "DNS server"),
		},
		{
			Reason: "dns-failed", Name: nameSilent, What: "no answer",
			set: elsewhere("https", 443, "did not answer for silent.example", "DNS server"),
		},
		{Reason: "connect-refused", Name: "refused", set: func(w *World, p *Place) error {
			port, err := w.closedPort()
			p.Says = says("refused the connection", "check that refused.example")
			p.at("http", port)
			return err
		}},
		{Reason: "connect-timeout", Name: "dropped", Slow: true, set: func(w *World, p *Place) error {
			port, err := w.blackHole()
			p.Says = says("dropped.example", "did not accept a connection", "firewall")
			p.at("http", port)
			return err
		}},
		{Reason: "connect-refused", Name: "cdn", What: "the blob host alone", set: func(w *World, p *Place) error {
			g, err := p.registry(w, origin.Options{Redirect: true})
			if err != nil {
				return err
			}
			g.DownCDN()
			p.Says = says(g.CDNHost(), "refused the connection", "allow the mirror to reach "+g.CDNHost())
			return nil
		}},
		{Reason: "unreachable", Name: nameFar, set: elsewhere("https", 443, "no route to far.example", "firewall")},
		{Reason: "connection-reset", Name: "reset", set: func(w *World, p *Place) error {
			_, err := p.registry(w, origin.Options{}, origin.Rule{Kind: origin.KindManifest, Do: origin.Fault{Drop: true, Reset: true}})
			p.Says = says("reset.example", "broke the connection", "pull again")
			return err
		}},
		{Reason: "upstream-timeout", Name: "late", Slow: true, set: func(w *World, p *Place) error {
			_, err := p.registry(w, origin.Options{}, origin.Rule{Kind: origin.KindManifest, Do: origin.Fault{Gate: origin.NewGate()}})
			p.Says, p.Node = says("late.example", "did not answer", "pull again"), ""
			return err
		}},
		{Reason: "stalled", Name: "stalled", Slow: true, set: func(w *World, p *Place) error {
			_, err := p.registry(w, origin.Options{}, origin.Rule{Kind: origin.KindBlob, Do: origin.Fault{Stall: &origin.Stall{Gate: origin.NewGate()}}})
			p.Says, p.Node, p.Late = says("stalled.example", "too slowly to end, 0 bytes", "pull again"), "", true
			return err
		}},
		{Reason: "proxy-refused", Name: "egress", What: "403", set: proxied(http.StatusForbidden, "proxy 127.0.0.1", "403", "allow egress.example")},
		{
			Reason: "proxy-refused", Name: "account", What: "407",
			set: proxied(http.StatusProxyAuthRequired, "proxy 127.0.0.1", "407", "user and password"),
		},
		{Reason: "redirect-not-allowed", Name: "moved", set: func(w *World, p *Place) error {
			_, err := p.registry(w, origin.Options{TLS: true}, origin.Rule{Kind: origin.KindBlob, Do: origin.Fault{
				Status: http.StatusTemporaryRedirect, Header: http.Header{"Location": {"http://moved.example/blob"}},
			}})
			p.Says = says("moved.example redirects", "endpoint")
			return err
		}},
	}
}

func certificates() []Scene {
	with := func(c origin.Certificate, trusted bool, words ...string) func(*World, *Place) error {
		return func(w *World, p *Place) error {
			g, err := p.registry(w, origin.Options{TLS: true, Certificate: c})
			if err == nil && !trusted {
				p.at("https", portOf(g.Host()))
			}
			p.Says = words
			return err
		}
	}
	return []Scene{
		{Reason: "tls-untrusted", Name: "corp", set: with(origin.Certificate{Issuer: "corp-proxy"}, false, "CN=corp-proxy", "add that CA")},
		{Reason: "tls-wrong-host", Name: "alias", set: with(origin.Certificate{WrongName: true}, true, "is for registry.invalid", "correct the endpoint of alias.example")},
		{Reason: "tls-expired", Name: "old", set: with(origin.Certificate{Expired: true}, true, "expired on", "renew")},
		{Reason: "clock-skew", Name: "new", set: with(origin.Certificate{NotYet: true}, true, "valid only from", "clock")},
		{Reason: "tls-handshake", Name: "filtered", set: func(w *World, p *Place) error {
			port, err := w.hangUp()
			p.Says = says("filtered.example", "TLS handshake", "firewall")
			p.at("https", port)
			return err
		}},
		{Reason: "http-not-https", Name: "plain", set: func(w *World, p *Place) error {
			g, err := p.registry(w, origin.Options{})
			if err == nil {
				p.at("https", portOf(g.Host()))
			}
			p.Says, p.Node = says("plain.example", "answered HTTP on an https endpoint", "http://"), ""
			return err
		}},
		{Reason: "https-not-http", Name: "secure", set: func(w *World, p *Place) error {
			g, err := p.registry(w, origin.Options{TLS: true})
			if err == nil {
				p.at("http", portOf(g.Host()))
			}
			p.Says = says("speaks HTTPS", "https://")
			return err
		}},
	}
}

func logins() []Scene {
	const user, password = "ci-bot", "right"
	basic := origin.Options{Auth: origin.Auth{Kind: "basic", Username: user, Password: password}}
	bearer := origin.Options{Auth: origin.Auth{Kind: "bearer", Username: user, Password: password}}
	hidden := bearer // what it has for the public is there, and this is not
	hidden.Auth.Anonymous = true
	hidden.Auth.Private = func(string) bool { return true }
	loggedIn := func(o origin.Options, with string, rule origin.Rule, words ...string) func(*World, *Place) error {
		return func(w *World, p *Place) error {
			if _, err := p.registry(w, o, rule); err != nil {
				return err
			}
			p.Says = words
			return p.login(w, "ci", user, with)
		}
	}
	stranger := func(o origin.Options, rule origin.Rule, words ...string) func(*World, *Place) error {
		return func(w *World, p *Place) error {
			_, err := p.registry(w, o, rule)
			p.Says = words
			return err
		}
	}
	none := origin.Rule{Kind: origin.KindOther}
	return []Scene{
		{Reason: "credentials-missing", Name: "secret", set: stranger(basic, none, "secret.example wants a login", "imagePullSecret")},
		{Reason: "not-found-or-no-access", Name: "private", set: stranger(hidden, none, "no credentials for private.example/acme/app", "imagePullSecret")},
		{Reason: "credentials-rejected", Name: "wrong", set: loggedIn(bearer, "wrong", none, "credential ci", "renew credential ci")},
		{Reason: "credentials-expired", Name: "expired", set: loggedIn(basic, password, answers(http.StatusForbidden,
			origin.ErrorBody("DENIED", "Your authorization token has expired. Reauthenticate and try again.")),
			"credential ci", "expired", "renew credential ci")},
		{Reason: "credential-source-failed", Name: "helper", set: func(w *World, p *Place) error {
			if _, err := p.registry(w, bearer); err != nil {
				return err
			}
			script, err := w.file("docker-credential-broken", []byte("#!/bin/sh\necho the keychain is locked\nexit 1\n"), 0o700)
			p.credential("name: ci, lifetime: 1h, helper: " + script)
			p.Says = says("credential ci", "keychain is locked", "correct its source")
			return err
		}},
		{Reason: "upstream-forbidden", Name: "forbidden", set: loggedIn(basic, password, answers(http.StatusForbidden,
			origin.ErrorBody("DENIED", "permission denied")), "doesn't let credential ci pull acme/app", "give credential ci the right")},
		{Reason: "token-service-refused", Name: "token", set: stranger(bearer, origin.Rule{
			Kind: origin.KindToken, Early: true, Do: origin.Fault{Status: http.StatusBadRequest, Body: origin.ErrorBody("UNKNOWN", "invalid scope")},
		}, "token.example", "400", "check the image's name")},
		{Reason: "auth-host-not-allowed", Name: "realm", set: func(w *World, p *Place) error {
			o := bearer
			o.Auth.Realm = "https://auth.elsewhere.example/token"
			_, err := p.registry(w, o)
			p.Says = says("auth.elsewhere.example", "authHosts")
			return err
		}},
	}
}

func absent() []Scene {
	of := func(image string, rule origin.Rule, words ...string) func(*World, *Place) error {
		return func(w *World, p *Place) error {
			_, err := p.registry(w, origin.Options{}, rule)
			if p.Says = words; image != "" {
				p.Image = image
			}
			return err
		}
	}
	none := origin.Rule{Kind: origin.KindOther}
	return []Scene{
		{Reason: "tag-not-found", Name: "tag", set: of("acme/app:v2", none, "tag.example has no acme/app:v2", "check the image's name and tag")},
		{Reason: "repository-not-found", Name: "repo", set: of("acme/ap:v1", none, "repo.example has no repository acme/ap", "check the image's name")},
		{
			Reason: "digest-not-found", Name: "digest", What: "a manifest",
			set: of("acme/app@sha256:"+digits, none, "digest.example has no acme/app@sha256:", "check the digest"),
		},
		{Reason: "digest-not-found", Name: "layer", What: "a layer", set: of("", origin.Rule{
			Kind: origin.KindBlob, Do: origin.Fault{Status: http.StatusNotFound, Body: origin.ErrorBody("BLOB_UNKNOWN", "blob unknown to registry")},
		}, "layer.example has no blob", "push the image again")},
		{Reason: "platform-missing", Name: "arm", set: func(w *World, p *Place) error {
			g, err := p.registry(w, origin.Options{})
			if err != nil {
				return err
			}
			g.AddImage("acme/base", "both", origin.Image{Platforms: []string{"linux/amd64", "linux/arm64"}, Seed: 1})
			g.AddImage("acme/app", "v1", origin.Image{Platforms: []string{"linux/arm64"}, Index: true, Seed: 2})
			p.First, p.Unsaid = p.Host+"/acme/base:both", true // of another repository: what ends late of it is not of this
			p.Says = says("acme/app:v1 has linux/arm64", "nothing for linux/amd64", "build the image for linux/amd64")
			return nil
		}},
	}
}

func limits() []Scene {
	limited := func(body string, words ...string) func(*World, *Place) error {
		return func(w *World, p *Place) error {
			_, err := p.registry(w, origin.Options{}, tooMany(body))
			p.Says, p.Node = words, ""
			return err
		}
	}
	return []Scene{
		{Reason: "rate-limited", Name: "hub", set: limited(origin.ErrorBody("TOOMANYREQUESTS", "You have reached your pull rate limit."),
			"hub.example limits anonymous pulls", "wait ")},
		{Reason: "abuse-limited", Name: "docker.io", set: func(w *World, p *Place) error {
			p.Host = "docker.io"
			_, err := p.registry(w, origin.Options{}, tooMany("Too Many Requests"))
			p.Says, p.Node = says("docker.io gets too many requests a minute", "wait"), ""
			return err
		}},
		{Reason: "data-limited", Name: "data", set: limited(origin.ErrorBody("TOOMANYREQUESTS", "Data limit exceeded"),
			"data.example has a monthly download quota", "give the mirror a credential")},
	}
}

func broken() []Scene {
	sending := func(rule origin.Rule, words ...string) func(*World, *Place) error {
		return func(w *World, p *Place) error {
			_, err := p.registry(w, origin.Options{}, rule)
			p.Says, p.Node = words, "" // a node that goes on itself gets the same, and does not see what it is
			return err
		}
	}
	manifest := func(mediaType string, body []byte, words ...string) func(*World, *Place) error {
		return func(w *World, p *Place) error {
			g, err := p.registry(w, origin.Options{})
			if err == nil {
				g.AddManifest("acme/app", "v1", mediaType, body)
			}
			p.Says, p.Node = words, ""
			return err
		}
	}
	const page = "<!doctype html><html><head><title>Sign in</title></head><body>Welcome to the guest network</body></html>"
	return []Scene{
		{Reason: "upstream-error", Name: "down", set: sending(answers(http.StatusServiceUnavailable,
			"<html>down for maintenance</html>"), "down.example", "answered 503", "wait for")},
		{Reason: "upstream-blocked", Name: "firewall", set: sending(answers(http.StatusForbidden,
			"<html><title>Access denied</title></html>"), "firewall.example", "answered 403", "firewall, proxy, login page")},
		{Reason: "not-a-registry", Name: "portal", set: sending(answers(http.StatusOK, page), "portal.example", "check the endpoint")},
		{Reason: "unsupported-image", Name: "ancient", set: manifest("application/vnd.oci.image.manifest.v1+json",
			[]byte(ambiguous), "ancient.example", "push the image again with a current tool")},
		{Reason: "manifest-too-large", Name: "large", set: manifest("application/vnd.oci.image.manifest.v1+json", largeManifest(),
			"larger than 4 MiB", "push it with fewer layers")},
		{Reason: "digest-mismatch", Name: "altered", What: "a manifest", set: sending(origin.Rule{
			Kind: origin.KindManifest, Method: http.MethodGet, Do: origin.Fault{Flip: []int64{40}},
		}, "altered.example", "pull again")},
		{Reason: "digest-mismatch", Name: "swapped", What: "a layer", set: sending(origin.Rule{
			Kind: origin.KindBlob, Do: origin.Fault{Wrong: true},
		}, "swapped.example", "pull again")},
	}
}

func ours() []Scene {
	return []Scene{
		{Reason: "unknown-upstream", Name: "unlisted", set: func(_ *World, p *Place) error {
			p.Says = says("no upstream named unlisted.example", "add unlisted.example to upstreams")
			return nil
		}},
		{Reason: "client-forbidden", Name: "rules", set: func(w *World, p *Place) error {
			if _, err := p.registry(w, origin.Options{Auth: origin.Auth{Kind: "basic", Username: "u", Password: "p"}}); err != nil {
				return err
			}
			err := p.login(w, "ci", "u", "p")
			p.Allowed = "other/**"
			p.Says = says("no rule that lets clients pull rules.example/acme/app", "rules")
			return err
		}},
		{Reason: "blocked-by-policy", Name: "denied", set: func(w *World, p *Place) error {
			_, err := p.registry(w, origin.Options{})
			p.Upstream += ", deny: [acme/**]"
			p.Says, p.Node = says("never asks denied.example for", "deny"), ""
			return err
		}},
		{Reason: "too-new", Name: "fresh", set: func(w *World, p *Place) error {
			_, err := p.registry(w, origin.Options{})
			p.Upstream += ", tags: {minAge: 24h, minAgeUnknown: hold}"
			p.Says, p.Node = says("knows no digest of", "pull it from"), ""
			return err
		}},
		{Reason: "queue-timeout", Name: "queue", Slow: true, set: func(w *World, p *Place) error {
			g, err := p.registry(w, origin.Options{Auth: origin.Auth{}})
			if err != nil {
				return err
			}
			// Blobs of up to 1 MiB do not wait behind a large one.
			g.AddImage("acme/app", "v1", origin.Image{Layers: []int64{2 << 20}, Seed: p.seed()})
			big := g.AddImage("acme/big", "v1", origin.Image{Layers: []int64{64 << 20}, Seed: 3}).Layers[0][0].Digest.String()
			g.Script(origin.Rule{Kind: origin.KindBlob, Ref: big, Do: origin.Fault{Rate: 200 << 10}})
			p.Upstream += ", maxTransfers: 1"
			p.Busy = func(ctx context.Context, mirror string) error {
				return hold(ctx, mirror+"/v2/"+p.Host+"/acme/big/blobs/"+big)
			}
			p.Says, p.Node = says("queue.example", "waited", "maxTransfers"), ""
			return nil
		}},
		{Reason: "loop", Name: "loop", set: func(w *World, p *Place) error {
			port, err := w.relay()
			p.Image = "acme/round:v1" // what comes back is for docker.io, since it names no registry
			p.Says = says("came back", "endpoints of loop.example")
			p.at("http", port)
			return err
		}},
	}
}

// Healthy is a place where nothing is wrong, to begin with: the image has one layer of a size. more is YAML of the
// upstream.
func Healthy(name, more string, layer int64) Scene {
	return Scene{Name: name, set: func(w *World, p *Place) error {
		g, err := p.registry(w, origin.Options{})
		if err != nil {
			return err
		}
		g.AddImage("acme/app", "v1", origin.Image{Layers: []int64{layer}, Seed: p.seed() + 1})
		if more != "" {
			p.Upstream += ", " + more
		}
		return nil
	}}
}
