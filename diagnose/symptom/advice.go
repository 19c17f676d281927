package symptom

import (
	"cmp"
	"regexp"
	"strings"

	"github.com/registrymirror/mirror/diagnose"
	"github.com/registrymirror/mirror/internal/guard"
)

// advice is the meaning of a reason and the remedy, where only the text is known. {host}, {image}, {repository} and
// {tag} are filled in.
type advice struct{ summary, remedy, command string }

const (
	askHost  = "curl -v https://{host}/v2/"
	listTags = "crane ls {repository}"
	showCert = "openssl s_client -connect {address} -servername {name} </dev/null"
)

var advices = map[diagnose.Reason]advice{
	diagnose.NodeDiskFull: {
		"the disk is full where images are kept",
		"free space there (docker system prune, crictl rmi --prune), or lower the kubelet's image garbage collection thresholds", "df -h; df -i",
	},
	diagnose.NameInvalid: {
		"{image} is not the name of an image",
		"correct it: lower case, no scheme, no empty parts, no unreplaced variables, with a registry where short names are not allowed", "",
	},
	diagnose.NeverPull: {
		"the image is not on the node, and imagePullPolicy Never forbids to pull it", "load it on the node, or set imagePullPolicy to IfNotPresent",
		"ctr -n k8s.io images import FILE",
	},
	diagnose.RuntimeDown: {
		"the container runtime does not answer on its socket, so nothing was pulled",
		"start it, check that the client uses its socket and may open it, and read its log",
		"systemctl status containerd crio docker; journalctl -u containerd -n 50",
	},
	diagnose.SignaturePolicy: {
		"the signature policy of the node rejects {image}",
		"sign the image with a key that the policy accepts, or correct the policy and its key files", "cat /etc/containers/policy.json",
	},
	diagnose.UnpackFailed: {
		"the node got {image} and could not unpack it",
		"remove the image and what is left of its layers and pull again; if it stays, check the disk and file system, and for rootless runtimes /etc/subuid and /etc/subgid",
		"crictl rmi {image}; dmesg | tail",
	},
	diagnose.PullQPS: {
		"the kubelet starts more pulls a second than its registryPullQPS lets it",
		"nothing has to be done, since it tries again; to end it, raise registryPullQPS and registryBurst in the kubelet's configuration",
		"kubectl get --raw /api/v1/nodes/NODE/proxy/configz",
	},
	diagnose.UnsupportedImage: {
		"{image} has a format that this client does not read",
		"update the client, or push the image again with a current tool, or use a newer tag", "crane manifest {image}",
	},
	diagnose.PlatformMissing: {
		"{image} has nothing for the platform of the client", "build it for that platform, or run it on a node of a platform that it has", "crane manifest {image}",
	},
	diagnose.DigestMismatch: {
		"the bytes that came are not those that the digest of {image} names",
		"pull again; if it stays, a proxy or mirror on the way alters or cuts content", "crane validate --remote {image}",
	},
	diagnose.RateLimited: {
		"the limit on pulls of {host} is used up", "pull with a login, or through a mirror; the limit resets by itself", "",
	},
	diagnose.AbuseLimited: {
		"{host} gets too many requests from this address", "spread the pulls, or send them through a mirror", "",
	},
	diagnose.DataLimited: {
		"the limit on anonymous downloads of {host} is used up", "pull with a login, or through a mirror", "",
	},
	diagnose.ClockSkew: {
		"by the client's clock the certificate of {host} is not valid yet", "set the clock", "timedatectl",
	},
	diagnose.TLSExpired: {
		"the certificate of {host} has expired", "renew it there; if it has not expired, the client's clock is ahead", showCert,
	},
	diagnose.TLSWrongHost: {
		"the certificate of {host} is for another name", "pull by the name that it is for, or issue one with this name among its subject alternative names", showCert,
	},
	diagnose.TLSUntrusted: {
		"the client does not trust the certificate of {host}",
		"give the client the CA that signed it (containerd: ca in hosts.toml; Docker, Podman, CRI-O: certs.d/{registry}/ca.crt; builders and charts: the system's CA store)", showCert,
	},
	diagnose.HTTPNotHTTPS: {
		"the client speaks https, and {host} answers plain http",
		"write http:// for this host in the client's registry configuration (Docker: insecure-registries), or serve TLS there", "curl -v http://{host}/v2/",
	},
	diagnose.HTTPSNotHTTP: {
		"the client speaks plain http, and {host} answers TLS", "write https:// for this host in the client's registry configuration", askHost,
	},
	diagnose.TLSHandshake: {
		"TLS with {host} did not come about",
		"see which TLS versions both sides speak, whether {host} wants a client certificate, and whether a proxy stands between", showCert,
	},
	diagnose.ProxyRefused: {
		"the proxy between the client and {host} did not let it through",
		"check HTTPS_PROXY and NO_PROXY of the client or its service, the proxy's login, and what it allows", "systemctl show --property=Environment containerd docker",
	},
	diagnose.DNSFailed: {
		"DNS did not answer for {host}", "check the resolvers in /etc/resolv.conf where the client runs", "nslookup {name}",
	},
	diagnose.DNSNotFound: {
		"there is no host {host}, says DNS", "check the registry's name in the image, and the DNS of the client for private names", "nslookup {name}",
	},
	diagnose.ConnectTimeout: {
		"{host} does not accept a connection: no answer in time", "allow the client to reach it on that port; a firewall drops, or the host is down", askHost,
	},
	diagnose.Unreachable: {
		"there is no way to {host} from the client", "check its routes, gateway and firewall, and whether it tries IPv6 without having any", askHost,
	},
	diagnose.ConnectRefused: {
		"{host} refuses the connection: nothing listens there", "see that it runs, and that the port is right", askHost,
	},
	diagnose.ConnectionReset: {
		"the connection to {host} broke while it was used", "pull again; if it stays, look at firewalls and proxies between the client and that host", askHost,
	},
	diagnose.UpstreamTimeout: {
		"{host} took too long to answer", "pull again; if it stays, see how the registry and the path to it are", askHost,
	},
	diagnose.CredentialsExpired:  {"the login for {host} has expired", "renew it", ""},
	diagnose.CredentialsMissing:  {"{host} wants a login, and got none that it takes", "", ""},
	diagnose.CredentialsRejected: {"{host} says that the login is wrong", "correct the login; the password or token may have been changed", ""},
	diagnose.CredentialSourceFailed: {
		"the program that fetches the login for {host} failed",
		"install it where the kubelet or client looks for it, make it executable, and run it by hand to see what it says", "",
	},
	diagnose.UpstreamForbidden: {"this client may not pull {image}", "give the user, role or identity that pulls the right to read this repository", ""},
	diagnose.UpstreamBlocked: {
		"{host} refuses to serve {image}: by its policy, its firewall, or where the client is",
		"see the policy and the network rules of that registry or project", "",
	},
	diagnose.NotFoundOrNoAccess: {
		"{image} does not exist, or is private; {host} does not say which", "check name and tag", "",
	},
	diagnose.TokenServiceRefused: {"the token service of {host} refused the request", "check the login, and the name of the repository", askHost},
	diagnose.DigestNotFound:      {"{host} does not have that digest", "use a tag or digest that is there; it may have been removed", listTags},
	diagnose.RepositoryNotFound:  {"{host} has no such repository", "check the image's name", listTags},
	diagnose.TagNotFound:         {"the registry has no {such}", "check name and tag, or push it", listTags},
	diagnose.NotARegistry:        {"what answered for {host} is not a registry", "check the host in the image's name, and for a proxy or login page before it", askHost},
	diagnose.UpstreamError:       {"{host} failed", "pull again; if it stays, see its status page or its log", askHost},
	diagnose.ClientForbidden:     {"no rule of the mirror lets clients pull it", "add it to rules in the mirror's configuration, or pull it from the registry itself", ""},
	diagnose.ClientGone: {
		"the client gave the pull up before it was done", "see whether the pod was removed or the runtime restarted; if not, the pull was too slow for its progress timeout", "",
	},
	diagnose.Unknown: {"the text does not say why", "look at the runtime's log there, or ask the registry step by step", "mirror doctor image {image}"},
}

