package symptom

import (
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"
)

// pullWords has each line about a pull one of. Most lines of a log have none, and are not read any further.
var pullWords = []string{
	"pull", "image", "registry", "manifest", "/v2/", "/v1/", "oci", "blob", "layer", "docker", "sandbox", "sha256",
	"unauthorized", "toomanyrequests", "resolve", "fetch", "copy", "copier", "token", "ctr:", "artifact", "chart", "denied", "verification",
	"wrong diff id",
}

// mayConcern reports whether a text may be about a pull.
func mayConcern(text string) bool { return has(strings.ToLower(text), pullWords...) }

// gate matches the lines about a failed pull, in lower case: the phrases with which each tool reports one.
var gate = phrasesOf(
	// the kubelet:
	`failed to pull (and unpack )?(the )?(image|artifact)`, `pullimage.* failed`,
	`\berrimagepull\b`, `\bimagepullbackoff\b`, `invalidimagename`, `errimageneverpull`, `imageinspecterror`,
	`image pull failed`, `registryunavailable`, `signaturevalidationfailed`, `trying and failing to pull image`, `image can't be pulled`,
	`failed to inspect (sandbox )?image`, `failed to get sandbox image`, `failed to apply default image tag`,
	`couldn't parse image (reference|name)`, `with pull policy of never`, `back-off pulling image`, `pull qps exceeded`, `\bpulling image: .*: `,
	`external registry credential provider`, `error unpacking image`, `(error|fail).*credential provider plugin`,
	// containerd:
	`failed to resolve (reference|image|source metadata|ref|digest|bundle)\b`, `failed to copy: `, `httpread(er)?seeker`,
	`failed to unpack image`, `failed to extract layer`, `failed to get converter`,
	`failed to fetch (oauth|anonymous) token`, `failed to authorize: `, `pulling from host \S+ failed`,
	`failed commit on ref "?(layer|manifest|config|index)-`, `failed to do request: "?(head|get|post)\b`,
	`unexpected status (code )?from (get|head|post) request`, `failed to prepare extraction`, `failed to convert whiteout`,
	`failed to stat snapshot`, `no match(ing)? (manifest|for) .*(manifest|platform)`, `unexpected status code \[manifests `,
	`error creating overlay mount`, `pull access denied`, `unexpected status code https?://\S+/v2/`,
	`unexpected commit (digest|size)`, `failed to lease content`, `(?:ctr|fata\S*|error response from daemon): .*\blease \S+ not found`,
	`content at \S+/(manifests|blobs)/\S+ not found`,
	// Podman, CRI-O, Buildah, Skopeo:
	`initializing source (docker|oci)`, `reading manifest \S+ in `, `(pinging|ping attempt to) (container|docker) registry`,
	`(determining|error determining) manifest`, `choosing an? image`, `trying to reuse blob`,
	`copying (system )?images?\b.*: `, `unable to copy from source`, `(storing|writing|fetching|reading) blob\b.*: `,
	`parsing image configuration`, `source image rejected`, `unable to retrieve auth token`,
	`requesting bear(er)? token`, `short-name \S+ did not resolve`, `no image found in (manifest list|image index)`,
	`a signature was required`, `containers/policy\.json: `, `creating build container: `, `unable to pull`,
	`error pulling (image|candidate)`, `error copying (image|docker)`, `setting up to read manifest`, `rejected by policy`,
	`insufficient uids or gids`, `returns ambiguous list`, `short-name resolution enforced`, `media ?type in \S+ should be '`,
	// Docker:
	`error response from daemon: "?(get "?https?://|head "?(https?://)?|manifest |pull access|error parsing|toomanyrequests|received unexpected|no matching manifest|unauthorized|denied|error pulling|errors:|missing signature|unknown: |failed to)`,
	`manifest for \S+ not found`, `manifest unknown`, `manifest_unknown`, `toomanyrequests: `, `error (while )?pulling image`,
	`not continuing with pull`, `failed to register layer`, `/images/create.*(error|refused|denied|cannot|no such|permission|pipe|timeout|eof)`, `layers from manifest don't match`,
	`missing signature key`, `cannot be used on this platform`, `no matching manifest`, `received unexpected http status`,
	`error parsing http \d+ response body`, `layer verification failed`, `requested access to the resource is denied`,
	`(could not|couldn't|cannot|can't|unable to|failed to|error) pull(ing)? (the )?(docker |container |base |remote |bundle |kicbase |action )?(image|container|chart|artifact)`,
	`error pulling \S+/\S+`, `fail(ed|ure) to pull [`+"`"+`'"]?\S*[/:]`, `trying to pull repository`, `pull(ing)? (of )?(docker )?image .*failed`,
	`docker pull (returned|failed)`, `layer does not exist`, `docker api responded with status code`,
	`unauthorized: authentication required`, `denied: requested access`, `wrong diff id`, `docker-credential-\S+\W.*(not found|no such file|exited|exit status|fail|denied)`, `error getting credentials - err`,
	`error processing tar file`, `open //\./pipe/docker\S*`, `no valid trust data`, `remote trust data`,
	`could not be accessed on a registry`, `failed to get token from \S+ \(?[45]\d\d\b`, `error from registry`, `invalid reference format`,
	// builders:
	`failed to solve: .*(: not found|oauth|token|denied|unauthorized|pull|dial tcp|status)`, `error building image: `,
	`failed to create llb definition: .*(not found|token|denied|unauthorized|dial|status)`,
	`build (image|to docker daemon|to registry) failed`, `\bunauthorized for \S+/\S+`,
	`tried to (get|pull|fetch) .*failed because`, `(fetching|looking up|retrieving) (remote )?(base|builder|run|stack)( build)? image\b.*: `,
	`failed to (fetch|inspect) (remote |base |builder |run )?image`, `failed to get filesystem from image`,
	`image (manifest|config).*(unauthorized|not found|denied)`, `getting image manifest: `,
	`cannot find image|could not find image \S+ in`, `unable to find the specified image`, `while making image from oci`,
	`failed to get checksum for docker`, `conveyor failed`, `containerfetchexception`, `can't get docker image`,
	`registryunauthorizedexception`, `(fail|error|unable|could not).*pull base image`,
	// Helm, ORAS, Flux, Argo CD:
	`(could not|failed to|unable to) (download|get|fetch|pull|resolve|locate)\S* ['"]?oci://`, `chart pull error`,
	`failed to determine (the )?artifact`, `failed to (pull|download|fetch) (the )?(artifact|chart|remote chart)`,
	`failed to perform "\w+" on (source|destination)`, `could not download oci`, `error response from registry`,
	`basic credential not found`, `failed to list tags`, `failed to resolve \S+: \S+/\S+: not found`, `cannot get digest for revision`, `[a-z0-9-]+(\.[a-z0-9-]+)+(:\d+)?/\S+:[\w.-]+: not found`,
	`oci://\S+: not found`,
	// clouds:
	`cannotpull\w*error`, `cannotpull(container|image|ecr)`, `retrieve ecr registry auth`, `imagepullfailure`,
	`inaccessibleimage`, `registryerrorresponse`, `image '[^']+' (was )?not found`, `image \S*[/:]\S* (was )?not found`, `cannot be pulled`, `permission to read the image`,
	`is not accessible\. please check the image`, `(translating|convert\w*) taskspec to pod`, `unable to fe(tc|ct?)h image`,
	`source image \S+ does not exist`, `access the ecr image`,
	`unable_to_pull`, `failed to pull your application image`, `you may not have access to the (container|docker) image`,
	`dockerimage\S* "[^"]+" not found`, `importfailed`, `import failed( \(|:)`,
	`not able to pull image|image pull (error|failure)`, `taskrunimagepullfailed`, `template\.containers\.\S+\.image\S* is invalid`,
	`the image \S+ (does not|doesn't) exist`, `no such manifest: `, `pull image (operation|manifest) `,
)

