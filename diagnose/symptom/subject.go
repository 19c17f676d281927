package symptom

import (
	"cmp"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/registrymirror/mirror/diagnose"
	"github.com/registrymirror/mirror/oci"
)

var (
	images = []*regexp.Regexp{
		regexp.MustCompile(`(?i)(?:failed to pull image|pull and unpack image|pulling image|back-off pulling image|default image tag|container image|sandbox image|image name|image reference|inspect (?:remote )?image|fetch image|pullimage|failed to pull|unable to pull|can't get docker image|could not pull image|read the image,?) (?:from \S+ )?\\*["'` + "`" + `]([^"'` + "`" + `\\\s]+)`),
		regexp.MustCompile(`(?i)(?:resolve reference|resolve image|image=|image pull failed for|getting image|docker image) ?\\*"([^"\\\s]+)\\*"`),
		regexp.MustCompile(`(?i)\(mirrors also failed: .*\]\): ([a-z0-9][^\s"]*/[^\s"]*\w): `),
		regexp.MustCompile(`(?:docker|oci)://([^\s:'"]+(?::\d+/[^\s:'"]+)?(?::[\w.*-]+)?(?:@sha256:[0-9a-f]+)?)`),
		regexp.MustCompile(`(?i)failed to resolve source metadata for ([^\s"]+): `),
		regexp.MustCompile(`(?i)(?:load metadata for|\bref|artifact tag for|FROM) ((?:[a-z0-9-]+\.)[^\s"',]+[\w])`),
		regexp.MustCompile(`(?i)failed to solve: ([a-z0-9][^\s"]*[/:][^\s":]*[\w]): `),
		regexp.MustCompile(`(?i)(?:manifest|trust data) for (\S+) not found`),
		regexp.MustCompile(`(?i)(?:pull access denied for|unauthorized for|tried to \w+(?: [a-z ]{1,30})? for) ([^\s,]*[/.:][^\s,]*\w|[\w-]+,)`),
		regexp.MustCompile(`(?i)(?:source )?image ['"]?([^\s"']+[/:][^\s"']*)['"]? (?:was )?(?:not found|does not exist|could not be accessed|is not accessible|in container group)`),
		regexp.MustCompile(`(?i)failed to pull image (?:from \S+ )?([a-z0-9][^\s"':,]*(?:/[^\s"':,]+)*(?::[\w.-]+)?(?:@sha256:[0-9a-f]+)?)(?:[:,.]? |[:.]?$)`),
		regexp.MustCompile(`(?i)(?:(?:unable to pull|error pulling|pulling|could not pull|failed pulling|runtime|base) (?:image|container)|read the image,|internal error occurred:|invalid value:) "?([a-z0-9][^\s"]*[/:][^\s"]*\w)"?[:.,]? `),
		regexp.MustCompile(`(?i)dockerimage\S* "([^"\s]+)" not found`),
		regexp.MustCompile(`(?i)error (?:while )?pulling (?:image|candidate|container)? ?['"]?([a-z0-9][^\s"'(]*[/:][^\s"'(:]*[\w])`),
		regexp.MustCompile(`(?i)(?:for|the) image ['"]?([a-z0-9][^\s"']*/[^\s"':]*(?::[\w.-]+)?)['"]?:? `),
		regexp.MustCompile(`(?i)short-name "?([^\s"]+)"? did not resolve`),
		regexp.MustCompile(`(?i)image(?: name)?[=:] ?['"]?([a-z0-9][^\s"',]*/[^\s"',]*[\w])`),
		regexp.MustCompile(`(?i)failed to resolve \S+: (\S+/\S+\w): not found`),
		regexp.MustCompile(`(?i)(?:^|[\s"'])([a-z0-9-]+(?:\.[a-z0-9-]+)+(?::\d+)?/[^\s":]+:[\w.-]+): not found`),
		regexp.MustCompile(`(?i)^(?:error: |fata\S* |ctr: )?([a-z0-9-]+(?:\.[a-z0-9-]+)+(?::\d+)?/[^\s":]+:[\w.-]+): `),
	}
	arn        = regexp.MustCompile(`arn:aws[\w-]*:ecr:([\w-]+):(\d+):repository/([\w./-]*\w)`)
	repository = regexp.MustCompile(`(?i)\brepository(?: with name|:)? ['"]?([a-z0-9][\w./-]*\w)['"]?(?:,| not found| does not exist| in registry|:)`)
	pulled     = regexp.MustCompile(`(?i)pull(?:ing)? (?:image )?([a-z0-9][^\s"':]*(?::\d+/[^\s"':]+)?:[\w.-]*\w):? `)
	manifest   = regexp.MustCompile(`(?i)reading manifest (\S+) in ([^\s:]+(?::\d+/[^\s:]+)?)`)
	// requested is the URL of a registry's manifest, blob or list.
	requested = regexp.MustCompile(`(?i)(?:(https?)://|\b(?:get|head) \\*"?)([\w.*-]+(?::\d+)?)/v2/([^\s"?]+?)/(manifests|blobs|tags)/(sha256:[0-9a-f]+|[^\s"?\\:]*[\w*])(?:\?(?:[^\s"]*&)?ns=([^\s"&:]+(?::\d+)?))?(?:["\\:?,;) ]|$)`)
	scoped    = regexp.MustCompile(`(?i)https?://([\w.-]+(?::\d+)?)/[^\s"]*scope=repository(?:%3A|:|%!A\(MISSING\))([^\s"&]+?)(?:%3A|:|%!A\(MISSING\))pull`)
	granted   = regexp.MustCompile(`(?i)\[?map\[Action:pull Class:\S* Name: ?(\S+) Type: ?repository`)
	service   = regexp.MustCompile(`[?&]service=((?:[a-z0-9-]+\.)+[a-z0-9-]+)(?:[:&"%\s]|$)`)
	anyURL    = regexp.MustCompile(`(?i)https?://(?:[^/\s"@]*@)?([\w.-]+(?::\d+)?|\[[0-9a-f:]+\](?::\d+)?)(?:/|\b)`)
	lookedUp  = regexp.MustCompile(`(?i)\blookup ([\w.-]+)(?: on |:| )`)
	// proxied matches an error about the client's proxy, and misnamed one about a proxy address that begins with two schemes.
	proxied  = regexp.MustCompile(`(?i)\bproxyconnect tcp\b|\b(?:connecting|connect) to (?:the )?proxy\b`)
	misnamed = regexp.MustCompile(`(?i)(?:proxyconnect tcp|connect(?:ing)? to (?:the )?proxy)\b.*\blookup (?:https?|socks5h?|tcp)(?:[:/ ]|$)|(?:proxyconnect tcp|to (?:the )?proxy)\b.*invalid domain name`)
	// ambiguous matches the error that a short name fits several registries.
	ambiguous = regexp.MustCompile(`(?i)\bimage name \\*"?([^\s"\\]+)\\*"? returns ambiguous list`)
	pinged    = regexp.MustCompile(`(?i)(?:container|docker) registry ([\w.-]+(?::\d+)?)|pulling from host ([\w.-]+(?::\d+)?)`)

	// mentions match lines near a failure that name the image.
	mentions = []*regexp.Regexp{
		regexp.MustCompile(`(?i)(?:^|[\s/$#>'"(=])(?:docker|podman|nerdctl|crictl|skopeo|crane|singularity|apptainer|buildah|helm|oras|ctr)(?:\.exe)?(?: -\S+(?: \S+)?)* (?:image |images |i |c )?(?:pull|copy|fetch) (?:-\S+ )*([\w][^\s"']*[\w])`),
		regexp.MustCompile(`(?i)^(?:[\w.-]+: )?(?:Trying to pull|Pulling (?:docker )?image:?|Using Docker executor with image|Retrieving image manifest|Pulling repository|Downloading image|Pull down action image|Start image=|pulling image) ?['"]?([\w][^\s"']*[\w])`),
		regexp.MustCompile(`(?i)Retrieving image (\S+) from registry`),
		regexp.MustCompile(`(?i)unable to find image ['"]([^'"\s]+)['"] locally`),
		regexp.MustCompile(`(?i)^(?:Step \d+/\d+ : |STEP \d+(?:/\d+)?: )?FROM (?:--\S+ )*([\w][^\s]*[\w])`),
		regexp.MustCompile(`^(?:- )?(?:image|Image): +"?([\w][^\s"]*[\w])"?$`),
		regexp.MustCompile(`(?i)\[internal\] load metadata for (\S+[\w])`),
	}
	pulling = regexp.MustCompile(`^([\w.-]+): Pulling from ([\w./:-]+)$`)
	begins  = regexp.MustCompile(`(?i)\bpull\b|: Pulling from |trying to pull|unable to find image|pulling`)
	chart   = regexp.MustCompile(`--version[ =](\S+)`)
)

