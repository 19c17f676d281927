package app

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"runtime"
	"strings"
	"time"

	"github.com/registrymirror/mirror/admin"
	"github.com/registrymirror/mirror/config"
	"github.com/registrymirror/mirror/internal/guard"
)

// files are what a configuration refers to, read: nothing of them is in use before use.
type files struct {
	cert  *tls.Certificate // nil: the configuration has no TLS
	admin *tls.Certificate // the admin listener's; nil: it has no TLS
	token string           // empty: it has no tokenFile
}

// readFiles reads what a configuration refers to: certificates and token.
func readFiles(c *config.Config) (f files, err error) {
	if c.TLS.Enabled() {
		if f.cert, err = loadCertificate(c.TLS.Cert, c.TLS.Key); err != nil {
			return files{}, fmt.Errorf("tls: %w", err)
		}
	}
	if c.Admin.TLS.Enabled() {
		if f.admin, err = loadCertificate(c.Admin.TLS.Cert, c.Admin.TLS.Key); err != nil {
			return files{}, fmt.Errorf("admin.tls: %w", err)
		}
	}
	if c.Admin.TokenFile != "" {
		if f.token, err = readToken(c.Admin.TokenFile); err != nil {
			return files{}, err
		}
	}
	return f, nil
}

// use puts files into use and reports whether a token stays that the configuration no longer has: the addresses of
// listeners change with a restart alone, and one that others reach is never left without a token until then.
func (a *App) use(f files) (kept bool) {
	if f.cert != nil {
		a.cert.current.Store(f.cert)
	}
	if f.admin != nil {
		a.adminCert.current.Store(f.admin)
	}
	if f.token == "" && a.token.Load() != nil && !isLoopback(a.admin.Addr()) {
		return true
	}
	if f.token == "" {
		a.token.Store(nil)
	} else {
		a.token.Store(&f.token)
	}
	return false
}

// isLoopback reports whether a listener can be reached from this machine alone. It goes by the address that was bound,
// since a name such as localhost may mean another one.
func isLoopback(addr net.Addr) bool {
	tcp, ok := addr.(*net.TCPAddr)
	return ok && tcp.IP.IsLoopback()
}

func (a *App) tls(c *config.Config) *tls.Config {
	if !c.TLS.Enabled() {
		return nil
	}
	return a.cert.config()
}

// Reload puts a new configuration into use: upstreams, tag policies, certificates, token, log level. What needs a
// restart is named in the log and stays, at each reload until the restart. On an error everything stays as it was.
func (a *App) Reload(c *config.Config) error {
	a.reload.Lock()
	defer a.reload.Unlock()
	kept, err := a.apply(c)
	a.metrics.Reloaded(err)
	if err != nil {
		a.refused(err)
		a.log.Error("the configuration was not reloaded; the old one stays in use", "err", err)
		return err
	}
	a.taken.Store(&admin.Config{File: a.file, TakenAt: time.Now().UTC().Truncate(time.Millisecond), Restart: config.Diff(a.config, c)})
	if kept {
		a.log.Warn("admin.tokenFile is not set any more, but the admin listener can be reached from other machines "+
			"until the restart: the old token stays in force until then", "admin", a.AdminAddr().String())
	}
	a.warnOfCertificates(c)
	// Against what runs since the start: a change that waits for the restart stays named.
	if keys := config.Diff(a.config, c); len(keys) > 0 {
		a.log.Warn("the configuration was reloaded, but some changes need a restart",
			"restart", strings.Join(keys, " "))
	} else {
		a.log.Info("the configuration was reloaded", "upstreams", len(c.Upstreams))
	}
	return nil
}

func (a *App) warnOfCertificates(c *config.Config) {
	for _, text := range c.Certificates() {
		a.log.Warn(text)
	}
}

// apply puts a configuration into use once all that can fail has not.
func (a *App) apply(c *config.Config) (keptToken bool, err error) {
	f, err := readFiles(c)
	if err != nil {
		return false, err
	}
	if was := a.adminToken(); guard.Whole && f.token != "" && f.token != was && strings.HasPrefix(was, f.token) {
		return false, fmt.Errorf("admin.tokenFile: %s holds the beginning of the token in use, so it looks cut off; write all of it, "+
			"or a token that begins otherwise", c.Admin.TokenFile)
	}
	level, err := parseLevel(c.Log.Level)
	if err != nil {
		return false, err
	}
	setup, err := a.sites.setup(c)
	if err != nil {
		return false, err
	}
	if a.level != nil {
		a.level.Set(level)
	}
	keptToken = a.use(f)
	a.settle(c, setup)
	a.sites.settle()
	return keptToken, nil
}

// NotReloaded tells that a configuration was refused before it came to Reload: of an invalid one each problem, up to 20,
// in a line of its own.
func (a *App) NotReloaded(err error) {
	a.metrics.Reloaded(err)
	a.refused(err)
	invalid, ok := errors.AsType[*config.Invalid](err)
	if !ok {
		a.log.Error("the configuration was not reloaded; the old one stays in use", "err", err)
		return
	}
	const most = 20
	for _, p := range invalid.Problems[:min(most, len(invalid.Problems))] {
		a.log.Error("the configuration has a mistake", "problem", p.String())
	}
	a.log.Error("the configuration was not reloaded; the old one stays in use until this one is corrected",
		"problems", len(invalid.Problems))
}

// refused notes for the operator's side why a configuration was not taken.
func (a *App) refused(err error) {
	next := *a.taken.Load()
	next.LastError = err.Error()
	if invalid, ok := errors.AsType[*config.Invalid](err); ok && len(invalid.Problems) > 0 {
		next.LastError = invalid.Problems[0].String()
		if n := len(invalid.Problems) - 1; n > 0 {
			next.LastError += fmt.Sprintf("; and %d more", n)
		}
	}
	a.taken.Store(&next)
}

// about is what runs here.
func (a *App) about() admin.About {
	return admin.About{Version: a.version, GoVersion: runtime.Version(), StartedAt: a.began.UTC().Truncate(time.Millisecond), Config: *a.taken.Load()}
}
