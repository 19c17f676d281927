package symptom

import (
	"regexp"
	"slices"
	"strings"

	"github.com/registrymirror/mirror/diagnose"
)

// rule has the phrases that separate a reason from all others.
type rule struct {
	reason diagnose.Reason
	text   phrases
}

func of(r diagnose.Reason, alternatives ...string) rule {
	return rule{r, phrasesOf(alternatives...)}
}

// rules are tried in order, the most specific fact first: failures of the node, of the image, a server's own words, the
// network, and a status alone. The text is in lower case.
var rules = []rule{
	// The node's own side.
	of(diagnose.NodeDiskFull, `no space left on device`, `disk quota exceeded`, `not enough space on the disk`,
		`nicht gen.{1,6}gend speicherplatz|nicht genug speicherplatz`, `espace (disque )?insuffisant`, `磁盘空间不足`),
	of(diagnose.ClientGone, `code = canceled desc`, `context canceled["')\]]*$`),
	of(diagnose.PullQPS, `pull qps exceeded`),
	of(diagnose.CredentialSourceFailed, `docker-credential-\S+.*(not found|no such file|not installed|exited|exit status|err: )`, `credential provider plugin`,
		`error getting credentials - err`, `unable to retrieve credentials`, `getting username and password: `,
		`unable to retrieve ecr registry auth: .*(nocredential|accessdenied|no ec2 imds role)`),
	of(diagnose.NeverPull, `errimageneverpull`, `not present with pull policy of never`),
	of(diagnose.NameInvalid, `couldn't parse image (reference|name)`, `invalid reference format`, `could not parse reference`,
		`failed to parse (image )?reference`, `invalid repository name`, `invalid tag format`, `\bname_invalid\b`, `invalid image name`,
		`repository name \(?\S* ?must be (lowercase|canonical)`, `invalidimagename`, `short.name\S* .*(did not resolve|ambiguous)`, `returns ambiguous list`,
		`invalid checksum digest (length|format)`, `is not a valid repository/tag`, `repository can only contain`),
	of(diagnose.SignaturePolicy, `source image rejected`, `a signature was required`, `signaturevalidationfailed`,
		`none of the signatures were accepted`, `containers/policy\.json`, `is rejected by policy`, `no valid trust data`,
		`remote trust data does not exist`, `signature policy`, `image verification (failed|policy)`, `no matching signatures`,
		`no signatures found`, `not signed by`),
	of(diagnose.RuntimeDown, `dial unix \S*(containerd|crio|cri-?o|docker|podman|dockershim|\.sock)`, `cannot connect to the docker daemon`,
		`is the docker daemon running`, `open //\./pipe/`, `//\./pipe/\S+: the system cannot find`, `transport: error while dialing`,
		`all subconns are in transientfailure`, `code = unavailable desc = (connection error|transport)`,
		`connection error: desc = `, `docker_engine`, `unknown service runtime\.v1`, `validate service connection`, `cri v1 image api is not implemented`, `container runtime is (down|not running)`),

	// The image.
	of(diagnose.NotARegistry, `text/html`),
	of(diagnose.DigestMismatch, `unexpected commit digest`, `failed size validation`, `unexpected commit size`,
		`layer verification failed`, `digest did not match`, `manifest verification failed for digest`,
		`error verifying sha256 checksum`, `wrong diff id`, `does not match digest`, `layers from manifest don't match`,
		`digest mismatch`, `digest verification failed`, `mismatched? digest`, `\bdigest_invalid\b`),
	of(diagnose.UnsupportedImage, `schema ?1`, `manifest\.v1\+prettyjws`, `docker image format v1\b`,
		`unsupported (manifest )?media ?type`, `missing signature key`,
		`accept header does not support (oci|manifest list)`, `encountered unknown type`, `unknown (manifest )?(media ?type|mime ?type)`,
		`unsupported (manifest|image) (format|type|schema)`, `not a (valid )?(runnable )?(image|container image)`, `not implemented for image type`,
		`invalid mediatype`, `media ?type in \S+ should be`, `unrecognized (config|manifest)`, `could not fetch content descriptor`),
	of(diagnose.PlatformMissing, `no match for (current )?platform`, `no matching manifest for`,
		`no image found in (manifest list|image index) for`, `no child with platform`, `does not provide the specified platform`,
		`image operating system .* cannot be used on this platform`, `no matching platform`,
		`(image|manifest) .*(does not (support|contain|exist for)|doesn't (support|contain)) .*platform`, `platform \S+ (was )?not found`,
		`must be amd64/linux|support amd64/linux`),
	of(diagnose.UnpackFailed, `from content store: content digest`,
		`insufficient uids or gids`, `hcsshim::`, `failed to register layer: (rename|symlink|link|mkdir|lchown|open|lstat|operation|re-exec|applylayer|error processing tar|exit status|driver|failed to|invalid|devmapper|unlinkat|unexpected|lsetxattr|container)`,
		`failed to extract layer .*(no such file|not a directory|directory not empty|operation not permitted|permission denied|read-only|invalid argument|file exists|mount|link|lchown|input/output|cannot allocate|exit status|whiteout|structure needs cleaning|not supported)`,
		`failed to extract layer sha256:\S+: (mkparent|link|mount|failed to mount|unlinkat|lchown|open|apply|symlink|rename|mkdir|chmod|unpigz|gzip|archive|exit|failed to create|failed to convert)`,
		`error unpacking image`, `failed to lease content`, `\blease \S+ (not found|does not exist)`, `failed to prepare extraction`, `error creating overlay mount`, `failed to convert whiteout`, `failed to (create|stat|prepare|commit|mount) snapshot`,
		`snapshotter (not loaded|.*not (found|exist))`, `processing tar file`, `applylayer`, `adding layer with blob`,
		`read-only file system`, `archive/tar: `, `layer does not exist`, `failed to get filesystem from image`, `input/output error`,
		`failed to unpack image on snapshotter`, `unlinkat .*directory not empty`, `failed to mount .*tmpmounts`),

	// A server's own words.
	of(diagnose.AbuseLimited, `hap429`, `abuse rate limit`),
	of(diagnose.DataLimited, `data limit exceeded`),
	of(diagnose.RateLimited, `toomanyrequests`, `too many requests`, `pull rate limit`, `rate exceeded`, `rate limit (exceeded|reached)`,
		`status code from registry 429`, `status(_|=| code:? ?|: ?)429`, `\b429\b.*limit`),

	// TLS.
	of(diagnose.ClockSkew, `certificate has expired or is not yet valid: current time \S+ is before`, `certificatenotyetvalid`),
	of(diagnose.TLSExpired, `certificate has expired`, `certificate expired`, `certificateexpired`),
	of(diagnose.TLSWrongHost, `x509: certificate is (not )?valid for`, `x509: cannot validate certificate for`,
		`certificate relies on legacy common name`, `no (subject )?alternative (dns )?name`, `hostname.* doesn't match|doesn't match .*certificate`,
		`err_tls_cert_altname_invalid`),
	of(diagnose.TLSUntrusted, `certificate signed by unknown authority`, `certificate is not trusted`, `certificate is not standards compliant`,
		`pkix path building failed`, `unable to find valid certification path`, `certificate verify failed`, `self[- ]signed certificate`,
		`unable to get local issuer`, `unable to verify the first certificate`, `peer not authenticated`),
	of(diagnose.HTTPNotHTTPS, `server gave http response to https client`, `oversized record received`, `wrong version number`,
		`first record does not look like a tls handshake`, `unrecognized ssl message`),
	of(diagnose.HTTPSNotHTTP, `malformed http response "\\*x1[56]\\*x03`, `http request to an https server`, `plain http request was sent to https`),
	of(diagnose.TLSUntrusted, `x509: `, `failed to verify certificate`),
	of(diagnose.ProxyRefused, `proxyconnect tcp`, `connecting to proxy`, `invalid proxy (url|address)`, `proxy authentication required`, `socks connect`, `cannot connect to proxy`, `tunnel connection failed`,
		`unable to tunnel through proxy`, `proxy error`),

	// The network.
	of(diagnose.DNSNotFound, `no such host`, `name or service not known`, `enotfound`, `unknownhostexception`, `could not resolve host`,
		`name does not resolve`, `no address associated`, `host (ist )?unbekannt`, `kein solcher host bekannt`, `h.{1,2}te inconnu`,
		`nodename nor servname`, `requested name is valid, but no data`, `不知道这样的主机`, `host desconocido|host sconosciuto|host não é conhecido`, `そのようなホストは不明`, `알려진 호스트가 없`, `хост неизвестен`),
	of(diagnose.DNSFailed, `server misbehaving`, `temporary failure in name resolution`, `eai_again`,
		`\blookup [^ ]+( on [^ ]+)?: (read udp .*)?(i/o timeout|connection refused|timeout|operation was canceled)`, `\blookup .* (read|dial|write) (udp|tcp)`,
		`\blookup [^ ]+( on [^ ]+)?: .*(network is unreachable|no route|permission denied|context deadline|canceled)`,
		`temporary error during hostname resolution`, `zeitweiliger fehler bei der aufl`, `erreur temporaire qui se produit pendant la r`,
		`no dns servers|dns (server )?(timeout|failure)`, `socket: permission denied`, `\blookup \S+ on \S+: no answer`, `\blookup \S+: try again`),
	of(diagnose.TLSHandshake, `tls handshake timeout`, `remote error: tls`,
		`sslhandshakeexception`, `ssl_error|sslerror|ssl handshake`, `tls: `),
	of(diagnose.ConnectTimeout, `request canceled while waiting for connection`, `connect timed out`, `connecttimeout`, `etimedout`,
		`dial tcp \S+ connect: (connection|operation) timed out`, `dial tcp.* i/o timeout`, `connect: connection timed out`,
		`did not properly respond after a period`, `nach einer bestimmten zeitspanne nicht`, `au-del.{1,3} d.une certaine dur`, `n.a pas r.{1,3}pondu convenablement`,
		`连接方在一段时间后没有正确答复`, `連線對象有一段時間並未正確回應`, `respondi. adecuadamente tras un per`, `não respondeu corretamente`, `risposta non corretta della parte`, `一定の時間を過ぎても正しく応答しなかった`, `응답이 없어 연결하지 못했거나`, `не получен нужный отклик`, `dial tcp \S+ .*context deadline exceeded`),
	of(diagnose.Unreachable, `no route to host`, `network is unreachable`, `host is unreachable`, `ehostunreach|enetunreach`, `unreachable (network|host)`,
		`nicht erreichbar|nicht verf.{1,3}gbares netzwerk`, `impossible . atteindre|h.{1,2}te impossible|r.{1,2}seau impossible`,
		`cannot assign requested address`, `forbidden by its access permissions`, `connect: (permission denied|operation not permitted)`,
		`zugriffsrechte`, `autorisations d.acc`),
	of(diagnose.ConnectRefused, `actively refused`, `econnrefused`, `verbindung verweigert`,
		`ordinateur cible l.a express`, `connexion refus`, `计算机积极拒绝`, `電腦拒絕連線`, `deneg. expresamente`, `recusou ativamente`, `rifiuto persist`, `拒否されたため、接続できません`, `연결을 거부했으므로`, `отверг запрос`, `connection refused`),
	of(diagnose.ConnectionReset, `broken pipe`, `unexpected eof`, `": eof\b`, `: eof\W*$`, `/[^\s"]*"?: eof\b`, `\beof, rpc`,
		`use of closed network connection`, `http2: server sent goaway`, `forcibly closed by the remote host`, `econnreset|connection reset`,
		`vom remotehost geschlossen`, `ferm.{1,3}e par l.h.{1,3}te distant`, `远程主机强迫关闭`, `forzado la interrup`, `forçado o cancelamento`, `interrotta forzatamente`, `強制的に切断`, `강제로 끊겼`, `принудительно разорвал`, `遠端主機已強制關閉`, `connection was aborted|softwaregesteuert`, `connexion .{0,6}tablie a .{1,3}t.{1,3} abandonn`,
		`stream error: stream id`, `transport connection broken`, `server closed (idle )?connection`, `connection (was )?closed|connection lost`, `premature eof|premature end`,
		`socket hang up`, `short read`, `err.internal_error; received from peer`),
	of(diagnose.UpstreamTimeout, `timeout exceeded while awaiting headers`, `timeout awaiting response headers`,
		`context deadline exceeded`, `deadline_?exceeded`, `gateway time-?out\b`, `status code from registry 504`, `i/o timeout`, `timed out`, `client\.timeout`),

	// Logins and rights.
	of(diagnose.CredentialsExpired, `\bexpiredtoken`, `token (is|has|was) expired`, `token expired`,
		`(password|credential|secret)s? (has|have|is|are) expired`, `client secret keys .*expired`, `jwt .*expired`),
	of(diagnose.CredentialsRejected, `incorrect username or password`, `invalid user ?name/password`, `invalid username or password`, `wrong username or password`, `invalid (user )?credentials`,
		`bad credentials`, `authentication failed`, `http basic: access denied`, `user_id not found in jwt`, `token is (invalid|malformed)`, `invalid (bearer )?token`,
		`aadsts\d+`, `invalid_grant|invalid_client`, `bad username or password`, `failed to (fetch|obtain) oauth token: .*40[13]\b`, `password (is )?(wrong|invalid|incorrect)`),
	of(diagnose.CredentialsMissing, `no basic auth credentials`, `basic credential not found`, `please login to the red hat registry`, `no credentials (found|provided|available)`, `login (is )?required`,
		`anonymous (access|user|pull)s? (is |are )?(not|disabled|denied)`, `no pull secret`, `credentials (are )?required`),
	of(diagnose.UpstreamBlocked, `451 unavailable for legal`, `embargoed country`, `is not allowed access`, `aka\.ms/acr/firewall`, `due to configured policy`, `cannot be pulled`, `projectpolicyviolation`,
		`412 precondition failed|precondition failed`, `prevent(ed|s)? .*(vulnerab|pull)`, `blocked by|download (request )?(was )?(blocked|rejected)|has been blocked`, `not allowed .*\b(ip|network|country|region)\b`,
		`public network access is (disabled|not)`, `quarantine`),
	of(diagnose.NotFoundOrNoAccess, `pull access denied`, `repository does not exist or may require`, `requested access to the resource is denied`, `\(or it may not exist\)`, `insufficient_scope`,
		`does not exist or no pull access`, `failed to fetch anonymous token: .*40[13]\b`, `requesting bear(er)? token: .*40[13]\b`, `access to the requested resource is not authorized`,
		`\bdenied: denied\b`, `denied: access forbidden`, `\bdenied\W*$`, `unable to access the repository: .*verify that it exists`, `unauthorized to access repository`, `you may not have access to`,
		`token\S*scope=repository\S* (unexpected status code |response status code )?40[13]\b`, `exists? and (that )?you have|may not exist or`),
	of(diagnose.UpstreamForbidden, `insufficient scopes?`, `permission_denied`, `permission to read the image`, `accessdenied`, `access denied`, `not authorized to`,
		`denied: .*(permission|policy|not allowed|forbidden)`, `does not have (the )?(required )?(permission|access)`),
	of(diagnose.TokenServiceRefused, `failed to fetch (oauth|anonymous) token: .*4\d\d\b`),

	// Missing images.
	of(diagnose.DigestNotFound, `blob[ _]unknown`, `content at \S+/sha256:[0-9a-f]+ not found`, `@sha256:[0-9a-f]+\\?"?: not found`, `manifest for \S+@sha256:[0-9a-f]+ not found`, `blob upload unknown`),
	of(diagnose.RepositoryNotFound, `name[ _]unknown`, `repository name not known to registry`, `the repository with name .* does not exist`, `repository \S+ (was )?not found`, `repo(sitory)? not found`, `project \S+ not found`,
		`repository \S+ does not exist`),
	of(diagnose.TagNotFound, `manifest[ _]unknown`, `content at \S+/manifests/\S+ not found`, `tag \S+ (was )?not found`, `unknown tag`, `no such manifest`, `failed to resolve (reference|image|source metadata|ref|digest).*: not found`,
		`failed to resolve (reference|image).* 404 not found`, `manifests/[^\s"]+"?:? .*\b404\b`, `manifests/\S+ 404 not found`, `['"]?image['"]? \S*[/:]\S* (was )?not found`, `failed to resolve \S+: \S+/\S+: not found`, `^\W*(error: |.*failed: )?\S+/\S+:\S+: not found\W*$`,
		`\[manifests [^\]]+\]: 404`, `dockerimage\S* \S+ not found`, `image \S+ (does not|doesn't) exist`, `oci://\S+: not found`, `failed to solve: .*: not found`,
		`chart doesn't exist`, `no such image`, `manifest .*not found`, `tag .* (does not|doesn't) exist`, `image not found`, `image not known`, `could not find image`),

	of(diagnose.NotARegistry, `(pinging|ping attempt to) (container|docker) registry .*404`, `<!doctype html|<html`, `unexpected content[- ]type`,
		`invalid character .* looking for beginning of value`, `/v2/"?: .*404`, `is not a valid chart repository`),
}

