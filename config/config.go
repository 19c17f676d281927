package config

import (
	"net"
	"net/url"
	"strconv"
	"time"
)

//go:generate go test -run TestSchemaIsCurrent -update .

// Config is everything an operator can set. The comment of each field is also its description in the schema for editors.
// The tags are those of strictyaml. path marks the name of a file or folder, which is relative to the configuration file:
// "file" is watched and read again, "own" is read again by the component that uses it.
type Config struct {
	// Listen is the address, HOST:PORT, where clients pull. An empty host means every interface.
	Listen string `yaml:"listen" reload:"restart"`
	// TLS is the certificate that clients see. Without it the listener speaks plain HTTP.
	TLS TLS `yaml:"tls,omitzero"`
	// Admin is the operator's side: API, health, metrics and profiles.
	Admin Admin `yaml:"admin"`
	// Metrics is where Prometheus scrapes.
	Metrics Metrics `yaml:"metrics"`
	// Drain is how long running pulls may go on after a signal to stop. Then they are cut off.
	Drain time.Duration `yaml:"drain" reload:"restart"`
	// ErrorPhrase puts the reason of a failure into the HTTP status line too. containerd and the kubelet print that
	// line and not the body, so a person sees the reason in the pod's events.
	ErrorPhrase bool `yaml:"errorPhrase" reload:"restart"`
	// Log says which lines are written to standard error.
	Log Log `yaml:"log"`
	// Cache is the folder with everything that was pulled, and its limits.
	Cache Cache `yaml:"cache"`
	// DefaultUpstream answers requests that name no registry, as those of Docker's registry-mirrors do. It is one of
	// the upstreams, by name or alias. Empty: such requests are refused. Where docker.io isn't among the upstreams,
	// empty is the default.
	DefaultUpstream string `yaml:"defaultUpstream"`
	// ClientsFallBack says that the nodes go on to the registry itself where the mirror refuses. Set it to false
	// where they have nowhere else to go: then a refusal explains what to configure.
	ClientsFallBack bool `yaml:"clientsFallBack" reload:"restart"`
	// TrustedProxies are the networks, as CIDR, whose X-Forwarded-For and PROXY protocol name the client in logs and
	// records.
	TrustedProxies []string `yaml:"trustedProxies" reload:"restart"`
	// Platforms are those of the nodes, OS/ARCH or OS/ARCH/VARIANT. Where the platform of a node is not known, and an image
	// has none of these, the failure is reported as a missing platform.
	Platforms []string `yaml:"platforms"`
	// Clients says how clients identify themselves, for rules.
	Clients Clients `yaml:"clients,omitzero"`
	// Rules say which client may pull which images, for upstreams with access: rules. All other pulls of these are refused.
	Rules []Rule `yaml:"rules"`
	// Upstreams is the closed list of registries, by name: the host as it stands in image names. Without this key
	// the list is that of the well-known registries. A well-known name brings its endpoints, authHosts, cdnHosts and
	// aliases; for any other, endpoints is https://NAME. In the environment there is no name for it.
	Upstreams Upstreams `yaml:"upstreams"`
	// Webhooks are registries that report pushes, by name, on the main listener below /webhooks/NAME. A tag that is reported
	// is checked at its next pull. In the environment there is no name for it.
	Webhooks Webhooks `yaml:"webhooks"`
	// Kubernetes is the use of the API server of the cluster that the mirror runs in.
	Kubernetes Kubernetes `yaml:"kubernetes"`
	// Warm pulls images ahead of time.
	Warm Warm `yaml:"warm"`

	// Overrides lists the environment variables that set something, sorted by variable.
	Overrides []Override `yaml:"-"`
}

// TLS is a certificate with its key.
type TLS struct {
	// Cert is the file with the certificate and its chain, PEM. It is read again when it changes.
	Cert string `yaml:"cert" path:"file"`
	// Key is the file with the private key, PEM. It is read again when it changes.
	Key string `yaml:"key" path:"file"`
	// HTTP2 offers HTTP/2. It costs more CPU for each byte than HTTP/1.1, and has no status line that could say why a pull
	// failed. Only clients that speak nothing else gain from it.
	HTTP2 bool `yaml:"http2" reload:"restart"`
}

// Enabled reports whether the main listener speaks TLS.
func (t TLS) Enabled() bool { return t.Cert != "" }

