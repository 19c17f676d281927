package origin

func publicECR() []Play {
	const service = "{registry}/token/"
	const invalid = `{"errors":[{"code":"DENIED","message":"Your Authorization Token is invalid."}]}`
	own := []Line{
		elsewhere(service, says("", 200, `{"token":"{token}"}`)),
		says("anonymous", 401, error1("DENIED", "Not Authorized"),
			`Www-Authenticate: Bearer realm="{registry}/token/",service="public.ecr.aws",scope="aws"`),
		says("stale", 400, invalid), says("login", 400, invalid), image("token"),
	}
	play := func(situation, user string, get bool, first ...Line) Play {
		p := Play{Registry: "public.ecr.aws", Situation: situation, User: user, Get: get, Lines: lines(own, first...)}
		if user != "" {
			p.Password = "login-password"
		}
		return p
	}
	byHead, byGet := play("token expired, by HEAD", "", false), play("token expired, by GET", "", true)
	byHead.Expires, byGet.Expires = true, true
	return []Play{
		play("public, scope aws", "", false), byHead, byGet,
		play("login expired, public", "AWS", false, elsewhere(service, says("login", 403, error1("DENIED",
			"Your authorization token has expired. Reauthenticate and try again.")))),
		play("no such repository", "", true, says("token", 404, error1("NAME_UNKNOWN",
			"The repository with name 'library/app' does not exist in the registry with id '123456789012'"))),
		play("limit", "", true, says("token", 429, limited)),
		play("data limit", "", true, says("token", 429, error1("TOOMANYREQUESTS", "Data limit exceeded"))),
	}
}

func privateECR() []Play {
	ask := text("anonymous", 401, typeText, "Not Authorized\n",
		`Www-Authenticate: Basic realm="{registry}/",service="ecr.amazonaws.com"`)
	play := func(situation, user string, get bool, first ...Line) Play {
		p := Play{
			Registry: "123456789012.dkr.ecr.eu-west-1.amazonaws.com", Situation: situation, User: user, Get: get,
			Lines: lines([]Line{ask, image("login")}, first...),
		}
		if user != "" {
			p.Password = "login-password"
		}
		return p
	}
	return []Play{
		play("private", "AWS", false),
		play("private, anonymous", "", false),
		play("login expired", "AWS", false, says("login", 403,
			error1("DENIED", "Your authorization token has expired. Reauthenticate and try again."))),
		play("login expired, in old words", "AWS", true, text("login", 403, typeText, "Your Authorization Token has "+
			"expired. Please run 'aws ecr get-login' to fetch a new one.")),
		play("no permission", "AWS", false, says("login", 403, error1("DENIED", "User: arn:aws:sts::123456789012:"+
			"assumed-role/mirror/i-0 is not authorized to perform: ecr:BatchGetImage on resource: arn:aws:ecr:eu-west-1:"+
			"123456789012:repository/library/app because no identity-based policy allows the ecr:BatchGetImage action"))),
		play("no such repository", "AWS", true, says("login", 404, error1("NAME_UNKNOWN",
			"The repository with name 'library/app' does not exist in the registry with id '123456789012'"))),
		play("no such tag", "AWS", true, says("login", 404, error1("MANIFEST_UNKNOWN", "Requested image not found"))),
		play("limit", "AWS", true, says("login", 429, limited)),
	}
}

func azure() []Play {
	const service = "{registry}/oauth2/token"
	no := error1("UNAUTHORIZED", "authentication required")
	own := []Line{
		elsewhere(service, says("", 200, `{"access_token":"{token}"}`)),
		says("anonymous", 401, no, `Www-Authenticate: Bearer realm="{registry}/oauth2/token",service="acme.azurecr.io",`+
			`scope="repository:library/app:pull"`), image("token"),
	}
	play := func(situation, user string, get bool, first ...Line) Play {
		p := Play{Registry: "acme.azurecr.io", Situation: situation, User: user, Get: get, Lines: lines(own, first...)}
		if user != "" {
			p.Password = "refresh-token"
		}
		return p
	}
	const user = "00000000-0000-0000-0000-000000000000"
	return []Play{
		play("private, token under access_token", user, false),
		play("private, anonymous", "", false, elsewhere(service, says("anonymous", 401, no))),
		play("wrong login", user, false, elsewhere(service, says("", 401, no))),
		play("no such tag", user, true, says("token", 404,
			`{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest tagged by \"1\" is not found","detail":{"Tag":"1"}}]}`)),
		play("limit", user, true, says("token", 429, error1("TOOMANYREQUESTS",
			"Too many requests. Please visit https://aka.ms/acr/skus for limits."))),
		play("firewall", user, false, says("", 403, error1("DENIED", "client with IP '192.0.2.1' is not allowed access. "+
			"Refer https://aka.ms/acr/firewall to grant access."))),
	}
}

func microsoft() []Play {
	return []Play{
		{Registry: "mcr.microsoft.com", Situation: "public", Lines: []Line{image("")}},
		{
			Registry: "mcr.microsoft.com", Situation: "no such tag", Get: true, Lines: []Line{says("", 404,
				`{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest tagged by \"1\" is not found","detail":{"Tag":"1"}}]}`)},
		},
		{
			Registry: "mcr.microsoft.com", Situation: "limit", Get: true, Lines: []Line{text("", 429, typeText,
				"Ref A: 0123456789ABCDEF0123456789ABCDEF Ref B: AMS231020512049 Ref C: 2026-11-23T12:00:00Z")},
		},
	}
}

func redHat() []Play {
	login := error1("UNAUTHORIZED", "Please login to the Red Hat Registry using your Customer Portal credentials. Further "+
		"instructions can be found here: https://access.redhat.com/RegistryAuthentication")
	const service = "{aside}/auth/realms/rhcc/protocol/redhat-docker-v2/auth"
	own := []Line{
		elsewhere(service, says("", 401, login)),
		says("anonymous", 401, login, `Www-Authenticate: Bearer realm="`+service+`",service="docker-registry"`),
	}
	return []Play{
		{Registry: "registry.redhat.io", Situation: "anonymous", Lines: own},
		{
			Registry: "registry.redhat.io", Situation: "wrong password", User: "ci-bot", Password: "login-password",
			Lines: own,
		},
	}
}

func nvidia() []Play {
	const service, denied = "{registry}/proxy_auth", `{"errors": [{"code": "DENIED", "message": "Access Denied"}]}`
	bearer := `Www-Authenticate: Bearer realm="{registry}/proxy_auth",scope="repository:library/app:pull"`
	page := "<html>\r\n<head><title>401 Authorization Required</title></head>\r\n<body>\r\n<center><h1>401 Authorization " +
		"Required</h1></center>\r\n<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n"
	own := []Line{
		elsewhere(service, says("", 200, `{"token":"{token}"}`)),
		text("anonymous", 401, typeHTML, page, bearer), image("token"),
	}
	play := func(situation, user string, first ...Line) Play {
		p := Play{Registry: "nvcr.io", Situation: situation, User: user, Lines: lines(own, first...)}
		if user != "" {
			p.Password = "nvapi-0123456789"
		}
		return p
	}
	return []Play{
		play("public, no service in the challenge", ""),
		play("with a login", "$oauthtoken"),
		play("gated", "", elsewhere(service, says("", 403, denied))),
		play("wrong login", "$oauthtoken", elsewhere(service, text("", 401, typeHTML, page))),
		play("no permission", "$oauthtoken", says("token", 403, denied)),
	}
}
