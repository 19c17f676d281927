package symptom

import (
	"cmp"
	"regexp"
	"strings"

	"github.com/registrymirror/mirror/diagnose"
	"github.com/registrymirror/mirror/internal/guard"
)

// facts describe the client of a failed pull, as far as its texts show it.
type facts struct {
	sandbox, kubernetes, helm, podman, docker, ecs, openshift, builder bool

	proxyMisnamed bool // the proxy's address has two schemes
	ambiguous     bool // the image's short name fits several registries
}

var (
	ecr = regexp.MustCompile(`^(\d{12}|\*+)\.dkr\.ecr(?:-fips)?\.([a-z0-9-]+)\.amazonaws\.com`)
	acr = regexp.MustCompile(`^([a-z0-9-]+)\.azurecr\.(?:io|cn|us)$`)
	gar = regexp.MustCompile(`(?:^|\.)(?:gcr\.io|.*-docker\.pkg\.dev)$|-docker\.pkg\.dev$`)
	// open matches registries without logins.
	open = regexp.MustCompile(`^(?:registry\.k8s\.io|k8s\.gcr\.io|mcr\.microsoft\.com|.*\.pkg\.dev/registry-k8s-io)$`)
)

// add reads a text about the failure.
func (f *facts) add(text string) {
	lower := strings.ToLower(text)
	f.sandbox = f.sandbox || has(lower, "sandbox")
	f.kubernetes = f.kubernetes || has(lower, "failed to pull image \"", "errimagepull", "imagepullbackoff", "back-off pulling", "sandbox", "pullimage", "kubelet", "failed to pull and unpack image")
	f.helm = f.helm || has(lower, "oci://", "installation failed", "upgrade failed", "chart")
	f.podman = f.podman || has(lower, "initializing source docker", "copying system image", "trying to reuse blob", "adding layer with blob", "processing tar file(") && !f.kubernetes
	f.docker = f.docker || has(lower, "response from daemon", "failed to register layer") && !f.kubernetes
	f.proxyMisnamed = f.proxyMisnamed || misnamed.MatchString(text)
	f.ambiguous = f.ambiguous || ambiguous.MatchString(text)
	f.ecs = f.ecs || has(lower, "cannotpull", "resourceinitializationerror")
	f.builder = f.builder || has(lower, "failed to solve", "error building image")
	f.openshift = f.openshift || has(lower, "image-registry.openshift-image-registry")
}

// advise returns the sentence about a failure, the remedy, and a command for it.
func (e *entry) advise() (summary, remedy, command string) {
	if e.summary != "" {
		return e.summary, cmp.Or(e.remedy, "see the mirror's page of this reason"), ""
	}
	a := e.key.reason.Advice()
	p := e.values()
	switch e.key.reason {
	case diagnose.CredentialsMissing, diagnose.CredentialsRejected, diagnose.CredentialsExpired, diagnose.UpstreamForbidden, diagnose.NotFoundOrNoAccess:
		how, by := e.facts.login(p)
		a.Remedy, a.Command = sentenceOf(a.Remedy, how, e.key.reason), by
	case diagnose.RateLimited, diagnose.DataLimited:
		_, a.Command = e.facts.login(p)
	case diagnose.ProxyRefused:
		if e.facts.proxyMisnamed {
			a.Summary = "the proxy's address is malformed: the client takes its scheme, as \"http\", for the name of a host, and does not reach {host}"
			a.Remedy = "write HTTPS_PROXY and HTTP_PROXY of the client or its service with one scheme, as http://proxy.example:3128"
		}
	case diagnose.NameInvalid:
		if e.facts.ambiguous {
			a.Summary = "{image} is a short name that fits several registries, and the client must not choose"
			a.Remedy = "write the name with its registry, as docker.io/library/{image}, or set one alias in /etc/containers/registries.conf.d"
		}
	case diagnose.UnpackFailed:
		switch {
		case e.facts.kubernetes:
		case e.facts.podman:
			a.Command = "podman rmi {image}; dmesg | tail"
		case e.facts.docker:
			a.Command = "docker rmi {image}; dmesg | tail"
		}
	case diagnose.CredentialSourceFailed:
		if p.provider != "" {
			a.Remedy = "on the node: " + a.Remedy
			a.Command = "ls -l {provider}"
		}
	case diagnose.ConnectTimeout, diagnose.DNSFailed, diagnose.DNSNotFound, diagnose.Unreachable, diagnose.ConnectRefused:
		if e.facts.sandbox {
			a.Remedy += "; it is the sandbox image, which the runtime's configuration names (containerd: sandbox_image)"
		}
	}
	words := p.filler(false)
	summary = cmp.Or(words.Replace(a.Summary), string(e.key.reason))
	remedy = words.Replace(cmp.Or(a.Remedy, "see the mirror's page of this reason"))
	return diagnose.Clean(summary), diagnose.Clean(remedy), p.filler(true).Replace(a.Command)
}

