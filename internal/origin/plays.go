package origin

import (
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/registrymirror/mirror/oci"
)

// Plays are the registries of which transcripts, documentation or source show what they answer: status, code, challenge
// and wording are theirs. Where those leave a text short, or do not show a body, as of most first challenges, it is made
// up to fit, as are names, tokens and the paths of some token services. A situation of which nothing is known is not
// here.
func Plays() []Play {
	var all []Play
	for _, of := range []func() []Play{
		dockerHub, ghcr, quay, kubernetes, google, publicECR, privateECR, azure, microsoft, gitlab, harbor, artifactory,
		nexus, redHat, nvidia, distribution,
	} {
		all = append(all, of()...)
	}
	return all
}

const (
	typeJSON = "Content-Type: application/json"
	typeText = "Content-Type: text/plain; charset=utf-8"
	typeHTML = "Content-Type: text/html"

	hubBearer = `Www-Authenticate: Bearer realm="{aside}/token",service="registry.docker.io",` +
		`scope="repository:library/app:pull"`
	hubUnauthorized = `{"errors":[{"code":"UNAUTHORIZED","message":"authentication required","detail":` +
		`[{"Type":"repository","Class":"","Name":"library/app","Action":"pull"}]}]}` + "\n"
	limited = `{"errors":[{"code":"TOOMANYREQUESTS","message":"Rate exceeded"}]}`
)

// image is a manifest, for those who may have it.
func image(as string) Line {
	return Line{
		As: as, Status: 200, Body: playedManifest,
		Header: []string{
			"Content-Type: " + oci.MediaTypeOCIManifest,
			"Docker-Content-Digest: " + digest.FromString(playedManifest).String(),
		},
	}
}

// says is an answer in JSON about the manifest.
func says(as string, status int, body string, header ...string) Line {
	return Line{As: as, Status: status, Body: body, Header: append([]string{typeJSON}, header...)}
}

// text is an answer about the manifest that is not JSON.
func text(as string, status int, contentType, body string, header ...string) Line {
	return Line{As: as, Status: status, Body: body, Header: append([]string{contentType}, header...)}
}

// elsewhere is an answer of something else than manifests, such as a token service.
func elsewhere(at string, l Line) Line {
	l.At = at
	return l
}

// lines puts a registry's own lines behind those of a situation, which come first.
func lines(own []Line, first ...Line) []Line { return append(slices.Clone(first), own...) }

// error1 is an error body of the distribution spec as most registries write it.
func error1(code, message string) string {
	return `{"errors":[{"code":"` + code + `","message":"` + message + `"}]}`
}

func dockerHub() []Play {
	const service = "{aside}/token"
	tokens := elsewhere(service, says("", 200,
		`{"token":"{token}","access_token":"{token}","expires_in":300,"issued_at":"2026-11-23T12:00:00.000000000Z"}`))
	ask := says("anonymous", 401, hubUnauthorized, hubBearer)
	expired := says("stale", 401, hubUnauthorized, hubBearer+`,error="invalid_token"`)
	hub := []Line{tokens, ask, expired, image("token")}
	noScope := says("token", 401, hubUnauthorized, hubBearer+`,error="insufficient_scope"`)
	wrong := elsewhere(service, says("login", 401, `{"details":"incorrect username or password"}`))
	old := elsewhere(service, says("login", 401, `{"details":"personal access token is expired"}`))
	const source = "Docker-Ratelimit-Source: 192.0.2.1"
	play := func(situation, user string, get, expires bool, l []Line) Play {
		p := Play{Registry: "docker.io", Situation: situation, User: user, Get: get, Expires: expires, Lines: l}
		if user != "" {
			p.Password = "dckr_pat_0123456789"
		}
		return p
	}
	return []Play{
		play("public", "", false, false, hub),
		play("public, with a login", "ci-bot", false, false, hub),
		play("token expired", "", false, true, hub),
		play("token expired, with a login", "ci-bot", true, true, hub),
		play("private or missing", "", false, false, lines(hub, noScope)),
		play("private or missing, with a login", "ci-bot", false, false, lines(hub, noScope)),
		play("no such tag", "", true, false, lines(hub, says("token", 404,
			`{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":"unknown tag=1"}]}`))),
		play("wrong password, public", "ci-bot", false, false, lines(hub, wrong)),
		play("wrong password, private", "ci-bot", false, false, lines(hub, wrong, noScope)),
		play("access token expired, private", "ci-bot", false, false, lines(hub, old, noScope)),
		play("invalid name", "", false, false, lines(hub, elsewhere(service, says("", 400,
			`{"details":"invalid repository name"}`)))),
		play("pull limit", "", true, false, lines(hub, says("token", 429, error1("TOOMANYREQUESTS",
			"You have reached your unauthenticated pull rate limit. https://www.docker.com/increase-rate-limit"), source))),
		play("pull limit of a login", "ci-bot", true, false, lines(hub, says("token", 429, error1("TOOMANYREQUESTS",
			"You have reached your pull rate limit as 'ci-bot': dckr_jti_9Lg3-abcdefghijk=. You may increase the limit by "+
				"upgrading. https://www.docker.com/increase-rate-limit")))),
		play("pull limit, seen by HEAD", "", false, false, lines(hub, says("token", 429, "", source))),
		play("abuse limit", "", true, false, lines(hub, Line{As: "token", Status: 429, Raw: "HTTP/1.1 429 Too Many " +
			"Requests\nContent-Type: text/plain\nRetry-After: 60\nConnection: close\nContent-Length: 27\n\n" +
			"Too Many Requests (HAP429).\n"})),
	}
}

