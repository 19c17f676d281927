package app

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/registrymirror/mirror/config"
	"github.com/registrymirror/mirror/diagnose"
	"github.com/registrymirror/mirror/diagnose/doctor"
	"github.com/registrymirror/mirror/internal/memory"
	"github.com/registrymirror/mirror/internal/state"
	"github.com/registrymirror/mirror/internal/text"
	"github.com/registrymirror/mirror/oci"
)

const (
	// examinedAtOnce is how many upstreams are asked at once.
	examinedAtOnce = 8
	// listenerPatience is how long the mirror's own listener may take.
	listenerPatience = 3 * time.Second
	// certificateSoon is how long a certificate of ours should still be good.
	certificateSoon = 14 * 24 * time.Hour
)

// checkSelf checks the running mirror, from the inside, and asks each upstream.
func (a *App) checkSelf(ctx context.Context) *doctor.MirrorReport {
	r := &doctor.MirrorReport{At: "mirror", Version: a.o.Version, Began: time.Now()}
	r.Checks = append(r.Checks, a.checkVersion(), a.checkConfig())
	r.Checks = append(r.Checks, a.checkListeners(ctx)...)
	r.Checks = append(r.Checks, a.checkData()...)
	r.Checks = append(r.Checks, a.checkState(), checkOpenFiles(), checkProxy())
	r.Checks = append(r.Checks, a.checkWebhooks()...)
	r.Checks = append(r.Checks, a.checkKubernetes(ctx)...)
	r.Checks = append(r.Checks, a.checkHardening(ctx)...)
	r.Checks = append(r.Checks, a.checkUpstreams(ctx)...)
	r.Finish()
	return r
}

func check(area, name string) doctor.Check {
	return doctor.Check{Area: area, Name: name, State: doctor.OK}
}

// broken and warns say what is wrong, and what to do.
func broken(c doctor.Check, remedy, format string, args ...any) doctor.Check {
	c.State, c.Remedy, c.Detail = doctor.Broken, remedy, diagnose.Clean(fmt.Sprintf(format, args...))
	return c
}

func warns(c doctor.Check, remedy, format string, args ...any) doctor.Check {
	c = broken(c, remedy, format, args...)
	c.State = doctor.Warning
	return c
}

func (a *App) checkVersion() doctor.Check {
	c := check(doctor.AreaVersion, "")
	about := a.about.Load()
	c.Detail = fmt.Sprintf("%s, %s %s/%s, up for %s", about.Version, about.GoVersion, runtime.GOOS, runtime.GOARCH,
		time.Since(about.StartedAt).Round(time.Second))
	return c
}

// checkConfig compares the file with what is in use.
func (a *App) checkConfig() doctor.Check {
	c := check(doctor.AreaConfig, "")
	used := a.about.Load().Config
	switch {
	case used.LastError != "":
		return broken(c, "correct the file; mirror config check shows each mistake", "the last reload was refused, and the old configuration is in use: %s", used.LastError)
	case len(used.Restart) > 0:
		return warns(c, "restart the mirror", "a change of %s waits for a restart", strings.Join(used.Restart, ", "))
	case used.File == "":
		c.Detail = "the built-in defaults are in use"
		return c
	}
	now, err := config.Load(used.File, os.Environ())
	if err != nil {
		first, _, _ := strings.Cut(err.Error(), "\n")
		return broken(c, "correct the file; mirror config check shows each mistake", "%s is not what is in use, and can't be used: %s", used.File, first)
	}
	if changed := config.Changed(a.inEffect.Load(), now); len(changed) > 0 {
		return warns(c, "run mirror reload, or wait a moment: a change is taken up by itself", "%s is not what is in use: %s differ", used.File, strings.Join(changed, ", "))
	}
	c.Detail = used.File + " is in use, since " + used.TakenAt.Format(time.RFC3339)
	if list := now.Warnings(); len(list) > 0 {
		return warns(c, "mirror config check shows each warning", "%s; warnings: %d, the first: %s", c.Detail, len(list), list[0])
	}
	return c
}

// checkListeners asks the mirror's listeners as their clients do.
func (a *App) checkListeners(ctx context.Context) []doctor.Check {
	c := a.o.Config
	files := a.files.current.Load()
	list := []doctor.Check{
		checkListener(ctx, check(doctor.AreaListener, c.Listen), a.Addr(), files.cert, "/v2/"),
		checkListener(ctx, check(doctor.AreaAdmin, c.Admin.Listen), a.AdminAddr(), files.adminCert, "/readyz"),
	}
	if admin := &list[1]; admin.State == doctor.OK && !files.keys.Any() {
		admin.Detail += ", without a token: each program of this machine can use it"
	}
	return list
}