// facts describe the place where a failure happened, as far as its texts show it.
type facts struct {
	sandbox, kubernetes, helm, podman, docker, ecs, openshift, builder bool

	proxyMisnamed bool // its address has a scheme too many
	ambiguous     bool // the image's short name fits several registries
}

var (
	ecr = regexp.MustCompile(`^(\d{12}|\*+)\.dkr\.ecr(?:-fips)?\.([a-z0-9-]+)\.amazonaws\.com`)
	acr = regexp.MustCompile(`^([a-z0-9-]+)\.azurecr\.(?:io|cn|us)$`)
	gar = regexp.MustCompile(`(?:^|\.)(?:gcr\.io|.*-docker\.pkg\.dev)$|-docker\.pkg\.dev$`)
	// open are registries that have no logins at all.
	open = regexp.MustCompile(`^(?:registry\.k8s\.io|k8s\.gcr\.io|mcr\.microsoft\.com|.*\.pkg\.dev/registry-k8s-io)$`)
)

func (f *facts) hear(text string) {
	lower := strings.ToLower(text)
	has := func(words ...string) (any bool) {
		for _, w := range words {
			any = any || strings.Contains(lower, w)
		}
		return any
	}
	f.sandbox = f.sandbox || has("sandbox")
	f.kubernetes = f.kubernetes || has("failed to pull image \"", "errimagepull", "imagepullbackoff", "back-off pulling", "sandbox", "pullimage", "kubelet", "failed to pull and unpack image")
	f.helm = f.helm || has("oci://", "installation failed", "upgrade failed", "chart")
	f.podman = f.podman || has("initializing source docker", "copying system image", "trying to reuse blob", "adding layer with blob", "processing tar file(") && !f.kubernetes
	f.docker = f.docker || has("response from daemon", "failed to register layer") && !f.kubernetes
	f.proxyMisnamed = f.proxyMisnamed || misnamed.MatchString(text)
	f.ambiguous = f.ambiguous || ambiguous.MatchString(text)
	f.ecs = f.ecs || has("cannotpull", "resourceinitializationerror")
	f.builder = f.builder || has("failed to solve", "error building image")
	f.openshift = f.openshift || has("image-registry.openshift-image-registry")
}

