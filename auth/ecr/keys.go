package ecr

import (
	"cmp"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/registrymirror/mirror/auth"
	"github.com/registrymirror/mirror/auth/internal/ask"
	"github.com/registrymirror/mirror/internal/text"
)

// localLimit is how long this machine's metadata may take.
const localLimit = 2 * time.Second

// errNoKeys says what to do where no keys are configured.
var errNoKeys = errors.New("no AWS credentials: give the mirror's service account or instance a role that may " +
	"ecr:GetAuthorizationToken, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")

// keys finds the keys with which to sign. The first place that is configured is used: its error is not hidden by trying the
// next.
func (c *client) keys(ctx context.Context) (keys, error) {
	env := c.o.Env
	if id, secret := env("AWS_ACCESS_KEY_ID"), env("AWS_SECRET_ACCESS_KEY"); id != "" && secret != "" {
		return keys{
			id: id, secret: auth.NewSecret(secret), token: auth.NewSecret(env("AWS_SESSION_TOKEN")), source: "the environment",
		}, nil
	}
	if file, role := env("AWS_WEB_IDENTITY_TOKEN_FILE"), env("AWS_ROLE_ARN"); file != "" && role != "" {
		return c.webIdentity(ctx, file, role)
	}
	if full, relative := env("AWS_CONTAINER_CREDENTIALS_FULL_URI"), env("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"); full != "" ||
		relative != "" {
		return c.container(ctx, full, relative)
	}
	if strings.EqualFold(env("AWS_EC2_METADATA_DISABLED"), "true") {
		return keys{}, errNoKeys
	}
	k, err := c.instance(ctx)
	if err != nil {
		return keys{}, fmt.Errorf("%w (the instance's metadata, which came last: %w)", errNoKeys, err)
	}
	return k, nil
}

// webIdentity trades the service account's token for keys of a role (IRSA).
func (c *client) webIdentity(ctx context.Context, file, role string) (keys, error) {
	token, err := ask.File(file)
	if err != nil {
		return keys{}, fmt.Errorf("AWS_WEB_IDENTITY_TOKEN_FILE: %w", err)
	}
	form := url.Values{
		"Action": {"AssumeRoleWithWebIdentity"}, "Version": {"2011-06-15"}, "RoleArn": {role},
		"RoleSessionName": {cmp.Or(c.o.Env("AWS_ROLE_SESSION_NAME"), "mirror")}, "WebIdentityToken": {token},
	}
	endpoint, err := c.endpoint("STS", c.place.sts)
	if err != nil {
		return keys{}, err
	}
	a, err := ask.Do(ctx, c.far, ask.Request{URL: endpoint.String(), Form: form, Secrets: []string{token}})
	if err != nil {
		return keys{}, fmt.Errorf("assume %s with the web identity: %w", role, err)
	}
	var doc struct {
		Keys struct {
			AccessKeyID     string `xml:"AccessKeyId"`
			SecretAccessKey string `xml:"SecretAccessKey"`
			SessionToken    string `xml:"SessionToken"`
		} `xml:"AssumeRoleWithWebIdentityResult>Credentials"`
	}
	if err := xml.Unmarshal(a.Body, &doc); err != nil || doc.Keys.SecretAccessKey == "" || doc.Keys.AccessKeyID == "" {
		return keys{}, fmt.Errorf("assume %s with the web identity: the answer has no keys", role)
	}
	return keys{
		id: doc.Keys.AccessKeyID, secret: auth.NewSecret(doc.Keys.SecretAccessKey),
		token: auth.NewSecret(doc.Keys.SessionToken), source: "the web identity",
	}, nil
}

// answer is that of the endpoints of containers and instances.
type answer struct {
	Code            string
	Message         string
	AccessKeyID     string `json:"AccessKeyId"`
	SecretAccessKey string
	Token           string
}

func (d answer) keys(source string) (keys, error) {
	if d.Code != "" && d.Code != "Success" || d.AccessKeyID == "" || d.SecretAccessKey == "" {
		return keys{}, fmt.Errorf("%s gave no keys: %s", source,
			text.FirstLine(d.Code+" "+d.Message, ask.MaxText, d.SecretAccessKey, d.Token))
	}
	return keys{
		id: d.AccessKeyID, secret: auth.NewSecret(d.SecretAccessKey), token: auth.NewSecret(d.Token),
		source: source,
	}, nil
}