// checkListener asks a listener over loopback, or at its own address. With TLS it must show the certificate that is in use.
func checkListener(ctx context.Context, c doctor.Check, addr net.Addr, cert *tls.Certificate, path string) doctor.Check {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok {
		return c
	}
	at := net.JoinHostPort(config.LocalHost(tcp.IP.String()), fmt.Sprint(tcp.Port))
	var shown *x509.Certificate
	t := &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{
		MinVersion: tls.VersionTLS12, InsecureSkipVerify: true, //nolint:gosec // it is compared with our own
		VerifyConnection: func(s tls.ConnectionState) error {
			shown = s.PeerCertificates[0]
			return nil
		},
	}}
	ctx, cancel := context.WithTimeout(ctx, listenerPatience)
	defer cancel()
	scheme := "http"
	if cert != nil {
		scheme = "https"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://"+at+path, nil)
	if err != nil {
		return broken(c, "report this", "%v", err)
	}
	resp, err := t.RoundTrip(req)
	if err != nil {
		return broken(c, "see whether the mirror has connections and open files left, and restart it", "%s does not answer: %v", at, err)
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<10))
	_ = resp.Body.Close()
	if resp.StatusCode/100 != 2 && resp.StatusCode != http.StatusUnauthorized {
		return broken(c, "see the log of the mirror", "%s answers %s", at, resp.Status)
	}
	c.Detail = at + " answers"
	if cert == nil {
		return c
	}
	return checkCertificate(c, cert, shown)
}

func checkCertificate(c doctor.Check, cert *tls.Certificate, shown *x509.Certificate) doctor.Check {
	leaf := cert.Leaf
	if leaf == nil || shown == nil || !shown.Equal(leaf) {
		return broken(c, "see whether another program has this port", "%s, with a certificate that is not the mirror's", c.Detail)
	}
	until := leaf.NotAfter.UTC().Format(time.DateOnly)
	switch left := time.Until(leaf.NotAfter); {
	case left <= 0:
		return broken(c, "renew the certificate: clients refuse it; the mirror takes up the new file by itself", "%s, and its certificate expired on %s", c.Detail, until)
	case time.Now().Before(leaf.NotBefore):
		return broken(c, "check the clock of this machine", "%s, and its certificate is not valid before %s", c.Detail, leaf.NotBefore.UTC().Format(time.RFC3339))
	case left < min(certificateSoon, leaf.NotAfter.Sub(leaf.NotBefore)/10):
		return warns(c, "renew the certificate; the mirror takes up the new file by itself", "%s; its certificate expires on %s", c.Detail, until)
	}
	c.Detail += ", its certificate expires on " + until
	return c
}

// checkData checks the data folder: whether it can be written to, and its room.
func (a *App) checkData() []doctor.Check {
	dir := a.o.Config.Cache.Dir
	c := check(doctor.AreaData, dir)
	stats := a.cache.Stats()
	f, err := os.CreateTemp(dir, ".doctor-*")
	if err == nil {
		_, err = f.WriteString("written by mirror doctor\n")
		err = errors.Join(err, f.Sync(), f.Close(), os.Remove(f.Name()))
	}
	switch {
	case err != nil:
		c = broken(c, "mend the disk, or its rights: until then content is served and not kept", "the data folder can't be written to: %v", err)
	case stats.Degraded:
		c = broken(c, "mirror cache stats shows the cause", "the cache does not keep new content: the disk is full, read-only or fails")
	default:
		c.Detail = "can be written to"
	}
	return []doctor.Check{c, a.checkRoom()}
}

// checkRoom compares the budget of the cache with the disk.
func (a *App) checkRoom() doctor.Check {
	c := check(doctor.AreaData, "room")
	conf := a.o.Config.Cache
	disk, err := a.folder.store.Free()
	if err != nil {
		return warns(c, "mend the disk", "the free space of the disk can't be read: %v", err)
	}
	stats := a.cache.Stats()
	used, least := stats.Bytes, stats.Disk.Floor
	size := conf.Size.Of(disk.Total)
	c.Detail = fmt.Sprintf("%s of %s are used; the disk has %s of %s free", text.Size(used), text.Size(size), text.Size(disk.Free), text.Size(disk.Total))
	switch {
	case disk.Free < least:
		return broken(c, "free some space, or make cache.size smaller", "%s, less than minFree, %s", c.Detail, text.Size(least))
	case size-used > disk.Free-least:
		return warns(c, "make cache.size smaller, or the disk larger", "%s: it is full before the cache is", c.Detail)
	case disk.AllInodes > 0 && disk.FreeInodes < disk.AllInodes/100:
		return warns(c, "free some inodes: remove small files from this disk", "%s; it has room for %d more files alone", c.Detail, disk.FreeInodes)
	}
	return c
}