// hides matches registries that answer 401 for a missing repository as for a private one.
var hides = regexp.MustCompile(`\b(docker\.io|quay\.io|ghcr\.io|gcr\.io|pkg\.dev|registry\.gitlab\.com|registry\.k8s\.io)\b`)

var (
	// engine is the status of Docker's own API, which is 500 whatever the registry answered.
	engine = regexp.MustCompile(`api error \(\d{3}\)|\(http code \d{3}\)|status \d{3}: \{|(?:client|server) error(?: for \S+)?: |\b(?:404 client|500 server|4\d\d client) error\b[^("']*|status code=\w+, response=|server error - |notfoundexception: status 404`)
	// answered is the status of a registry's answer, as a number.
	answered = regexp.MustCompile(`(?:status(?: code)?(?: from \S+ request to \S+| from registry| \[[^\]]*\])?[:= ]+|http status: |response |http |code |returned |error |cause: |token from \S+ |https?://\S+: |: )\(?([45]\d\d)\b`)
	spelled  = regexp.MustCompile(`(?:: |status: ?|; )(unauthorized|forbidden|not found|bad request|service unavailable|bad gateway|internal server error|too many requests|precondition failed|not acceptable|request entity too large)\W*$`)
	numbered = map[string]string{
		"unauthorized": "401", "forbidden": "403", "not found": "404", "bad request": "400", "service unavailable": "503",
		"bad gateway": "502", "internal server error": "500", "too many requests": "429", "precondition failed": "412",
		"not acceptable": "406", "request entity too large": "413",
	}
)