func ghcr() []Play {
	const service, denied = "{registry}/token", `{"errors":[{"code":"DENIED","message":"denied"}]}`
	bearer := `Www-Authenticate: Bearer realm="{registry}/token",service="ghcr.io",scope="repository:library/app:pull"`
	own := []Line{
		elsewhere(service, says("", 200, `{"token":"{token}"}`)),
		says("anonymous", 401, error1("UNAUTHORIZED", "authentication required"), bearer), image("token"),
	}
	noToken := func(as string, status int, body string) Line { return elsewhere(service, says(as, status, body)) }
	play := func(situation, password string, get bool, first ...Line) Play {
		p := Play{Registry: "ghcr.io", Situation: situation, Password: password, Get: get, Lines: lines(own, first...)}
		if password != "" {
			p.User = "ci-bot"
		}
		return p
	}
	return []Play{
		play("public", "", false),
		play("private or missing", "", false, noToken("", 403, denied)),
		play("private or missing, by 401", "", false, noToken("", 401,
			error1("DENIED", "requested access to the resource is denied"))),
		play("wrong or expired token, public", "ghp_0123456789", false, noToken("login", 403, denied)),
		play("wrong or expired token, private", "ghp_0123456789", false, noToken("", 403, denied)),
		play("no permission", "ghp_0123456789", false,
			says("token", 403, error1("DENIED", "permission_denied: read_package"))),
		play("no such tag", "", true, says("token", 404, error1("MANIFEST_UNKNOWN", "manifest unknown"))),
		play("limit", "", true, says("token", 429,
			error1("TOOMANYREQUESTS", "retry-after: 1.16676ms, allowed: 44000/minute"))),
	}
}