// checkState writes to state.db and reads it back: after damage all writes fail until a restart.
func (a *App) checkState() doctor.Check {
	c := check(doctor.AreaState, filepath.Join(a.o.Config.Cache.Dir, "state.db"))
	table := a.folder.state.Table("doctor")
	now := []byte(time.Now().UTC().Format(time.RFC3339Nano))
	err := table.Write([]state.Item{{Key: "checked", Value: now}})
	if err == nil {
		var it state.Item
		if it, err = table.Get("checked"); err == nil && len(it.Value) == 0 {
			err = errors.New("what was written is not there")
		}
	}
	if err != nil {
		return broken(c, "check the disk, then restart the mirror: it opens the last good copy of a damaged file", "can't be written to: %v", err)
	}
	c.Detail = fmt.Sprintf("can be written to and read; %s are in use", text.Size(a.folder.state.Used()))
	return c
}

func checkOpenFiles() doctor.Check {
	c := check(doctor.AreaFiles, "")
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return warns(c, "see the log", "the limit on open files can't be read: %v", err)
	}
	c.Detail = fmt.Sprintf("%d may be open, so clients may have %d connections", limit.Cur, within(uint64(limit.Cur)))
	if limit.Cur < fewFiles {
		return warns(c, "raise the limit (LimitNOFILE, ulimit -n)", "%s: that is few for a busy mirror", c.Detail)
	}
	return c
}

// checkProxy shows which proxies the environment names, without their logins.
func checkProxy() doctor.Check {
	c := check(doctor.AreaProxy, "")
	var found []string
	for _, name := range []string{"HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY"} {
		value := os.Getenv(name)
		if value == "" {
			value = os.Getenv(strings.ToLower(name))
		}
		if value == "" {
			continue
		}
		if name == "NO_PROXY" {
			found = append(found, name+" "+text.Line(value, 200))
			continue
		}
		u, err := url.Parse(value)
		if err != nil || u.Host == "" {
			if u, err = url.Parse("http://" + value); err != nil || u.Host == "" { // as net/http reads it
				return broken(c, "write "+name+" as http://HOST:PORT", "%s is not the address of a proxy", name)
			}
		}
		found = append(found, name+" "+u.Host)
	}
	c.Detail = "the environment names none"
	if len(found) > 0 {
		c.Detail = strings.Join(found, ", ")
	}
	return c
}

// checkWebhooks checks that each has its secret, and that senders may reach the listener.
func (a *App) checkWebhooks() (list []doctor.Check) {
	secrets := a.files.current.Load().webhooks
	for _, w := range a.inEffect.Load().Webhooks {
		c := check(doctor.AreaWebhooks, w.Name)
		now, err := readSecrets("webhooks."+w.Name, w.SecretFile)
		switch {
		case err != nil:
			c = broken(c, "mend the file: after a restart the mirror does not start with it", "%v", err)
		case !slices.Equal(now, secrets[w.Name]):
			c = warns(c, "run mirror reload, or wait a moment", "its secret file has changed, and the old secrets are in use")
		case isLoopback(a.Addr()):
			c = warns(c, "set listen to an address that the sender reaches, or have a proxy forward /webhooks/"+w.Name,
				"its secret is set; the mirror listens on %s, which this machine alone reaches", a.Addr())
		default:
			c.Detail = fmt.Sprintf("its secret is set (%d); whether its sender can reach %s is not seen from here", len(now), a.Addr())
		}
		list = append(list, c)
	}
	return list
}