// classify returns the reason that a text gives for an image. Of several attempts in one text the one that came furthest counts.
func classify(text, image string) diagnose.Reason {
	text = strings.ToLower(text)
	best, worth := diagnose.Unknown, -1
	for _, attempt := range attempts(text) {
		r := classifyOne(attempt, image)
		if w := weight(r); w > worth {
			best, worth = r, w
		}
	}
	return best
}

// mirrorsFailed begins the list of the errors of mirrors in an error of Podman and CRI-O, in lower case.
const mirrorsFailed = "(mirrors also failed: "

// attempts are the errors of a list: the kubelet's, one for each of its logins, and those of tools that try several places.
func attempts(text string) []string {
	if strings.Contains(text, "errors occurred") {
		return strings.Split(text, " * ")
	}
	if strings.Contains(text, mirrorsFailed) {
		// The answer of the registry itself is at the end; it counts more than those of its mirrors.
		if from, to := strings.Index(text, mirrorsFailed), strings.LastIndex(text, "])"); to > from {
			return append([]string{text[:from] + text[to+len("])"):]}, strings.Split(text[from:to], "] [")...)
		}
	}
	if strings.Contains(text, "[rpc error: ") {
		return strings.Split(text, ", rpc error: ")
	}
	return []string{text}
}

// weight ranks attempts: a refusal may be due to a wrong login, and a runtime that is down did not look for the image at all.
func weight(r diagnose.Reason) int {
	switch c := r.Class(); {
	case r == diagnose.Unknown:
		return 0
	case r == diagnose.RuntimeDown, r == diagnose.UnpackFailed:
		return 1
	case c == diagnose.ClassAuth, c == diagnose.ClassUndecided:
		return 2
	}
	return 3
}

