package app

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/registrymirror/mirror/access"
	"github.com/registrymirror/mirror/config"
	"github.com/registrymirror/mirror/diagnose/doctor"
	"github.com/registrymirror/mirror/identity"
)

const (
	// leastCost is the least cost of a password's hash that is not warned of: below it a stolen file is soon guessed.
	leastCost = 10
	// A network of proxies with a shorter prefix than these has many machines that are not proxies.
	leastPrefix4, leastPrefix6 = 16, 48
)

// hardened is what the items of the checklist look at.
type hardened struct {
	c     *config.Config
	files *files
	addr  net.Addr // of the main listener
	admin net.Addr
}

// hardening are the items of the checklist in SECURITY.md, by name. Each answers with what it has seen where all is well.
var hardening = []struct {
	name  string
	check func(ctx context.Context, h hardened, c doctor.Check) doctor.Check
}{
	{"network", checkNetwork},
	{"tls", checkLoginsOverTLS},
	{"rules", checkRulesForAll},
	{"upstream-certificates", checkUpstreamCertificates},
	{"upstream-tls", checkUpstreamTLS},
	{"passwords", checkPasswords},
	{"tokens", checkTokens},
	{"revocation-list", checkRevocationList},
	{"service-accounts", checkServiceAccounts},
	{"trusted-proxies", checkTrustedProxies},
	{"admin-listener", checkAdminListener},
	{"operators", checkOperators},
	{"secret-files", checkSecretFiles},
	{"data-folder", checkDataFolder},
	{"user", checkUser},
}

// checkHardening looks at each item of the checklist.
func (a *App) checkHardening(ctx context.Context) []doctor.Check {
	ctx, cancel := context.WithTimeout(ctx, listenerPatience)
	defer cancel()
	h := hardened{c: a.inEffect.Load(), files: a.files.current.Load(), addr: a.Addr(), admin: a.AdminAddr()}
	list := make([]doctor.Check, 0, len(hardening))
	for _, item := range hardening {
		list = append(list, item.check(ctx, h, check(doctor.AreaHardening, item.name)))
	}
	return list
}

// saying is a check that is well, with what was seen.
func saying(c doctor.Check, format string, args ...any) doctor.Check {
	c.Detail = fmt.Sprintf(format, args...)
	return c
}

// checkNetwork looks whether the listener is reached from public networks.
func checkNetwork(_ context.Context, h hardened, c doctor.Check) doctor.Check {
	if isLoopback(h.addr) {
		return saying(c, "%s is reached from this machine alone", h.addr)
	}
	public, err := publicAddresses(h.addr)
	switch {
	case err != nil:
		return warns(c, "see which networks reach the mirror", "the addresses of this machine can't be read: %v", err)
	case len(public) > 0:
		return warns(c, "listen on an address of your own network, or allow connections from your own networks alone",
			"the mirror listens on a public address: %s", strings.Join(public, ", "))
	}
	return saying(c, "%s is not a public address", h.addr)
}

// publicAddresses are the public addresses on which a listener listens.
func publicAddresses(addr net.Addr) (public []string, err error) {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok {
		return nil, nil
	}
	list := []net.Addr{&net.IPNet{IP: tcp.IP}}
	if tcp.IP.IsUnspecified() {
		if list, err = net.InterfaceAddrs(); err != nil {
			return nil, err
		}
	}
	for _, a := range list {
		if n, ok := a.(*net.IPNet); ok && isPublic(n.IP) {
			public = append(public, n.IP.String())
		}
	}
	return public, nil
}

// shared are the addresses of carriers (RFC 6598), which clouds use for pods.
var shared = netip.MustParsePrefix("100.64.0.0/10")

func isPublic(ip net.IP) bool {
	a, ok := netip.AddrFromSlice(ip)
	a = a.Unmap()
	return ok && a.IsGlobalUnicast() && !a.IsPrivate() && !shared.Contains(a)
}

// checkLoginsOverTLS looks whether logins of clients are readable on the network.
func checkLoginsOverTLS(_ context.Context, h hardened, c doctor.Check) doctor.Check {
	own := slices.ContainsFunc(h.c.Upstreams, func(u config.Upstream) bool { return u.Access == "client" })
	switch {
	case h.files.cert != nil:
		return saying(c, "the listener speaks TLS")
	case !h.c.Clients.Logins() && !own:
		return saying(c, "no client logs in")
	case isLoopback(h.addr):
		return saying(c, "logins stay on this machine")
	}
	const remedy = "set tls.cert and tls.key, unless a proxy in front of the mirror speaks TLS"
	if !h.c.Clients.Logins() {
		return warns(c, remedy, "%s speaks plain HTTP: clients of other machines are not asked for their own logins (access: client), and get public "+
			"images alone", h.addr)
	}
	return warns(c, remedy, "clients send passwords and tokens to %s in clear text", h.addr)
}

