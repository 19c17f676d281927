package acr

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/registrymirror/mirror/auth"
	"github.com/registrymirror/mirror/auth/internal/ask"
	"github.com/registrymirror/mirror/internal/clouds"
)

// audience is that of Entra's token, in all of Azure's clouds.
const audience = "https://containerregistry.azure.net"

// authorities are Entra's URLs, by the domain of a registry.
var authorities = map[string]string{
	"io": "https://login.microsoftonline.com/", "cn": "https://login.chinacloudapi.cn/",
	"us": "https://login.microsoftonline.us/",
}

// localLimit is how long the machine's metadata may take.
const localLimit = 3 * time.Second

// Options are the registry, and the identity.
type Options struct {
	Host string // the registry; see clouds.ACR
	// Env gives the variables that Azure's tools know: AZURE_CLIENT_ID, AZURE_TENANT_ID, AZURE_FEDERATED_TOKEN_FILE,
	// AZURE_CLIENT_SECRET, AZURE_AUTHORITY_HOST, AZURE_POD_IDENTITY_AUTHORITY_HOST (of the metadata). Nil: os.Getenv.
	Env func(name string) string
	// Exchange is the registry's own endpoint, for a private link. Nil: https://Host.
	Exchange *url.URL
	// Transport replaces the network. Nil: the real one, with the proxy of the environment, but for the metadata.
	Transport http.RoundTripper
}

// New makes the source of a registry's login. No request is sent yet.
func New(o Options, r auth.Refresh) (*auth.Refreshed, error) {
	if !clouds.ACR.Is(o.Host) {
		return nil, fmt.Errorf("%s is not a registry of Azure's: acr gives a login for %s", o.Host, clouds.ACR.Example)
	}
	if o.Env == nil {
		o.Env = os.Getenv
	}
	if o.Exchange == nil {
		o.Exchange = &url.URL{Scheme: "https", Host: o.Host}
	}
	c := &client{o: o, far: ask.Client(o.Transport), near: ask.Local(o.Transport)}
	r.Kind, r.For, r.Fetch = "acr", o.Host, c.fetch
	return auth.NewRefreshed(r), nil
}

type client struct {
	o         Options
	far, near *http.Client
}

// fetch gets a token of Entra, and for it the registry's refresh token.
func (c *client) fetch(ctx context.Context) (auth.Grant, error) {
	token, err := c.entra(ctx)
	if err != nil {
		return auth.Grant{}, err
	}
	g, err := c.exchange(ctx, token)
	if err != nil {
		return auth.Grant{}, fmt.Errorf("trade Entra's token at %s: %w", c.o.Host, err)
	}
	return g, nil
}

// entra gets a token for the registries' audience. The first identity that is configured is used.
func (c *client) entra(ctx context.Context) (string, error) {
	id, tenant := c.o.Env("AZURE_CLIENT_ID"), c.o.Env("AZURE_TENANT_ID")
	form := url.Values{"grant_type": {"client_credentials"}, "client_id": {id}, "scope": {audience + "/.default"}}
	var what, secret string
	switch file := c.o.Env("AZURE_FEDERATED_TOKEN_FILE"); {
	case file != "":
		what = "workload identity"
		var err error
		if secret, err = ask.File(file); err != nil {
			return "", fmt.Errorf("AZURE_FEDERATED_TOKEN_FILE: %w", err)
		}
		form.Set("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
		form.Set("client_assertion", secret)
	case c.o.Env("AZURE_CLIENT_SECRET") != "":
		what = "client secret"
		secret = c.o.Env("AZURE_CLIENT_SECRET")
		form.Set("client_secret", secret)
	default:
		return c.managed(ctx, id)
	}
	if id == "" || tenant == "" || strings.ContainsAny(tenant, "/?#% ") {
		return "", fmt.Errorf("%s: AZURE_CLIENT_ID and AZURE_TENANT_ID must be set too", what)
	}
	where, err := c.authority()
	if err != nil {
		return "", err
	}
	where = where.JoinPath(tenant, "oauth2/v2.0/token")
	a, err := ask.Do(ctx, c.far, ask.Request{URL: where.String(), Form: form, Secrets: []string{secret}})
	if err != nil {
		return "", fmt.Errorf("%s %s: %w", what, id, err)
	}
	return accessToken(a, where.Host)
}

// authority is Entra's URL.
func (c *client) authority() (*url.URL, error) {
	domain := c.o.Host[strings.LastIndexByte(c.o.Host, '.')+1:]
	u, err := url.Parse(cmp.Or(c.o.Env("AZURE_AUTHORITY_HOST"), authorities[domain]))
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Hostname() != "127.0.0.1" {
		return nil, errors.New("AZURE_AUTHORITY_HOST is not an https URL")
	}
	return u, nil
}

// managed asks the machine's metadata for the managed identity; id chooses one where it has several.
func (c *client) managed(ctx context.Context, id string) (string, error) {
	base := cmp.Or(strings.TrimSuffix(c.o.Env("AZURE_POD_IDENTITY_AUTHORITY_HOST"), "/"), "http://169.254.169.254")
	q := url.Values{"api-version": {"2018-02-01"}, "resource": {audience}}
	if id != "" {
		q.Set("client_id", id)
	}
	a, err := ask.Do(ctx, c.near, ask.Request{
		URL: base + "/metadata/identity/oauth2/token?" + q.Encode(), Header: http.Header{"Metadata": {"true"}}, Limit: localLimit,
	})
	if err != nil {
		return "", fmt.Errorf("no Azure credentials: the machine's managed identity, which comes last, can't be had (%w); "+
			"give the mirror a workload identity or the machine an identity that may AcrPull", err)
	}
	return accessToken(a, "the machine's metadata")
}

func accessToken(a *ask.Answer, host string) (string, error) {
	var doc struct {
		AccessToken string `json:"access_token"`
	}
	if err := a.JSON(host, &doc); err != nil {
		return "", err
	}
	if doc.AccessToken == "" {
		return "", fmt.Errorf("%s answered without an access token", host)
	}
	return doc.AccessToken, nil
}

// exchange trades Entra's token for the registry's refresh token.
func (c *client) exchange(ctx context.Context, token string) (auth.Grant, error) {
	form := url.Values{"grant_type": {"access_token"}, "service": {c.o.Host}, "access_token": {token}}
	if tenant := c.o.Env("AZURE_TENANT_ID"); tenant != "" {
		form.Set("tenant", tenant)
	}
	where := c.o.Exchange.JoinPath("/oauth2/exchange")
	a, err := ask.Do(ctx, c.far, ask.Request{URL: where.String(), Form: form, Secrets: []string{token}})
	if err != nil {
		return auth.Grant{}, err
	}
	var doc struct {
		RefreshToken string `json:"refresh_token"`
	}
	if err := a.JSON(where.Host, &doc); err != nil {
		return auth.Grant{}, err
	}
	if doc.RefreshToken == "" {
		return auth.Grant{}, fmt.Errorf("%s answered without a refresh token", where.Host)
	}
	g := auth.Grant{Credential: auth.Credential{Identity: auth.NewSecret(doc.RefreshToken)}}
	if life := auth.TokenLife(doc.RefreshToken, time.Now()); life > 0 {
		g.Expires = time.Now().Add(life)
	} else {
		g.Hold = 30 * time.Minute // they live about three hours
	}
	return g, nil
}