// subject is the image that a text names, and the host at which the pull failed. Empty: the text names none.
type subject struct {
	image, host string
	beside      bool // the image is that of a line above
	relative    bool // the image is named without its registry, and that is not known
}

// subjectOf reads image and host out of a message.
func subjectOf(text string) (s subject) {
	if m := ambiguous.FindStringSubmatch(text); m != nil {
		return subject{image: m[1], relative: true} // of no registry
	}
	s.image = imageOf(text)
	if u := requestedFrom(text); s.image == "" || better(u, s.image) {
		s.image = cmp.Or(u, scopedTo(text))
	}
	if m := arn.FindStringSubmatch(text); s.image == "" && m != nil {
		s.image = m[2] + ".dkr.ecr." + m[1] + ".amazonaws.com/" + m[3]
	}
	if m := repository.FindStringSubmatch(text); s.image == "" && m != nil {
		s.image, s.relative = m[1], true
		if s.host = hostOf(text, ""); s.host != "" {
			s.image, s.relative = hub(s.host)+"/"+s.image, false
		}
		return s
	}
	s.host = hostOf(text, s.image)
	return s
}

// better reports whether a URL names an image more fully: the same repository by its host.
func better(fromURL, image string) bool {
	if fromURL == "" || strings.Contains(image, "*") {
		return false
	}
	first, _, found := strings.Cut(image, "/")
	if found && (strings.ContainsAny(first, ".:") || first == "localhost") {
		return false
	}
	repo, _ := split(image)
	full, _ := split(fromURL)
	return strings.HasSuffix(full, "/"+repo) && !strings.HasPrefix(full, "docker.io/")
}