// requests matches a request to a registry or its token service, followed by an error. Writes are pushes.
var requests = regexp.MustCompile(`\b(?:get|head|post|options) \\*"?(?:https?://)?[^\s"/]+/(?:v2/\\*"?:|v2/[^\s"]*/(?:manifests|blobs|tags)/[^\s"]*?\\*"?:|v2/[^\s"]*token[^\s"]*?\\*"?:|` +
	`v1/(?:repositories|_ping)[^\s"]*?\\*"?:|[^\s"]*(?:token|auth)[^\s"]*scope=repository[^\s"]*?\\*"?:|(?:oauth2/|service/|jwt/|v2/)?(?:token|auth)\b[^\s"]*\\*"?:)|https?://[^\s"/]+/v2/[^\s"]+/(?:manifests|blobs|tags)/[^\s"]*?\\*"?: `)

var (
	// not matches lines that report no failure, or a passing one, or that are not about a pull.
	not = phrasesOf(
		`successfully pulled`, `\bnormal\s+(pulling|pulled)\b`, `failed, retrying`, `pushing (image|manifest)`,
		`error pushing`, `push(ing)? .*failed`, `attempting next endpoint`, `trying next host`, `\bput https?://`, `\bpatch https?://`,
		`/blobs/uploads/`, `unable to remove`, `ignoring extra error`, `^translating "`, `response completed with error`,
		`login attempt to`, `(readiness|liveness|startup) probe`, `mountvolume`, `back-off restarting`, `categoryinfo`,
		`fullyqualifiederrorid`, `failed (to )?push`, `push access`, `push permission`, `\bgit (pull|fetch|clone)`, `failed to pull some refs`,
		`no such image: \S+\W*$`, `checking push`, `unable to retrieve some image pull secrets`, `image already present`,
		`failed to save|failed to export`, `runc create failed`, `oci runtime`, `helm\.sh/hook`, `for "-t, --tag"`,
	)
	// repeated matches lines that repeat a failure, or report it without its cause.
	repeated = phrasesOf(
		`error syncing pod`, `failed to "startcontainer"`, `start failed in pod .*(errimagepull|imagepullbackoff)`,
		`docker (pull|build|create|run) failed with exit code`, `exit(ed with)? (status|code):? \d+\W*$`,
		`non-zero exit (status|code)`, `trying and failing to pull image`, `image can't be pulled`, `check if image tag name is spelled correctly`, `^error pulling \S+\W*$`,
	)
	backoff = phrasesOf(`back-?off pulling image`, `imagepullbackoff`, `back-off .*pull`)
	bare    = regexp.MustCompile(`^\W*(?:Error: |(?i:reason)\W+)?(?:ErrImagePull|ImagePullBackOff|InvalidImageName)\W*$|\s\d+/\d+\s+(?:Init:)?(?:ErrImagePull|ImagePullBackOff|InvalidImageName)\s`)
	kubelet = phrasesOf(`(^|\s|")failed to pull image \\?"`, `(^|\s)failed to apply default image tag`, `(^|\s)container image \\?".*never`,
		`failed to (create|start) (pod )?sandbox`, `failed create pod sandbox`, `(^|\s)failed to inspect image`)
)