// checkKubernetes checks the rights that the settings need.
func (a *App) checkKubernetes(ctx context.Context) []doctor.Check {
	c := check(doctor.AreaKubernetes, "")
	k := a.o.Config.Kubernetes
	if a.cluster.client == nil {
		c.State, c.Detail = doctor.NotTried, "not used: kubernetes.events, kubernetes.feed and kubernetes.coverage are off"
		return []doctor.Check{c}
	}
	type right struct{ verb, group, resource, file string }
	needs := []right{{"list", "", "pods", "events.yaml"}}
	if k.Events {
		for _, verb := range []string{"get", "create", "patch"} {
			needs = append(needs, right{verb, "", "events", "events.yaml"})
		}
	}
	if k.Coverage {
		needs = append(needs, right{"list", "", "events", "events.yaml"})
	}
	if k.Feed {
		needs = append(needs, right{"watch", "", "pods", "feed.yaml"})
		for _, resource := range []string{"deployments", "statefulsets", "daemonsets"} {
			needs = append(needs, right{"list", "apps", resource, "feed.yaml"}, right{"watch", "apps", resource, "feed.yaml"})
		}
		needs = append(needs, right{"list", "batch", "cronjobs", "feed.yaml"}, right{"watch", "batch", "cronjobs", "feed.yaml"})
	}
	var missing []string
	file := ""
	for _, n := range needs {
		allowed, err := a.cluster.client.Allowed(ctx, n.verb, n.group, n.resource)
		if err != nil {
			return []doctor.Check{broken(c, "see whether the API server can be reached from here, and whether the token is this cluster's", "%v", err)}
		}
		if !allowed {
			missing, file = append(missing, n.verb+" "+n.resource), n.file
		}
	}
	if len(missing) > 0 {
		return []doctor.Check{broken(c, "apply deploy/kubernetes/"+file, "the service account may not %s", strings.Join(missing, ", "))}
	}
	c.Detail = fmt.Sprintf("the API server answers, and the service account has all %d rights that the settings need", len(needs))
	return []doctor.Check{c}
}

// checkUpstreams asks each upstream. Hosts of patterns are not asked: clients choose them.
func (a *App) checkUpstreams(ctx context.Context) []doctor.Check {
	ctx, hold := a.memory.Enter(memory.By(ctx, "doctor"), memory.Work)
	defer hold.Release()
	known := a.latestTags()
	var list []doctor.Check
	own := make(map[string]bool) // upstreams whose clients have logins of their own
	for _, u := range a.inEffect.Load().Upstreams {
		own[u.Name] = u.Access == "client"
		c := check(doctor.AreaUpstream, u.Name)
		if strings.Contains(u.Name, "*") {
			c.State, c.Detail = doctor.NotTried, "a pattern: mirror doctor image checks a host of it"
		}
		list = append(list, c)
	}
	var group sync.WaitGroup
	turns := make(chan struct{}, examinedAtOnce)
	for i := range list {
		if list[i].State == doctor.NotTried {
			continue
		}
		group.Go(func() {
			turns <- struct{}{}
			defer func() { <-turns }()
			registry := a.registries.Open(list[i].Name, "")
			if registry == nil { // a reload came in between
				list[i].State, list[i].Detail = doctor.NotTried, "it is not in use any more"
				return
			}
			list[i] = doctor.Upstream(ctx, list[i].Name, registry, known[list[i].Name], own[list[i].Name])
		})
	}
	group.Wait()
	a.addCredentials(list)
	return list
}

// addCredentials adds what is known of the credentials of upstreams, and of their limits.
func (a *App) addCredentials(list []doctor.Check) {
	for _, u := range a.registries.List() {
		i := slices.IndexFunc(list, func(c doctor.Check) bool { return c.Name == u.Name })
		if i < 0 {
			continue
		}
		for _, cred := range u.Credentials {
			switch cred.State {
			case "expired", "rejected", "failing":
				list[i] = broken(list[i], "renew credential "+cred.Name+"; mirror upstreams shows its state", "credential %s is %s: %s", cred.Name, cred.State, cred.LastError)
			case "expiring":
				if list[i].State == doctor.OK {
					list[i] = warns(list[i], "see why credential "+cred.Name+" can't be renewed", "credential %s expires at %s, and can't be renewed: %s",
						cred.Name, cred.ExpiresAt.Format(time.RFC3339), cred.LastError)
				}
			}
		}
		if n := len(u.Credentials); n > 0 && list[i].State == doctor.OK {
			list[i].Detail += fmt.Sprintf("; credentials: %d, none fails", n)
		}
	}
}

// latestTags are the tags that clients pulled last of each upstream.
func (a *App) latestTags() map[string]oci.Ref {
	known := make(map[string]oci.Ref)
	at := make(map[string]time.Time)
	clients, err := a.catalog.AllClients()
	if err != nil {
		return nil
	}
	for ref, list := range clients {
		for _, c := range list {
			if c.LastPull.After(at[ref.Host]) {
				at[ref.Host], known[ref.Host] = c.LastPull, ref
			}
		}
	}
	return known
}