// split cuts an image into its repository, and the tag or digest with its separator.
func split(image string) (repo, rest string) {
	end := len(image)
	if i := strings.IndexByte(image, '@'); i >= 0 {
		end = i
	}
	if i := strings.LastIndexByte(image[:end], ':'); i > strings.LastIndexByte(image[:end], '/') {
		end = i
	}
	return image[:end], image[end:]
}

// verbatim is the number of expressions in images, from the first, that find a name between quotes: it is not trimmed.
const verbatim = 2

func imageOf(text string) string {
	for i, re := range images {
		m := re.FindStringSubmatch(text)
		if m == nil {
			continue
		}
		image := m[1]
		if i >= verbatim {
			image = strings.TrimRight(image, `:.,;)'"`)
		}
		if image == "" || strings.HasPrefix(image, "sha256:") {
			continue
		}
		if m := pulled.FindStringSubmatch(text); m != nil && strings.HasPrefix(m[1], image+":") {
			return m[1] // the same with its tag
		}
		return image
	}
	if m := manifest.FindStringSubmatch(text); m != nil {
		if strings.HasPrefix(m[1], "sha256:") {
			return m[2] + "@" + m[1]
		}
		return m[2] + ":" + m[1]
	}
	return ""
}

// requestedFrom is the image of a URL below /v2/.
func requestedFrom(text string) string {
	m := requested.FindStringSubmatch(text)
	if m == nil {
		return ""
	}
	host, name, kind, reference, ns := m[2], m[3], m[4], m[5], m[6]
	if ns != "" {
		host = ns
	}
	if first, rest, found := strings.Cut(name, "/"); found && ns == "" && strings.ContainsAny(first, ".:") {
		host, name = first, rest // a request to a mirror
	}
	name = hub(host) + "/" + name
	switch {
	case kind != "manifests":
		return name
	case strings.HasPrefix(reference, "sha256:"):
		return name + "@" + reference
	}
	return name + ":" + reference
}

