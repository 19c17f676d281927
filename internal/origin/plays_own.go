package origin

func gitlab() []Play {
	const service = "{aside}/jwt/auth"
	own := []Line{
		elsewhere(service, says("", 200, `{"token":"{jwt}"}`)),
		says("anonymous", 401, error1("UNAUTHORIZED", "authentication required"), `Www-Authenticate: Bearer `+
			`realm="{aside}/jwt/auth",service="container_registry",scope="repository:library/app:pull"`), image("token"),
	}
	play := func(situation, user string, get bool, first ...Line) Play {
		p := Play{Registry: "registry.gitlab.com", Situation: situation, User: user, Get: get, Lines: lines(own, first...)}
		if user != "" {
			p.Password = "gldt-0123456789"
		}
		return p
	}
	no := error1("DENIED", "access forbidden")
	const user = "gitlab+deploy-token-1"
	return []Play{
		play("private", user, false),
		play("private or missing", "", false, elsewhere(service, says("", 403, no))),
		play("no permission", user, false, elsewhere(service, says("", 403, no))),
		play("wrong or expired login", user, false, elsewhere(service, says("login", 401, error1("UNAUTHORIZED", "HTTP "+
			"Basic: Access denied. If a password was provided for Git authentication, the password was incorrect or you're "+
			"required to use a token instead of a password. If a token was provided, it was either incorrect, expired, or "+
			"improperly scoped. See https://gitlab.com/help/topics/git/troubleshooting_git.md"))),
			elsewhere(service, says("", 403, no))),
		play("no such repository", user, true, says("token", 404, error1("NAME_UNKNOWN", "repository name not known to registry"))),
	}
}

func harbor() []Play {
	const service = "{registry}/service/token"
	no := `{"errors":[{"code":"UNAUTHORIZED","message":"unauthorized to access repository: library/app, action: pull: ` +
		`unauthorized to access repository: library/app, action: pull"}]}`
	own := []Line{
		elsewhere(service, says("", 200, `{"token":"{token}","access_token":"","expires_in":1800,"issued_at":"2026-11-23T12:00:00Z"}`)),
		says("anonymous", 401, no, `Www-Authenticate: Bearer realm="{registry}/service/token",service="harbor-registry",`+
			`scope="repository:library/app:pull"`),
		image("token"), says("", 401, no, `Www-Authenticate: Basic realm="harbor"`),
	}
	refused := says("token", 401, no, `Www-Authenticate: Basic realm="harbor"`)
	play := func(situation, user string, get bool, first ...Line) Play {
		p := Play{Registry: "harbor.example", Situation: situation, User: user, Get: get, Lines: lines(own, first...)}
		if user != "" {
			p.Password = "robot-secret"
		}
		return p
	}
	expired := play("token expired", "robot$mirror", false)
	expired.Expires = true
	return []Play{
		play("private", "robot$mirror", false), expired,
		play("private or missing", "", false, refused),
		play("no permission", "robot$mirror", false, refused),
		play("wrong password", "robot$mirror", false,
			elsewhere(service, says("login", 401, error1("UNAUTHORIZED", "unauthorized"))), refused),
		play("policy", "robot$mirror", true, says("token", 412, error1("PROJECTPOLICYVIOLATION", "current image with 4 "+
			"vulnerabilities cannot be pulled due to configured policy in 'Prevent images with vulnerability severity of "+
			"\\\"Critical\\\" or higher from running.'"))),
		play("limit of what it proxies", "robot$mirror", true, says("token", 429,
			error1("TOOMANYREQUESTS", "too many requests to upstream registry"))),
	}
}