// advise gives the sentence about a failure, the remedy, and a command for it.
func (e *entry) advise() (summary, remedy, command string) {
	if e.summary != "" {
		return e.summary, cmp.Or(e.remedy, "see the mirror's page of this reason"), ""
	}
	a := advices[e.key.reason]
	p := e.place()
	switch e.key.reason {
	case diagnose.CredentialsMissing, diagnose.CredentialsRejected, diagnose.CredentialsExpired, diagnose.UpstreamForbidden, diagnose.NotFoundOrNoAccess:
		how, by := e.facts.login(p)
		a.remedy, a.command = sentenceOf(a.remedy, how, e.key.reason), by
	case diagnose.RateLimited, diagnose.DataLimited:
		_, a.command = e.facts.login(p)
	case diagnose.ProxyRefused:
		if e.facts.proxyMisnamed {
			a.summary = "the proxy's address is malformed: the client takes its scheme, as \"http\", for the name of a host, and does not reach {host}"
			a.remedy = "write HTTPS_PROXY and HTTP_PROXY of the client or its service with one scheme, as http://proxy.example:3128"
		}
	case diagnose.NameInvalid:
		if e.facts.ambiguous {
			a.summary = "{image} is a short name that fits several registries, and the client must not choose"
			a.remedy = "write the name with its registry, as docker.io/library/{image}, or set one alias in /etc/containers/registries.conf.d"
		}
	case diagnose.UnpackFailed:
		switch {
		case e.facts.kubernetes:
		case e.facts.podman:
			a.command = "podman rmi {image}; dmesg | tail"
		case e.facts.docker:
			a.command = "docker rmi {image}; dmesg | tail"
		}
	case diagnose.CredentialSourceFailed:
		if p.provider != "" {
			a.remedy = "on the node: " + a.remedy
			a.command = "ls -l {provider}"
		}
	case diagnose.ConnectTimeout, diagnose.DNSFailed, diagnose.DNSNotFound, diagnose.Unreachable, diagnose.ConnectRefused:
		if e.facts.sandbox {
			a.remedy += "; it is the sandbox image, which the runtime's configuration names (containerd: sandbox_image)"
		}
	}
	words := p.filler(false)
	summary = cmp.Or(words.Replace(a.summary), string(e.key.reason))
	remedy = words.Replace(cmp.Or(a.remedy, "see the mirror's page of this reason"))
	return diagnose.Clean(summary), diagnose.Clean(remedy), p.filler(true).Replace(a.command)
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

// login is how a client gets a login for a registry, where it runs.
func (f facts) login(p site) (remedy, command string) {
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
		return "{registry} has no logins, so the name or tag is wrong, or a mirror or proxy between refuses", listTags
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

// site holds the values of {host} and the other placeholders.
type site struct{ host, registry, image, repository, path, provider string }

var provider = regexp.MustCompile(`fork/exec (/\S+?):|exec: "(\S+?)"`)

func (e *entry) place() site {
	p := site{host: e.host, image: e.image}
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

// harmless matches words without characters that a shell interprets: people paste a suggested command, and its parts come
// from a text that an attacker may have written.
var harmless = regexp.MustCompile(`^[\w/][\w./:@-]*$`)

func (p site) filler(command bool) *strings.Replacer {
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