func sentenceOf(first, then string, r diagnose.Reason) string {
	switch {
	case first == "":
		return then
	case r == diagnose.NotFoundOrNoAccess:
		return first + "; if they are right: " + then
	}
	return first + "; " + then
}

// login says how the client gets a login for a registry.
func (f facts) login(p values) (remedy, command string) {
	if m := ecr.FindStringSubmatch(p.registry); m != nil {
		describe := "aws ecr describe-images --registry-id " + m[1] + " --region " + m[2] + " --repository-name {path}"
		switch {
		case f.ecs:
			return "give the task execution role ecr:GetAuthorizationToken, ecr:BatchGetImage and ecr:GetDownloadUrlForLayer", describe
		case f.sandbox:
			return "the sandbox image is pulled with the node's role, and no imagePullSecret helps: attach AmazonEC2ContainerRegistryPullOnly to the node's role", describe
		case f.kubernetes:
			return "attach AmazonEC2ContainerRegistryPullOnly to the node's role, and for another account's registry let the repository's policy name this account", describe
		}
		return "log in again; a login of ECR lasts 12 hours", "aws ecr get-login-password --region " + m[2] + " | docker login --username AWS --password-stdin {registry}"
	}
	if m := acr.FindStringSubmatch(p.registry); m != nil {
		if f.kubernetes {
			return "give the kubelet's managed identity of the cluster the role AcrPull (it has no password), or the pod an imagePullSecret with a token of the registry",
				"az aks update -n CLUSTER -g GROUP --attach-acr " + m[1]
		}
		return "log in, with a right to pull", "az acr login -n " + m[1]
	}
	switch {
	case open.MatchString(p.registry):
		return "{registry} has no logins, so the name or tag is wrong, or a mirror or proxy between refuses", "crane ls {repository}"
	case gar.MatchString(p.registry) && f.kubernetes:
		return "give the service account of the nodes roles/artifactregistry.reader on that repository", "gcloud artifacts docker tags list {repository}"
	case gar.MatchString(p.registry):
		return "log in with an account that has roles/artifactregistry.reader on that repository", "gcloud auth configure-docker {registry}"
	case f.openshift:
		return "let the service account pull from that project", "oc policy add-role-to-user system:image-puller system:serviceaccount:NAMESPACE:default -n PROJECT"
	case f.helm:
		return "log in to the registry of the chart (Flux: secretRef, Argo CD: a repository secret with enableOCI)", "helm registry login {registry}"
	case f.kubernetes:
		server := "{registry}"
		if p.registry == "docker.io" {
			server = "https://index.docker.io/v1/" // the name by which clients look its login up
		}
		return "give the pod an imagePullSecret for this registry, in its own namespace",
			"kubectl create secret docker-registry NAME -n NAMESPACE --docker-server=" + server + " --docker-username=USER --docker-password=TOKEN"
	case f.podman:
		return "log in where the client runs", "podman login {registry}"
	case f.builder:
		return "log in where the builder reads its login (~/.docker/config.json; kaniko: /kaniko/.docker/config.json)", "docker login {registry}"
	}
	return "log in where the client runs", "docker login {registry}"
}

// values are those of {host} and the other placeholders.
type values struct{ host, registry, image, repository, path, provider string }

var provider = regexp.MustCompile(`fork/exec (/\S+?):|exec: "(\S+?)"`)

func (e *entry) values() values {
	p := values{host: e.host, image: e.image}
	p.repository, _ = split(p.image)
	p.registry, p.path, _ = strings.Cut(p.repository, "/")
	if p.registry == "" {
		p.registry = hub(p.host)
	}
	if m := provider.FindStringSubmatch(e.text); m != nil {
		p.provider = m[1] + m[2]
	}
	return p
}

// harmless matches words without characters that a shell interprets: a suggested command is pasted into a shell, and its parts
// come from a text that an attacker may have written.
var harmless = regexp.MustCompile(`^[\w/][\w./:@-]*$`)

func (p values) filler(command bool) *strings.Replacer {
	or := func(s, other string) string {
		if s == "" || command && guard.Command && !harmless.MatchString(s) {
			return other
		}
		return s
	}
	address, name := p.host, p.host
	if i := strings.LastIndexByte(p.host, ':'); i < 0 {
		address += ":443"
	} else {
		name = p.host[:i]
	}
	if p.host == "" {
		address = ""
	}
	image, host := "the image", "the registry"
	if command {
		image, host = "IMAGE", "REGISTRY"
	}
	return strings.NewReplacer("{host}", or(p.host, host), "{registry}", or(p.registry, "REGISTRY"), "{image}", or(p.image, image), "{such}", or(p.image, "such image"),
		"{repository}", or(p.repository, "REPOSITORY"), "{path}", or(p.path, "REPOSITORY"), "{address}", or(address, "HOST:443"), "{name}", or(name, "HOST"), "{provider}", or(p.provider, "PROGRAM"))
}