func quay() []Play {
	const service = "{registry}/v2/auth"
	no := `{"errors":[{"code":"UNAUTHORIZED","detail":{},"message":"access to the requested resource is not authorized"}]}`
	bearer := `Www-Authenticate: Bearer realm="{registry}/v2/auth",service="quay.io",scope="repository:library/app:pull"`
	own := []Line{
		elsewhere(service, says("", 200, `{"token":"{jwt}"}`)),
		says("anonymous", 401, no, bearer), says("stale", 401, no, bearer), image("token"),
	}
	play := func(situation, user string, get bool, first ...Line) Play {
		p := Play{Registry: "quay.io", Situation: situation, User: user, Get: get, Lines: lines(own, first...)}
		if user != "" {
			p.Password = "robot-password"
		}
		return p
	}
	wrong := elsewhere(service, says("login", 401,
		`{"errors":[{"code":"UNAUTHORIZED","detail":{},"message":"Invalid Username or Password"}]}`))
	expired := play("token expired", "", false)
	expired.Expires = true
	return []Play{
		play("public, a token that does not say how long", "", false), expired,
		play("private or missing", "", false, says("token", 401, no, bearer)),
		play("private or missing, with a login", "acme+bot", false, says("token", 401, no, bearer)),
		play("wrong password, public", "acme+bot", false, wrong),
		play("wrong password, private", "acme+bot", false, wrong, says("token", 401, no, bearer)),
		play("no such tag", "", true, says("token", 404,
			`{"errors":[{"code":"MANIFEST_UNKNOWN","detail":{},"message":"manifest unknown"}]}`)),
		play("tag expired", "", true, says("token", 404,
			`{"errors":[{"code":"TAG_EXPIRED","detail":{},"message":"Tag has expired"}]}`)),
		play("limit", "", true, text("token", 429, typeHTML, "<html>\r\n<head><title>429 Too Many Requests</title></head>"+
			"\r\n<body>\r\n<center><h1>429 Too Many Requests</h1></center>\r\n<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n")),
		play("limit of the token service", "", false, elsewhere(service, text("", 429, typeHTML,
			"<html>\r\n<head><title>429 Too Many Requests</title></head>\r\n<body>\r\n</body>\r\n</html>\r\n"))),
		play("namespace disabled", "", true, says("token", 405,
			error1("DENIED", "This namespace is disabled. Please contact your system administrator."))),
		play("outage", "", true, text("", 502, typeHTML, "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n"+
			"<body>\r\n<center><h1>502 Bad Gateway</h1></center>\r\n</body>\r\n</html>\r\n")),
	}
}

func kubernetes() []Play {
	const regional = "{aside}/v2/k8s-artifacts-prod/images/library/app/manifests/1"
	go307 := Line{Status: 307, Header: []string{"Location: " + regional}}
	at := func(l Line) []Line { return []Line{go307, elsewhere(regional, l)} }
	play := func(situation string, get bool, l []Line) Play {
		return Play{Registry: "registry.k8s.io", Situation: situation, Get: get, Lines: l}
	}
	return []Play{
		play("public, from another host", false, at(image(""))),
		play("no such tag", true, at(says("", 404, error1("MANIFEST_UNKNOWN", `Failed to fetch \"1\"`)))),
		{
			Registry: "registry.k8s.io", Situation: "a login that is not asked for", User: "ci-bot", Password: "password",
			Lines: at(image("")),
		},
	}
}

func google() []Play {
	const service = "{registry}/v2/token"
	const resource = `on resource \"projects/p/locations/europe/repositories/r\" (or it may not exist)`
	const permission = `\"artifactregistry.repositories.downloadArtifacts\"`
	stranger := error1("DENIED", "Unauthenticated request. Unauthenticated requests do not have permission "+permission+
		" "+resource)
	own := []Line{
		elsewhere(service, says("", 200, `{"token":"{token}"}`)),
		says("anonymous", 401, error1("UNAUTHORIZED", "authentication required"),
			`Www-Authenticate: Bearer realm="{registry}/v2/token",service="europe-docker.pkg.dev",`+
				`scope="repository:library/app:pull"`), image("token"),
	}
	play := func(registry, situation, user string, get bool, first ...Line) Play {
		p := Play{Registry: registry, Situation: situation, User: user, Get: get, Lines: lines(own, first...)}
		if user != "" {
			p.Password = "ya29.0123456789"
		}
		return p
	}
	const ar, login = "europe-docker.pkg.dev", "oauth2accesstoken"
	return []Play{
		play(ar, "public", "", false),
		play(ar, "private or missing", "", false, says("token", 403, stranger)),
		play(ar, "private or missing, by the token service", "", false, elsewhere(service, says("anonymous", 403, stranger))),
		play(ar, "no permission", login, false,
			says("token", 403, error1("DENIED", "Permission "+permission+" denied "+resource))),
		play(ar, "no such tag", "", true, says("token", 404, error1("MANIFEST_UNKNOWN", `Failed to fetch \"1\"`))),
		play(ar, "invalid name", "", true, says("token", 400, error1("NAME_INVALID", "Missing image name."))),
		play("gcr.io", "not migrated", "", true, says("token", 412, error1("UNKNOWN",
			"Container Registry is deprecated and shutting down, please use the auto migration tool"))),
	}
}