// scopedTo is the repository of a token request.
func scopedTo(text string) string {
	if m := scoped.FindStringSubmatch(text); m != nil {
		name := strings.ReplaceAll(m[2], "%!F(MISSING)", "/")
		if n, err := url.PathUnescape(name); err == nil {
			name = n
		}
		return issuer(m[1], text) + "/" + name
	}
	if m := granted.FindStringSubmatch(text); m != nil {
		host := "docker.io"
		if u := anyURL.FindStringSubmatch(text); u != nil {
			host = hub(u[1])
		}
		return host + "/" + m[1]
	}
	return ""
}

// issuer is the registry of a token service, which may be at another host: the service's name often is the registry's.
func issuer(host, text string) string {
	if m := service.FindStringSubmatch(text); m != nil && hub(host) != "docker.io" {
		return strings.ToLower(m[1])
	}
	if host == "gitlab.com" {
		return "registry.gitlab.com"
	}
	return hub(host)
}

// hub is the registry that a host belongs to.
func hub(host string) string {
	host = strings.ToLower(host)
	if slices.Contains([]string{"registry-1.docker.io", "index.docker.io", "auth.docker.io", "registry.hub.docker.com", "www.docker.io"}, host) {
		return "docker.io"
	}
	return host
}

// hostOf is the host at which a pull failed: that of the last request in the text, else the image's registry.
func hostOf(text, image string) string {
	last, at := "", -1
	if m := proxied.FindStringIndex(text); m != nil {
		text = text[:m[0]] // the rest is about the proxy
	}
	for _, re := range []*regexp.Regexp{anyURL, lookedUp} {
		all := re.FindAllStringSubmatchIndex(text, 16)
		for _, m := range slices.Backward(all) {
			host := strings.ToLower(text[m[2]:m[3]])
			if m[0] > at && !documented(host, text[m[0]:]) {
				last, at = host, m[0]
				break
			}
		}
	}
	if last == "" {
		if m := pinged.FindStringSubmatch(text); m != nil {
			last = m[1] + m[2]
		}
	}
	if last == "" && image != "" {
		if first, _, found := strings.Cut(image, "/"); found && (strings.ContainsAny(first, ".:") || first == "localhost") {
			return strings.ToLower(first)
		}
		if ref, err := oci.ParseRef(image); err == nil {
			return ref.Host
		}
	}
	return last
}

// documented reports whether a URL is a link to a document, not a request.
func documented(host, link string) bool {
	return slices.Contains([]string{"github.com", "access.redhat.com", "cloud.google.com"}, host) ||
		slices.ContainsFunc([]string{"docs.", "www.", "cwiki.", "aka.ms", "kubernetes.io"}, func(p string) bool { return strings.HasPrefix(host, p) }) ||
		strings.Contains(link[:min(len(link), 120)], "/docs/")
}

// mention is the image that a line near a failure names.
func mention(text string) string {
	if m := pulling.FindStringSubmatch(text); m != nil {
		return m[2] + ":" + m[1]
	}
	for _, re := range mentions {
		if m := re.FindStringSubmatch(text); m != nil {
			image := strings.TrimRight(strings.TrimPrefix(strings.TrimPrefix(m[1], "docker://"), "oci://"), ".")
			if v := chart.FindStringSubmatch(text); v != nil && strings.Contains(m[1], "oci://") {
				image += ":" + v[1]
			}
			if strings.HasPrefix(image, "-") || image == "AS" || strings.Contains(image, "://") {
				return ""
			}
			return image
		}
	}
	return ""
}

// canonical is an image as the mirror writes it, so that one image with two names is one. An invalid name stays.
func canonical(image string) string {
	ref, err := oci.ParseRef(image)
	if err != nil {
		return diagnose.Clean(image)
	}
	if ref.Digest != "" {
		ref.Tag = ""
	}
	return ref.String()
}

// shown is an image with its registry, and without a tag that the text does not have.
func shown(image string) string {
	c := canonical(image)
	if _, rest := split(image); rest == "" {
		return strings.TrimSuffix(c, ":latest")
	}
	return c
}