func artifactory() []Play {
	no := error1("UNAUTHORIZED", "authentication required")
	own := []Line{
		elsewhere("{registry}/v2/token", says("", 200, `{"token":"{token}"}`)),
		says("anonymous", 401, no, `Www-Authenticate: Bearer realm="{registry}/v2/token",service="artifactory.example"`,
			`Www-Authenticate: Basic realm="Artifactory Realm"`), image("token"), image("login"),
	}
	play := func(situation, user string, get bool, first ...Line) Play {
		p := Play{Registry: "artifactory.example", Situation: situation, User: user, Get: get, Lines: lines(own, first...)}
		if user != "" {
			p.Password = "cmVmdGtuOjAx"
		}
		return p
	}
	return []Play{
		play("Bearer and Basic in two headers", "ci-bot", false),
		play("Basic and Bearer in one header", "ci-bot", false, says("anonymous", 401, no, `Www-Authenticate: Basic `+
			`realm="Artifactory Realm", Bearer realm="/v2/token",service="artifactory.example"`)),
		play("private, anonymous", "", false, elsewhere("{registry}/v2/token", says("", 401, no))),
		play("missing, or refused to it", "ci-bot", true, says("token", 404,
			`{"errors":[{"code":"MANIFEST_UNKNOWN","message":"The named manifest is not known to the registry.",`+
				`"detail":{"manifest":"library/app"}}]}`)),
		play("blocked by Xray", "ci-bot", true, says("token", 403, `{"errors":[{"status":403,"message":"Artifact download `+
			`request rejected: app/1/manifest.json was not downloaded due to the download blocking policy configured in Xray `+
			`for docker-remote."}]}`)),
	}
}

func nexus() []Play {
	play := func(situation string, l ...Line) Play {
		return Play{Registry: "nexus.example", Situation: situation, Get: true, Lines: l}
	}
	return []Play{
		play("missing, or refused to it", says("", 404, error1("MANIFEST_UNKNOWN", "manifest unknown"))),
		play("HTTP to its HTTPS port", text("", 400, typeHTML, "<html>\r\n<head><title>400 The plain HTTP request was sent to "+
			"HTTPS port</title></head>\r\n<body>\r\n<center><h1>400 Bad Request</h1></center>\r\n<center>The plain HTTP request "+
			"was sent to HTTPS port</center>\r\n<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n")),
		play("a realm with two ports", says("", 401, error1("UNAUTHORIZED", "access to the requested resource is not "+
			"authorized"), `Www-Authenticate: Bearer realm="{registry}:5002/v2/token",service="{registry}:5002/v2/token"`)),
	}
}

func distribution() []Play {
	const service = "{aside}/token"
	no := func(flaw string) []string {
		h := `Www-Authenticate: Bearer realm="{aside}/token",service="registry",scope="repository:library/app:pull"`
		if flaw != "" {
			h += `,error="` + flaw + `"`
		}
		return []string{h}
	}
	body := `{"errors":[{"code":"UNAUTHORIZED","message":"authentication required","detail":[{"Type":"repository",` +
		`"Class":"","Name":"library/app","Action":"pull"}]}]}` + "\n"
	own := []Line{
		elsewhere(service, says("", 200, `{"token":"{token}"}`)), says("anonymous", 401, body, no("")...),
		says("stale", 401, body, no("invalid_token")...), image("token"),
	}
	basic := says("", 401, body, `Www-Authenticate: Basic realm="registry"`)
	play := func(situation, user string, get bool, l []Line) Play {
		p := Play{Registry: "registry.example", Situation: situation, User: user, Get: get, Lines: l}
		if user != "" {
			p.Password = "htpasswd-password"
		}
		return p
	}
	expired := play("token expired", "ci-bot", false, own)
	expired.Expires = true
	return []Play{
		play("token", "ci-bot", false, own), expired,
		play("no permission", "ci-bot", false, lines(own, says("token", 401, body, no("insufficient_scope")...))),
		play("Basic", "ci-bot", false, []Line{image("login"), basic}),
		play("Basic, anonymous", "", false, []Line{basic}),
		play("Basic, wrong password", "ci-bot", false, []Line{basic}),
		play("no such repository", "", true, []Line{says("", 404, `{"errors":[{"code":"NAME_UNKNOWN","message":"repository `+
			`name not known to registry","detail":{"name":"library/app"}}]}`+"\n")}),
		// distribution looks for the tag before the repository: only its list of tags knows that there is none.
		play("no such repository, by its list", "", true, []Line{
			says("", 404, `{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":"unknown tag=1"}]}`+"\n"),
			elsewhere("{registry}/v2/library/app/tags/list", says("", 404, `{"errors":[{"code":"NAME_UNKNOWN","message":`+
				`"repository name not known to registry","detail":{"name":"library/app"}}]}`+"\n")),
		}),
		play("limit", "", true, []Line{says("", 429, error1("TOOMANYREQUESTS", "too many requests"))}),
		play("not available", "", true, []Line{says("", 503, error1("UNAVAILABLE", "service unavailable"))}),
		play("a proxy whose own upstream refuses", "", true, []Line{says("", 500,
			`{"errors":[{"code":"UNKNOWN","message":"unknown error","detail":{}}]}`+"\n")}),
	}
}
