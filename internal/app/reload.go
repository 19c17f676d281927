package app

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/registrymirror/mirror/admin"
	"github.com/registrymirror/mirror/config"
	"github.com/registrymirror/mirror/internal/guard"
	"github.com/registrymirror/mirror/internal/logging"
)

// Reload puts a new configuration into use: upstreams, tag policies, schedules, certificates, token, log level. Settings that need a
// restart stay as they are, and each reload until then names them in the log. On an error everything stays as it was.
func (a *App) Reload(c *config.Config) error {
	a.reloading.Lock()
	defer a.reloading.Unlock()
	kept, err := a.apply(c)
	if err != nil {
		a.NotReloaded(err)
		return err
	}
	a.metrics.Reloaded(nil)
	restart := config.Diff(a.o.Config, c) // since the start: a change that waits for the restart stays named
	a.setConfig(admin.Config{File: a.o.File, TakenAt: stamp(time.Now()), Restart: restart})
	if kept {
		a.log.Warn("neither admin.tokenFile nor admin.operators is set any more, but the admin listener can be reached from other "+
			"machines until the restart: the old ones stay in force until then", "addr", a.AdminAddr().String())
	}
	a.warnOfCertificates(c)
	if len(restart) > 0 {
		a.log.Warn("the configuration was reloaded, but some changes need a restart", "items", strings.Join(restart, " "))
	} else {
		a.log.Info("the configuration was reloaded", "upstreams", len(c.Upstreams))
	}
	return nil
}

func (a *App) setConfig(c admin.Config) {
	about := *a.about.Load()
	about.Config = c
	a.about.Store(&about)
}

func (a *App) warnOfCertificates(c *config.Config) {
	for _, text := range c.Certificates() {
		a.log.Warn(text)
	}
}

// apply puts a configuration into use, after every step that can fail.
func (a *App) apply(c *config.Config) (keptKeys bool, err error) {
	f, err := readFiles(c)
	if err != nil {
		return false, err
	}
	if was, is := a.files.adminKeys().Token, f.keys.Token; guard.Whole && is != "" && is != was && strings.HasPrefix(was, is) {
		return false, fmt.Errorf("admin.tokenFile: %s holds the beginning of the token in use, so it looks cut off; write all of it, "+
			"or a token that begins otherwise", c.Admin.TokenFile)
	}
	level, err := logging.ParseLevel(c.Log.Level)
	if err != nil {
		return false, err
	}
	setup, err := a.registries.Setup(c)
	if err != nil {
		return false, err
	}
	if f.clients.Accounts, err = a.accountsOf(c); err != nil {
		return false, err
	}
	if a.o.Level != nil {
		a.o.Level.Set(level)
	}
	keptKeys = a.files.use(f, a.listeners.admin)
	a.use(c, setup, f)
	a.schedules.Use(a.schedulesOf(c))
	if a.cluster.feed != nil {
		a.cluster.feed.Refresh()
	}
	return keptKeys, nil
}

// NotReloaded logs, counts and records for the admin listener that a configuration was refused. Of an invalid one it logs each
// problem, up to 20, in a line of its own.
func (a *App) NotReloaded(err error) {
	a.metrics.Reloaded(err)
	c := a.about.Load().Config
	defer func() { a.setConfig(c) }()
	invalid, ok := errors.AsType[*config.Invalid](err)
	if !ok {
		c.LastError = err.Error()
		a.log.Error("the configuration was not reloaded; the old one stays in use", "error", err)
		return
	}
	const most = 20
	for _, p := range invalid.Problems[:min(most, len(invalid.Problems))] {
		a.log.Error("the configuration has a mistake", "error", p.String())
	}
	a.log.Error("the configuration was not reloaded; the old one stays in use until this one is corrected",
		"count", len(invalid.Problems))
	c.LastError = invalid.Problems[0].String()
	if n := len(invalid.Problems) - 1; n > 0 {
		c.LastError += fmt.Sprintf("; and %d more", n)
	}
}