// Admin is the operator's listener.
type Admin struct {
	// Listen is the address, HOST:PORT, of the operator's side. An address that is not loopback needs tokenFile or operators.
	Listen string `yaml:"listen" reload:"restart"`
	// TokenFile is a file whose text is a bearer token that may do everything. It is read again when it changes.
	// Health checks need none. In the environment it is MIRROR_ADMIN_TOKENFILE, since MIRROR_ADMIN_TOKEN_FILE is
	// the token with which the command line calls.
	TokenFile string `yaml:"tokenFile" path:"file"`
	// TLS is the certificate that callers see. Without it the listener speaks plain HTTP, which shows the token to the
	// network unless the listener is on loopback.
	TLS AdminTLS `yaml:"tls,omitzero"`
	// Operators are callers with names of their own, which the log shows with each change, and with rights of their own.
	Operators Operators `yaml:"operators,omitzero"`
	// Hosts are further names, without ports, by which the admin and the metrics listener are called where they are on
	// loopback, as by a proxy in front. Names other than these, localhost and that of listen are refused, since a web page
	// can make a browser call 127.0.0.1 by any name.
	Hosts []string `yaml:"hosts" reload:"restart"`
}

// Operators are callers of the admin listener with names and rights of their own. Where there are any, or a tokenFile, callers on
// loopback have to show one, too.
type Operators struct {
	// Tokens is a file of names and the hashes of their tokens, as mirror token new prints them. It is read again when it changes.
	Tokens string `yaml:"tokens" path:"file"`
	// CA is a file of certificates, PEM, that sign those of operators, whose common name is the operator's. It is read again when it
	// changes. It needs admin.tls.
	CA string `yaml:"ca" path:"file"`
	// CRL is a file of lists, PEM, of revoked certificates, signed by one of ca. It is read again when it changes.
	CRL string `yaml:"crl" path:"file"`
	// Rights say what each operator may do. One that is not named in them may do nothing.
	Rights []OperatorRight `yaml:"rights"`
}

// OperatorRight gives a right to operators. All that name an operator count.
type OperatorRight struct {
	// Who: names of operators, in which * is any characters.
	Who []string `yaml:"who"`
	// May is read (see the state of the mirror, and what is recorded of images) or operate (change it, too).
	May string `yaml:"may" enum:"read,operate"`
	// Images are globs of UPSTREAM/REPOSITORY as in rules: lists show these alone, and no others are changed. Without it the right is
	// for all images, and for what is not of an image: upstreams, cache, metrics, reload.
	Images []string `yaml:"images,omitzero"`
}

// Any reports whether operators can identify themselves.
func (o Operators) Any() bool { return o.Tokens != "" || o.CA != "" }

// AdminTLS is the admin listener's certificate with its key.
type AdminTLS struct {
	// Cert is the file with the certificate and its chain, PEM. It is read again when it changes.
	Cert string `yaml:"cert" path:"file"`
	// Key is the file with the private key, PEM. It is read again when it changes.
	Key string `yaml:"key" path:"file"`
}

// Enabled reports whether the admin listener speaks TLS.
func (t AdminTLS) Enabled() bool { return t.Cert != "" }

// HasKeys reports whether callers have to show which operator they are.
func (a Admin) HasKeys() bool { return a.TokenFile != "" || a.Operators.Any() }

// InClear reports whether the admin listener takes its token, from other machines too, without TLS.
func (a Admin) InClear() bool {
	host, _, err := net.SplitHostPort(a.Listen)
	return err == nil && !isLoopback(host) && !a.TLS.Enabled()
}

// Metrics is where Prometheus scrapes.
type Metrics struct {
	// Listen is the address, HOST:PORT, of a listener for metrics alone, without a token. Empty: metrics are on the
	// admin listener, under its token.
	Listen string `yaml:"listen" reload:"restart"`
}

// Log says which lines are logged, and how.
type Log struct {
	// Level is the least severe kind of line that is written.
	Level string `yaml:"level" enum:"debug,info,warn,error"`
	// Format is auto (text on a terminal, JSON elsewhere), text or json.
	Format string `yaml:"format" enum:"auto,text,json" reload:"restart"`
}

