package gar

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/registrymirror/mirror/auth"
	"github.com/registrymirror/mirror/auth/internal/ask"
	"github.com/registrymirror/mirror/internal/clouds"
)

// Options are the registry, and the identity.
type Options struct {
	Host string // the registry; see clouds.GAR
	// KeyFile is a service account's key, JSON. Empty: that of GOOGLE_APPLICATION_CREDENTIALS, else the metadata server.
	KeyFile string
	// Env gives the variables that Google's tools know: GOOGLE_APPLICATION_CREDENTIALS and GCE_METADATA_HOST. Nil:
	// os.Getenv.
	Env func(name string) string
	// Transport replaces the network. Nil: the real one, with the proxy of the environment, but for the metadata server.
	Transport http.RoundTripper
}

// username is that of an access token in the place of a password.
const username = "oauth2accesstoken"

// localLimit is how long the metadata server may take.
const localLimit = 3 * time.Second

// New makes the source of a registry's login. No request is sent yet.
func New(o Options, r auth.Refresh) (*auth.Refreshed, error) {
	if !clouds.GAR.Is(o.Host) {
		return nil, fmt.Errorf("%s is not a registry of Google's: gar gives a login for %s", o.Host, clouds.GAR.Example)
	}
	if o.Env == nil {
		o.Env = os.Getenv
	}
	r.Log = cmp.Or(r.Log, slog.New(slog.DiscardHandler))
	c := &client{o: o, far: ask.Client(o.Transport), near: ask.Local(o.Transport), log: r.Log}
	r.Kind, r.For, r.Fetch = "gar", o.Host, c.fetch
	return auth.NewRefreshed(r), nil
}

type client struct {
	o         Options
	far, near *http.Client
	log       *slog.Logger
}

func (c *client) fetch(ctx context.Context) (auth.Grant, error) {
	if file := cmp.Or(c.o.KeyFile, c.o.Env("GOOGLE_APPLICATION_CREDENTIALS")); file != "" {
		return c.withKey(ctx, file)
	}
	return c.metadata(ctx)
}

// metadata asks the machine's metadata server, or that of GKE for the pod's own service account.
func (c *client) metadata(ctx context.Context) (auth.Grant, error) {
	host := cmp.Or(c.o.Env("GCE_METADATA_HOST"), "169.254.169.254") // by name it would depend on DNS
	u := url.URL{Scheme: "http", Host: host, Path: "/computeMetadata/v1/instance/service-accounts/default/token"}
	a, err := ask.Do(ctx, c.near, ask.Request{
		URL: u.String(), Header: http.Header{"Metadata-Flavor": {"Google"}}, Limit: localLimit,
	})
	if e, ok := errors.AsType[*ask.Error](err); ok && e.Status == http.StatusNotFound {
		return auth.Grant{}, fmt.Errorf("no Google credentials: the machine has no service account (%w); give it one that "+
			"may read the registry, or set gar.keyFile", err)
	}
	if err != nil {
		return auth.Grant{}, fmt.Errorf("no Google credentials: the metadata server, which is there on Google Cloud alone, "+
			"can't be asked (%w); elsewhere set gar.keyFile", err)
	}
	if a.Header.Get("Metadata-Flavor") != "Google" {
		return auth.Grant{}, fmt.Errorf("%s is not Google's metadata server", host)
	}
	return read(a, host)
}

// read makes an answer with an access token a login.
func read(a *ask.Answer, host string) (auth.Grant, error) {
	var doc struct {
		AccessToken string  `json:"access_token"`
		ExpiresIn   float64 `json:"expires_in"`
		TokenType   string  `json:"token_type"`
	}
	if err := a.JSON(host, &doc); err != nil {
		return auth.Grant{}, err
	}
	switch {
	case doc.AccessToken == "":
		return auth.Grant{}, fmt.Errorf("%s answered without an access token", host)
	case doc.TokenType != "" && !strings.EqualFold(doc.TokenType, "Bearer"):
		return auth.Grant{}, fmt.Errorf("%s answered with a token of another type than Bearer", host)
	case doc.ExpiresIn < 0 || doc.ExpiresIn > 7*24*3600:
		return auth.Grant{}, fmt.Errorf("%s answered with a token that lives %g s", host, doc.ExpiresIn)
	}
	g := auth.Grant{Credential: auth.Credential{Username: username, Password: auth.NewSecret(doc.AccessToken)}}
	if doc.ExpiresIn > 0 {
		g.Expires = time.Now().Add(time.Duration(doc.ExpiresIn * float64(time.Second)))
	} else {
		g.Hold = 5 * time.Minute // they live an hour at most
	}
	return g, nil
}