// checkRulesForAll looks whether a rule is for every client.
func checkRulesForAll(_ context.Context, h hardened, c doctor.Check) doctor.Check {
	var pull []string
	for _, r := range h.c.Rules {
		if r.ForAll() {
			pull = append(pull, r.Pull...)
		}
	}
	if len(pull) == 0 {
		return saying(c, "each rule names its clients (rules: %d)", len(h.c.Rules))
	}
	return warns(c, "name the clients in each rule, or allow connections from the network of your nodes alone",
		"each client that can connect pulls %s with the mirror's credentials", strings.Join(pull, " "))
}

// checkUpstreamCertificates looks whether a client certificate of ours reads for every client.
func checkUpstreamCertificates(_ context.Context, h hardened, c doctor.Check) doctor.Check {
	if list := h.c.Certificates(); len(list) > 0 {
		detail, remedy, _ := strings.Cut(list[0], "; ")
		return warns(c, remedy, "%s", detail)
	}
	return saying(c, "no upstream with access: public is shown a client certificate")
}

// checkUpstreamTLS looks whether registries of other machines are asked over plain HTTP.
func checkUpstreamTLS(_ context.Context, h hardened, c doctor.Check) doctor.Check {
	var plain []string
	for _, u := range h.c.Upstreams {
		for _, e := range u.Endpoints {
			if host, is := strings.CutPrefix(e.URL, "http://"); is && !isLocalHost(host) {
				plain = append(plain, e.URL)
			}
		}
	}
	if len(plain) == 0 {
		return saying(c, "each registry of another machine is asked over TLS")
	}
	return warns(c, "write https://, with ca where the certificate is signed by an authority of your own",
		"asked without TLS: %s; tags can be changed on the way, and credentials read", strings.Join(plain, ", "))
}

// isLocalHost reports whether HOST, HOST:PORT, or one with a path is this machine.
func isLocalHost(host string) bool {
	host, _, _ = strings.Cut(host, "/")
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	a, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return host == "localhost" || err == nil && a.IsLoopback()
}

// checkPasswords looks at the costs of the hashes.
func checkPasswords(_ context.Context, h hardened, c doctor.Check) doctor.Check {
	p := h.files.clients.Passwords
	if p == nil {
		return saying(c, "no client has a password")
	}
	const remedy = "make the lines again with htpasswd -B -C 10"
	switch least, most := p.Costs(); {
	case least < leastCost:
		return warns(c, remedy, "a hash of clients.htpasswd has the cost %d: a stolen file is soon guessed", least)
	case least != most:
		return warns(c, remedy+", or the cost that you want for all", "the hashes of clients.htpasswd have costs from %d to %d: "+
			"the time of a login tells which users exist", least, most)
	default:
		return saying(c, "each hash has the cost %d", least)
	}
}

// checkTokens looks whether tokens end.
func checkTokens(_ context.Context, h hardened, c doctor.Check) doctor.Check {
	t := h.files.clients.Tokens
	if t == nil {
		return saying(c, "no client has a token")
	}
	if names := t.Endless(); len(names) > 0 {
		return warns(c, "replace them: mirror token new NAME --expires 2160h", "tokens that never end: %s", strings.Join(names, ", "))
	}
	return saying(c, "each token has an end")
}

// checkRevocationList looks whether certificates of clients and operators can be revoked, and whether the lists of revoked ones are
// current.
func checkRevocationList(_ context.Context, h hardened, c doctor.Check) doctor.Check {
	authorities, lists := 0, 0
	for _, of := range []*identity.Certificates{h.files.clients.Certificates, h.files.keys.Certificates} {
		if of == nil {
			continue
		}
		authorities++
		lists += len(of.Lists())
		outdated := of.Outdated(time.Now())
		if len(outdated) == 0 {
			continue
		}
		l := outdated[0]
		remedy := "write a new list to " + l.Setting + ", signed by its authority; the mirror takes it up by itself"
		ended, refused := l.Ends.UTC().Format(time.DateOnly), l.Refused().UTC().Format(time.DateOnly)
		if time.Now().Before(l.Refused()) {
			return warns(c, remedy, "the list of %q ended on %s: from %s on no certificate of that authority counts", l.Issuer, ended, refused)
		}
		return broken(c, remedy, "the list of %q ended on %s: since %s no certificate of that authority counts", l.Issuer, ended, refused)
	}
	switch {
	case authorities == 0:
		return saying(c, "no client and no operator has a certificate")
	case lists == 0:
		return saying(c, "no list is configured: a certificate counts until it expires")
	}
	return saying(c, "lists: %d, none has ended", lists)
}