// Cache is a folder and its limits.
type Cache struct {
	// Dir is the folder. One mirror at a time uses it.
	Dir string `yaml:"dir" path:"dir" reload:"restart"`
	// Size is how much content the folder may hold: a size, as in 20GiB, 500GB or a plain number of bytes, or a percentage
	// of the disk that the folder is on, as in 80%. The least recently used goes first.
	Size DiskShare `yaml:"size" reload:"restart"`
	// MinFree is the part of the disk that stays free whatever size says: a percentage, as in 5%, or a size.
	MinFree DiskShare `yaml:"minFree" reload:"restart"`
	// Durability is relaxed (after a crash of the machine, content not known to be on disk is hashed before it is
	// served) or strict (each blob is synced to disk before it counts as cached, which is slower).
	Durability string `yaml:"durability" enum:"relaxed,strict" reload:"restart"`
	// ParallelAbove is the size above which a blob is fetched in parallel ranges, while that proves faster. 0 turns it
	// off.
	ParallelAbove Size `yaml:"parallelAbove" reload:"restart"`
	// Scrub is how often the whole cache is read again, slowly and in the background, and content that the disk has damaged
	// is removed. A round takes at most a tenth of the time and 20 MiB a second, so a large cache takes longer. 0 turns
	// it off.
	Scrub time.Duration `yaml:"scrub" reload:"restart"`
}

// Clients says how clients identify themselves.
type Clients struct {
	// Htpasswd is a file of user names and bcrypt hashes, as htpasswd -B writes it. It is read again when it changes.
	Htpasswd string `yaml:"htpasswd" path:"file"`
	// Tokens is a file of names and the hashes of their tokens, as mirror token new prints them. A client sends its token as a bearer
	// token, or as the password of its name. The file is read again when it changes.
	Tokens string `yaml:"tokens" path:"file"`
	// CA is a file of certificates, PEM, that sign those of nodes. A client that shows one in the TLS handshake is node:NAME: NAME as in
	// a kubelet's certificate, or else its only DNS name or its common name. It is read again when it changes. It needs tls.
	CA string `yaml:"ca" path:"file"`
	// CRL is a file of lists, PEM, of revoked certificates, signed by one of ca. It is read again when it changes.
	CRL string `yaml:"crl" path:"file"`
	// Kubernetes accepts tokens of service accounts, each as sa:NAMESPACE/NAME.
	Kubernetes ClientsKubernetes `yaml:"kubernetes"`
	// Limits are those of each client.
	Limits ClientsLimits `yaml:"limits,omitzero"`
}

// ClientsLimits keep one client from using what others need. A client is its identity, or else its address with byAddress.
type ClientsLimits struct {
	// MaxRequests is how many requests a client may have at once. Further ones wait for 10 s, and are then refused. Without it there is no
	// limit. A node that pulls three layers of each of five images has fifteen.
	MaxRequests int `yaml:"maxRequests,omitzero"`
	// Bandwidth is how much of blobs a client gets in a second, as in 100MiB. 0: no limit.
	Bandwidth Size `yaml:"bandwidth"`
	// TotalBandwidth is how much of blobs all clients get in a second, as in 1GiB. Clients that want some have equal shares of it. 0: no
	// limit.
	TotalBandwidth Size `yaml:"totalBandwidth"`
	// ByAddress counts clients without an identity by their addresses, IPv6 by the /64. Otherwise only totalBandwidth holds for them, and
	// they have one share of it together. Many clients may have one address, behind NAT or a proxy that is not in trustedProxies.
	ByAddress bool `yaml:"byAddress"`
}

func (c Clients) checkLimits(found *mistakes) {
	const at = "clients.limits"
	l := c.Limits
	for _, b := range []struct {
		name string
		size Size
	}{{"bandwidth", l.Bandwidth}, {"totalBandwidth", l.TotalBandwidth}} {
		if b.size > 0 && b.size < leastSize {
			found.add(at+"."+b.name, strconv.FormatInt(int64(b.size), 10)+" bytes a second is too little", "write 1MiB or more; 0 turns it off")
		}
	}
	if l.TotalBandwidth > 0 && l.Bandwidth > l.TotalBandwidth {
		found.add(at+".bandwidth", "it is more than totalBandwidth", "write less, or remove it")
	}
	switch {
	case l.ByAddress && l.MaxRequests == 0 && l.Bandwidth == 0 && l.TotalBandwidth == 0:
		found.add(at+".byAddress", "true has no effect without a limit", "set maxRequests, bandwidth or totalBandwidth, or remove it")
	case l.ByAddress || c.Logins() || c.CA != "":
	case l.MaxRequests > 0:
		found.add(at+".maxRequests", "it limits no client: none can identify itself", "set byAddress: true if each address is one client, or let clients log in")
	case l.Bandwidth > 0:
		found.add(at+".bandwidth", "it limits no client: none can identify itself", "set byAddress: true if each address is one client, or let clients log in")
	}
}