// after matches errors of a pull that a line above began, and ran matches errors of a container that started after the pull.
var (
	after = regexp.MustCompile(`^(?:docker: |\w+: )?error response from daemon: |^error: |^fata(?:l:|\[)`)
	ran   = phrasesOf(`driver failed`, `conflict`, `already (in use|allocated)`, `no such (container|network|file)`, `oci runtime`, `mount`, `could not select device`,
		`network \S+ not found`, `on endpoint`, `executable file`, `exited|exit (status|code)`, `permission denied while trying to connect`)
)

// pulls reports whether a text in lower case is about a failed pull.
func pulls(lower string) bool {
	return (gate.in(lower) || requestIn(lower)) && !not.in(lower)
}

// requestIn looks for a request to a registry where there may be one.
func requestIn(lower string) bool {
	return has(lower, "/v2/", "/v1/", "token", "scope=") && requests.MatchString(lower)
}

// relevant reports whether a line, with the text around it, may be about a failed pull. It is right for nearly every line of a
// log, and cheap.
func relevant(raw string) bool {
	lower := strings.ReplaceAll(strings.ToLower(raw), `\`, "")
	return gate.in(lower) || requestIn(lower) || has(lower, "pull failed", ": not found", "error pulling", pages)
}

// errorWords has each row one of that is part of a wrapped error.
var errorWords = []string{"fail", "error", "denied", "unauthor", "cannot", "unable", "back-off", "daemon"}

// mayBeCut reports whether a row may be part of an error that a terminal wrapped.
func mayBeCut(row string) bool { return mayConcern(row) && has(strings.ToLower(row), errorWords...) }

// phrases are patterns of lower case text; one match is enough. A pattern runs only on a text that has a word which all its
// matches have: looking for a word is cheap, running a hundred patterns over each line of a log is not.
type phrases []phrase

type phrase struct {
	word string // in each match; empty: the pattern has none
	text *regexp.Regexp
}

func phrasesOf(patterns ...string) phrases {
	list := make(phrases, len(patterns))
	for i, p := range patterns {
		tree, err := syntax.Parse(p, syntax.Perl)
		if err != nil {
			panic(err) // they are constants
		}
		list[i] = phrase{word(tree), regexp.MustCompile(p)}
	}
	return list
}

// in reports whether a text in lower case matches one of them.
func (list phrases) in(text string) bool {
	return slices.ContainsFunc(list, func(p phrase) bool { return strings.Contains(text, p.word) && p.text.MatchString(text) })
}

// has reports whether a text has one of some words.
func has(text string, words ...string) bool {
	return slices.ContainsFunc(words, func(w string) bool { return strings.Contains(text, w) })
}

// word is the longest text that every match of a pattern has.
func word(p *syntax.Regexp) string {
	switch {
	case p.Op == syntax.OpLiteral && p.Flags&syntax.FoldCase == 0:
		return string(p.Rune)
	case p.Op == syntax.OpCapture, p.Op == syntax.OpPlus, p.Op == syntax.OpRepeat && p.Min > 0:
		return word(p.Sub[0])
	case p.Op != syntax.OpConcat:
		return ""
	}
	longest := ""
	for _, sub := range p.Sub {
		if w := word(sub); len(w) > len(longest) {
			longest = w
		}
	}
	return longest
}
