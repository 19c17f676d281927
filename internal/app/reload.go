package app

import (
	"crypto/tls"
	"fmt"
	"strings"

	"github.com/registrymirror/mirror/config"
)

// readFiles reads what a configuration refers to: certificate and token. Each stays as it was where its file is bad.
func (a *App) readFiles(c *config.Config) error {
	if c.TLS.Enabled() {
		if err := a.cert.load(c.TLS.Cert, c.TLS.Key); err != nil {
			return fmt.Errorf("tls: %w", err)
		}
	}
	if c.Admin.TokenFile == "" {
		a.token.Store(nil)
		return nil
	}
	token, err := readToken(c.Admin.TokenFile)
	if err != nil {
		return err
	}
	a.token.Store(&token)
	return nil
}

func (a *App) tls(c *config.Config) *tls.Config {
	if !c.TLS.Enabled() {
		return nil
	}
	return a.cert.config()
}

// Reload puts a new configuration into use: upstreams, tag policies, certificates, token, log level. What needs a
// restart is named in the log and stays. On an error everything stays as it was.
func (a *App) Reload(c *config.Config) error {
	a.reload.Lock()
	defer a.reload.Unlock()
	err := a.apply(c)
	a.metrics.reloaded(err)
	if err != nil {
		a.log.Error("the configuration was not reloaded; the old one stays in use", "err", err)
		return err
	}
	if keys := config.Diff(a.config, c); len(keys) > 0 {
		a.log.Warn("the configuration was reloaded, but some changes need a restart",
			"restart", strings.Join(keys, " "))
	} else {
		a.log.Info("the configuration was reloaded", "upstreams", len(c.Upstreams))
	}
	a.config = c
	return nil
}

func (a *App) apply(c *config.Config) error {
	setup, err := a.sites.setup(c)
	if err != nil {
		return err
	}
	if err := a.readFiles(c); err != nil {
		return err
	}
	if a.level != nil {
		if err := setLevel(a.level, c.Log.Level); err != nil {
			return fmt.Errorf("log.level: %w", err)
		}
	}
	a.puller.Use(setup)
	a.sites.settle()
	return nil
}

// NotReloaded tells that a configuration was refused before it came to Reload.
func (a *App) NotReloaded(err error) {
	a.metrics.reloaded(err)
	a.log.Error("the configuration was not reloaded; the old one stays in use", "err", err)
}