// Logins reports whether clients can log in by a header, which is a secret.
func (c Clients) Logins() bool {
	return c.Htpasswd != "" || c.Tokens != "" || c.Kubernetes.Audience != ""
}

// ClientsKubernetes accepts tokens of service accounts. Without an issuer the API server of the section kubernetes is asked about each
// token; the mirror's service account then needs the right to create tokenreviews.
type ClientsKubernetes struct {
	// Audience is the audience that tokens must name, as in mirror.
	Audience string `yaml:"audience"`
	// Issuer is the issuer that tokens must name, where they are checked by the keys of a cluster: a mirror outside of it. It is compared
	// as text and never requested, so any text is allowed, as for the API server: the keys come from jwks or jwksFile alone.
	Issuer string `yaml:"issuer"`
	// JWKS is the URL of these keys, https://.
	JWKS string `yaml:"jwks"`
	// JWKSFile is a file of these keys, as kubectl get --raw /openid/v1/jwks prints them, in place of jwks or beside it. It is read again
	// when it changes.
	JWKSFile string `yaml:"jwksFile" path:"file"`
	// CA is a file of certificates, PEM, that sign that of the server of jwks, in place of the system's. It is read again when it
	// changes.
	CA string `yaml:"ca" path:"file"`
}

func (k ClientsKubernetes) check(found *mistakes) {
	const at = "clients.kubernetes"
	switch {
	case k == ClientsKubernetes{}:
		return
	case k.Audience == "":
		found.add(at+".audience", "tokens of any audience would be accepted", "write the one that clients request their tokens for, as in mirror",
			at+".issuer", at+".jwks", at+".jwksFile", at+".ca")
	}
	switch {
	case k.Issuer == "" && (k.JWKS != "" || k.JWKSFile != ""):
		found.add(at+".issuer", "keys need the issuer that they belong to", "write what kubectl get --raw /.well-known/openid-configuration shows as issuer",
			at+".jwks", at+".jwksFile")
	case k.Issuer != "" && k.JWKS == "" && k.JWKSFile == "":
		found.add(at+".issuer", "there are no keys to check its tokens by", "set jwks or jwksFile; inside of the cluster remove issuer")
	}
	if k.JWKS != "" {
		if u, err := url.Parse(k.JWKS); err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || u.Fragment != "" {
			found.add(at+".jwks", quoted(k.JWKS)+" is not an https:// URL", "as in https://kubernetes.example:6443/openid/v1/jwks")
		}
	} else if k.CA != "" {
		found.add(at+".ca", "it has no effect without jwks", "remove it; the API server's is kubernetes.caFile")
	}
}

// Rule lets some clients pull some images.
type Rule struct {
	// Who are users, node:NAME, sa:NAMESPACE/NAME, or anonymous or * for every client, with a login and without. In a user * is any
	// characters, in a node one label or the whole name, in a service account one part or a part of it.
	Who []string `yaml:"who"`
	// Pull are repositories with their upstream, as in docker.io/acme/**: * is one segment of the path, one label of the
	// upstream, or a part of either; ** is any number. * as the upstream is each that has access: rules.
	Pull []string `yaml:"pull"`
}

// Kubernetes is the use of the API server.
type Kubernetes struct {
	// Events posts an Event, with cause and remedy, on each pod that waits for an image which the mirror could not get.
	// The service account must be allowed to list pods, and to get, create and patch events.
	Events bool `yaml:"events" reload:"restart"`
	// Server is the API server, https://HOST:PORT. Empty: that of the cluster whose pod the mirror is.
	Server string `yaml:"server" reload:"restart"`
	// TokenFile is a file with the bearer token for it. It is read for each request. Empty: where a pod finds its own.
	TokenFile string `yaml:"tokenFile" path:"own" reload:"restart"`
	// CAFile is a file of certificates, PEM, that sign the API server's. Empty: where a pod finds them.
	CAFile string `yaml:"caFile" path:"own" reload:"restart"`
	// Feed keeps the images warm that pods of the cluster use, and the pod templates of its Deployments, StatefulSets, DaemonSets
	// and CronJobs. The service account must be allowed to list and watch these.
	Feed bool `yaml:"feed" reload:"restart"`
	// FeedNamespaces are globs of the namespaces whose images count: * is any characters.
	FeedNamespaces []string `yaml:"feedNamespaces" reload:"restart"`
	// FeedExcluded are globs of namespaces among these whose images don't count.
	FeedExcluded []string `yaml:"feedExcluded" reload:"restart"`
	// Coverage compares, every five minutes, the images that run on each node with those that the node pulled through the mirror. The
	// service account must be allowed to list pods and events.
	Coverage bool `yaml:"coverage" reload:"restart"`
	// CoverageByNode adds a metric for each node of the cluster.
	CoverageByNode bool `yaml:"coverageByNode" reload:"restart"`
}