// checkServiceAccounts looks whether forged tokens are told from real ones before the API server is asked.
func checkServiceAccounts(ctx context.Context, h hardened, c doctor.Check) doctor.Check {
	accounts := h.files.clients.Accounts
	if accounts == nil {
		return saying(c, "no client has the token of a service account")
	}
	if err := accounts.CheckKeys(ctx); err != nil {
		return warns(c, "let the mirror's service account read them: ClusterRole system:service-account-issuer-discovery",
			"the keys of the cluster can't be had, so a flood of forged tokens makes first logins of service accounts wait: %v", err)
	}
	return saying(c, "forged tokens are refused by the keys of the cluster")
}

// checkTrustedProxies looks whether clients could be among the proxies: these choose the address by which they are limited.
func checkTrustedProxies(_ context.Context, h hardened, c doctor.Check) doctor.Check {
	for _, text := range h.c.TrustedProxies {
		if p, err := netip.ParsePrefix(text); err == nil && (p.Addr().Is4() && p.Bits() < leastPrefix4 || p.Addr().Is6() && p.Bits() < leastPrefix6) {
			return warns(c, "name the addresses of the proxies alone", "trustedProxies has %s: each client in it can give itself any address", text)
		}
	}
	return saying(c, "networks of proxies: %d", len(h.c.TrustedProxies))
}

// checkAdminListener looks whether other machines can operate the mirror, or read the token for that.
func checkAdminListener(_ context.Context, h hardened, c doctor.Check) doctor.Check {
	switch {
	case isLoopback(h.admin):
		return saying(c, "%s is reached from this machine alone", h.admin)
	case h.files.adminCert == nil:
		return warns(c, "set admin.tls.cert and admin.tls.key, or listen on 127.0.0.1", "the token of %s is sent in clear text", h.admin)
	}
	return saying(c, "%s has a token, and speaks TLS", h.admin)
}

// checkOperators looks whether each caller that may change everything is named, and whether the tokens of operators end.
func checkOperators(_ context.Context, h hardened, c doctor.Check) doctor.Check {
	o := h.c.Admin.Operators
	for _, r := range o.Rights {
		if r.May == access.Operate.String() && len(r.Images) == 0 && slices.Contains(r.Who, "*") {
			return warns(c, "name the operators, or give these the right to read", "a right of admin.operators lets each operator change everything")
		}
	}
	if names := h.files.keys.Tokens.Endless(); len(names) > 0 {
		return warns(c, "replace them: mirror token new NAME --expires 2160h", "tokens of operators that never end: %s", strings.Join(names, ", "))
	}
	if !o.Any() {
		return saying(c, "no operator has a name of its own")
	}
	return saying(c, "each operator that may change everything is named, and each token has an end")
}

// checkSecretFiles looks whether other users of this machine can read a secret.
func checkSecretFiles(_ context.Context, h hardened, c doctor.Check) doctor.Check {
	n := 0
	for _, named := range h.c.Named() {
		info, err := os.Stat(named.File)
		if !named.IsSecret() || err != nil || info.IsDir() {
			continue
		}
		if n++; info.Mode().Perm()&0o004 != 0 {
			return warns(c, "chmod o= "+named.File, "%s: every user of this machine can read %s (mode %04o)", named.Path, named.File, info.Mode().Perm())
		}
	}
	return saying(c, "secret files: %d; other users of this machine can read none", n)
}

// checkDataFolder looks whether other users of this machine can read private images.
func checkDataFolder(_ context.Context, h hardened, c doctor.Check) doctor.Check {
	dir := h.c.Cache.Dir
	info, err := os.Stat(dir)
	if err != nil {
		return warns(c, "mend the disk", "%v", err)
	}
	if mode := info.Mode().Perm(); mode&0o007 != 0 {
		return warns(c, "chmod o= "+dir, "other users of this machine can look into %s (mode %04o)", dir, mode)
	}
	return saying(c, "%s is closed to other users", dir)
}

// checkUser looks whether the process has rights that it does not need.
func checkUser(_ context.Context, _ hardened, c doctor.Check) doctor.Check {
	if os.Geteuid() == 0 {
		return warns(c, "run it as a user of its own; it needs the data folder alone", "the mirror runs as root")
	}
	return saying(c, "the mirror runs as user %d", os.Geteuid())
}