// container asks the endpoint that ECS or EKS Pod Identity gives to a container.
func (c *client) container(ctx context.Context, full, relative string) (keys, error) {
	where := full
	if relative != "" {
		where = "http://169.254.170.2" + relative
	}
	u, err := url.Parse(where)
	if err != nil || u.Host == "" {
		return keys{}, errors.New("AWS_CONTAINER_CREDENTIALS_FULL_URI is not a URL")
	}
	if !trusted(u) {
		return keys{}, fmt.Errorf("AWS_CONTAINER_CREDENTIALS_FULL_URI: %s is neither https nor an address of this machine",
			u.Host)
	}
	token := c.o.Env("AWS_CONTAINER_AUTHORIZATION_TOKEN")
	if file := c.o.Env("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"); file != "" {
		if token, err = ask.File(file); err != nil {
			return keys{}, fmt.Errorf("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE: %w", err)
		}
	}
	if strings.ContainsAny(token, "\r\n") {
		return keys{}, errors.New("the authorization token of the container's endpoint has several lines")
	}
	r := ask.Request{URL: u.String(), Secrets: []string{token}}
	if token != "" {
		r.Header = http.Header{"Authorization": {token}}
	}
	a, err := ask.Do(ctx, c.near, r)
	if err != nil {
		return keys{}, fmt.Errorf("keys of the container: %w", err)
	}
	var doc answer
	if err := a.JSON(u.Host, &doc); err != nil {
		return keys{}, fmt.Errorf("keys of the container: %w", err)
	}
	return doc.keys("the container's endpoint")
}

// trusted reports whether keys may be requested at a URL, by the rule of the SDKs: over TLS, or at an address of this machine.
func trusted(u *url.URL) bool {
	if u.Scheme != "http" {
		return u.Scheme == "https"
	}
	addr, _ := netip.ParseAddr(u.Hostname())
	switch addr.String() {
	case "169.254.170.2", "169.254.170.23", "fd00:ec2::23":
		return true
	}
	return addr.IsLoopback() || u.Hostname() == "localhost"
}

// instance asks the metadata of an EC2 instance, version 2.
func (c *client) instance(ctx context.Context) (keys, error) {
	base := cmp.Or(strings.TrimSuffix(c.o.Env("AWS_EC2_METADATA_SERVICE_ENDPOINT"), "/"), "http://169.254.169.254")
	a, err := ask.Do(ctx, c.near, ask.Request{
		Method: http.MethodPut, URL: base + "/latest/api/token", Limit: localLimit,
		Header: http.Header{"X-Aws-Ec2-Metadata-Token-Ttl-Seconds": {"300"}},
	})
	if err != nil {
		return keys{}, fmt.Errorf("%w; in a container the instance's hop limit must be 2 or more", err)
	}
	token := strings.TrimSpace(string(a.Body))
	if token == "" || strings.ContainsAny(token, "\r\n") {
		return keys{}, errors.New("the instance's metadata gave no token")
	}
	get := func(role string) (*ask.Answer, error) {
		return ask.Do(ctx, c.near, ask.Request{
			URL: base + "/latest/meta-data/iam/security-credentials/" + role, Limit: localLimit,
			Header: http.Header{"X-Aws-Ec2-Metadata-Token": {token}}, Secrets: []string{token},
		})
	}
	if a, err = get(""); err != nil {
		return keys{}, fmt.Errorf("role of the instance: %w", err)
	}
	role, _, _ := strings.Cut(strings.TrimSpace(string(a.Body)), "\n")
	if role == "" || len(role) > 128 || strings.ContainsAny(role, "/?#% ") {
		return keys{}, errors.New("the instance has no role")
	}
	if a, err = get(role); err != nil {
		return keys{}, fmt.Errorf("keys of role %s: %w", role, err)
	}
	var doc answer
	if err := a.JSON("the instance's metadata", &doc); err != nil {
		return keys{}, err
	}
	return doc.keys("the instance's metadata")
}