// Warm pulls images ahead of time, by jobs.
type Warm struct {
	// MaxJobs is how many jobs there may be that are not over. Further ones are refused.
	MaxJobs int `yaml:"maxJobs" reload:"restart"`
	// MaxImages is how many images those jobs may have, all together.
	MaxImages int `yaml:"maxImages" reload:"restart"`
	// MaxBytes is how large the content of one job may be. 0: only maxShare bounds it.
	MaxBytes Size `yaml:"maxBytes" reload:"restart"`
	// MaxShare is the part of cache.size that jobs may keep from eviction, all together. A job that would exceed it is refused
	// before anything but manifests is fetched.
	MaxShare Percent `yaml:"maxShare" reload:"restart"`
	// Parallel is how many blobs jobs fetch at once, all together. maxTransfers of each upstream counts as well, and pulls of
	// clients come first there.
	Parallel int `yaml:"parallel" reload:"restart"`
	// Keep is how long the content of a job is kept from eviction after its end, where the job does not say it.
	Keep time.Duration `yaml:"keep" reload:"restart"`
	// Patience is how long a job waits for a registry that is down, and for a disk without room, before its images fail. Rate
	// limits are waited for without end.
	Patience time.Duration `yaml:"patience" reload:"restart"`
	// Schedules are the pulls that repeat.
	Schedules []Schedule `yaml:"schedules"`
}

// Schedule is a pull that repeats.
type Schedule struct {
	// Name is what jobs, logs and metrics call it. Empty: schedule-1 for the first one, and so on.
	Name string `yaml:"name,omitzero"`
	// Cron says when: minute, hour, day of month, month and day of week, or one of @hourly, @daily, @weekly, @monthly and @yearly.
	Cron string `yaml:"cron,omitzero"`
	// TimeZone is the zone of cron, as Europe/Berlin. Empty: UTC.
	TimeZone string `yaml:"timeZone,omitzero"`
	// OnTagMove pulls each image when its tag has moved, in place of cron: after a move that a pull, a check or a webhook has
	// shown. Each tag is checked when its record is older than tags.maxAge.
	OnTagMove bool `yaml:"onTagMove,omitzero"`
	// Images are pulled, with their upstream.
	Images []string `yaml:"images"`
	// Platforms are those of which the content is pulled. Empty: those of the nodes.
	Platforms []string `yaml:"platforms,omitzero"`
	// With are signatures, referrers, or both: what is pulled beside each image.
	With []string `yaml:"with,omitzero"`
	// Keep is how long the pulled content is safe from eviction, counted from the end of the pull. 0: as for other jobs.
	Keep time.Duration `yaml:"keep,omitzero"`
}

// defaults is the configuration where nothing is set, before the list of upstreams is filled in.
func defaults() *Config {
	return &Config{
		Listen:      "127.0.0.1:5000",
		Admin:       Admin{Listen: "127.0.0.1:5001", Hosts: []string{}},
		Drain:       time.Minute,
		ErrorPhrase: true,
		Log:         Log{Level: "info", Format: "auto"},
		Cache: Cache{
			Dir: "./mirror-data", Size: DiskShare{Bytes: 20 << 30}, MinFree: DiskShare{Percent: 5}, Durability: "relaxed",
			ParallelAbove: 64 << 20,
			Scrub:         24 * time.Hour,
		},
		ClientsFallBack: true,
		TrustedProxies:  []string{},
		Platforms:       []string{},
		Kubernetes:      Kubernetes{FeedNamespaces: []string{"*"}, FeedExcluded: []string{}},
		Warm: Warm{
			MaxJobs: 200, MaxImages: 10_000, MaxShare: 50, Parallel: 8, Keep: 72 * time.Hour, Patience: time.Hour,
		},
	}
}