func classifyOne(text, image string) diagnose.Reason {
	i := slices.IndexFunc(rules, func(r rule) bool { return r.text.in(text) })
	switch {
	case i < 0:
		return byStatus(text, image)
	case rules[i].reason == diagnose.TagNotFound && strings.Contains(text, "/blobs/sha256:") && !strings.Contains(text, "/manifests/"):
		return diagnose.DigestNotFound
	}
	return rules[i].reason
}

// byStatus is the reason by the status of an answer, where no phrase gives one.
func byStatus(text, image string) diagnose.Reason {
	text = engine.ReplaceAllString(text, "")
	code := ""
	if m := answered.FindStringSubmatch(text); m != nil {
		code = m[1]
	} else if m := spelled.FindStringSubmatch(text); m != nil {
		code = numbered[m[1]]
	}
	hidden := hides.MatchString(text) || hides.MatchString(canonical(image)) && image != ""
	switch {
	case code == "401", has(text, "unauthorized", "authentication required", "authentication is required"):
		if hidden {
			return diagnose.NotFoundOrNoAccess
		}
		return diagnose.CredentialsMissing
	case code == "403", has(text, "denied: ", "not authorized"), code == "" && strings.Contains(text, "forbidden"):
		if hidden {
			return diagnose.NotFoundOrNoAccess
		}
		return diagnose.UpstreamForbidden
	case code == "404":
		return diagnose.TagNotFound
	case code == "412", code == "451":
		return diagnose.UpstreamBlocked
	case code == "407":
		return diagnose.ProxyRefused
	case code == "408", code == "504", code == "522", code == "524":
		return diagnose.UpstreamTimeout
	case code == "429":
		return diagnose.RateLimited
	case code == "525", code == "526":
		return diagnose.TLSHandshake
	case strings.HasPrefix(code, "5"), slices.Contains([]string{"400", "405", "406", "409", "410", "413", "415", "416"}, code),
		strings.Contains(text, "registryunavailable"):
		return diagnose.UpstreamError
	case has(text, "context canceled", "code = canceled", "operation was canceled"):
		return diagnose.ClientGone
	}
	return diagnose.Unknown
}
