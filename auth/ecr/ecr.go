package ecr

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
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
	Host string // the registry; see clouds.ECR
	// Env gives the variables that the AWS tools know. Nil: os.Getenv. Beside those of credentials they are
	// AWS_ENDPOINT_URL_ECR, _ECR_PUBLIC and _STS, for endpoints in a private network.
	Env func(name string) string
	// Transport replaces the network. Nil: the real one, with the proxy of the environment for services, and without one
	// for the endpoints of containers and instances.
	Transport http.RoundTripper
}

// New makes the source of a registry's login. No request is sent yet.
func New(o Options, r auth.Refresh) (*auth.Refreshed, error) {
	p, ok := placeOf(o.Host)
	if !ok {
		return nil, fmt.Errorf("%s is not a registry of Amazon's: ecr gives a login for %s", o.Host, clouds.ECR.Example)
	}
	if o.Env == nil {
		o.Env = os.Getenv
	}
	r.Log = cmp.Or(r.Log, slog.New(slog.DiscardHandler))
	c := &client{o: o, place: p, far: ask.Client(o.Transport), near: ask.Local(o.Transport), log: r.Log}
	r.Kind, r.For, r.Fetch = "ecr", o.Host, c.fetch
	return auth.NewRefreshed(r), nil
}

type client struct {
	o         Options
	place     place
	far, near *http.Client
	log       *slog.Logger
}

// endpoint is the URL of a service: that of the environment, else that of host.
func (c *client) endpoint(service, host string) (*url.URL, error) {
	u, err := url.Parse(cmp.Or(c.o.Env("AWS_ENDPOINT_URL_"+service), "https://"+host))
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return nil, fmt.Errorf("AWS_ENDPOINT_URL_%s is not a URL", service)
	}
	return u.JoinPath("/"), nil
}

// fetch gets a login, which lives 12 hours.
func (c *client) fetch(ctx context.Context) (auth.Grant, error) {
	k, err := c.keys(ctx)
	if err != nil {
		return auth.Grant{}, err
	}
	a, err := c.authorization(ctx, k)
	if err != nil {
		return auth.Grant{}, fmt.Errorf("log in to %s with the keys of %s: %w", c.o.Host, k.source, err)
	}
	g, err := c.read(a)
	if err != nil {
		return auth.Grant{}, fmt.Errorf("log in to %s: %w", c.o.Host, err)
	}
	return g, nil
}

// authorization asks for the login. Where our clock is wrong, it asks again by the clock of the answer.
func (c *client) authorization(ctx context.Context, k keys) (*ask.Answer, error) {
	service, target, variable := "ecr", "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken", "ECR"
	if c.place.public {
		service, target, variable = "ecr-public", "SpencerFrontendService.GetAuthorizationToken", "ECR_PUBLIC"
	}
	endpoint, err := c.endpoint(variable, c.place.api)
	if err != nil {
		return nil, err
	}
	const event = "local clock differs from AWS's; using AWS's time"
	return ask.ByClock(ctx, c.log, event, func(now time.Time) (*ask.Answer, error) {
		body := []byte("{}")
		req := &http.Request{Method: http.MethodPost, URL: endpoint, Header: http.Header{
			"Content-Type": {"application/x-amz-json-1.1"}, "X-Amz-Target": {target},
		}}
		sign(req, body, k, c.place.region, service, now)
		secrets := append(k.secrets(), req.Header.Get("Authorization"))
		return ask.Do(ctx, c.far, ask.Request{URL: endpoint.String(), Header: req.Header, Body: body, Secrets: secrets})
	})
}

// authorizationData is a login. Private registries give a list with one.
type authorizationData struct {
	AuthorizationToken string  `json:"authorizationToken"`
	ExpiresAt          float64 `json:"expiresAt"`
}

func (c *client) read(a *ask.Answer) (auth.Grant, error) {
	var doc struct {
		Data json.RawMessage `json:"authorizationData"`
	}
	if err := a.JSON(c.place.api, &doc); err != nil {
		return auth.Grant{}, err
	}
	var d authorizationData
	if err := json.Unmarshal(doc.Data, &d); err != nil {
		var list []authorizationData
		if err := json.Unmarshal(doc.Data, &list); err != nil || len(list) == 0 {
			return auth.Grant{}, fmt.Errorf("%s answered without a login", c.place.api)
		}
		d = list[0]
	}
	raw, err := base64.StdEncoding.DecodeString(d.AuthorizationToken)
	name, password, ok := strings.Cut(string(raw), ":")
	if err != nil || !ok || password == "" {
		return auth.Grant{}, fmt.Errorf("%s answered with a login that is not the base64 of USER:PASSWORD", c.place.api)
	}
	g := auth.Grant{Credential: auth.Credential{Username: name, Password: auth.NewSecret(password)}}
	if d.ExpiresAt > 0 && d.ExpiresAt < 1<<40 {
		life := a.Life(time.Unix(int64(d.ExpiresAt), 0))
		if life <= 0 {
			return auth.Grant{}, fmt.Errorf("%s answered with a login that has expired", c.place.api)
		}
		g.Expires = time.Now().Add(life)
	}
	return g, nil
}
