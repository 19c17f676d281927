package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/registrymirror/mirror/config"
	"github.com/registrymirror/mirror/identity"
	"github.com/registrymirror/mirror/internal/clouds"
	"github.com/registrymirror/mirror/oci"
)

// The words of the kubelet's protocol.
const (
	providerAPI          = "credentialprovider.kubelet.k8s.io/v1"
	providerRequestKind  = "CredentialProviderRequest"
	providerResponseKind = "CredentialProviderResponse"
)

const (
	// maxProviderRequest bounds a request in bytes: the annotations of a service account have at most 256 KiB, its token a few.
	maxProviderRequest = 1 << 20
	// accountUser is the user whose password is the token. The mirror takes any name; a colon would end it.
	accountUser = "serviceaccount"
	// providerMargin is taken off a token's life: the kubelet counts from the end of this program, which it gives a minute.
	providerMargin = time.Minute
	// maxProviderCache is how long an answer is kept at most. The kubelet has a new token within the hour.
	maxProviderCache = time.Hour
)

func newCredentialProviderCmd() *cobra.Command {
	var p credentialProvider
	cmd := &cobra.Command{
		Use:   "credential-provider",
		Short: "Log pods in to the mirror by their service accounts, as a credential provider of the kubelet",
		Long: `Log pods in to the mirror by their service accounts, so that they need no pull secret. The
kubelet runs this command for images that are named by the mirror's host: it reads a
CredentialProviderRequest on standard input, and writes a CredentialProviderResponse with the
token of the pod's service account as the password. It asks nothing on the network.

The token is given for images whose host is exactly one of --mirror. For any other image the
answer has no credentials, and the kubelet goes on with its other ones. The host of a registry
is refused as --mirror: the token would go to that registry.

An error stands in the log of the kubelet, which then goes on without these credentials, too.
docs/access.md has the kubelet's configuration, and the rights that nodes need (Kubernetes 1.34
or later).

Exit codes: 0 answered, with or without credentials; 1 the request can't be read, or has no
token that the mirror would accept; 2 wrong usage.`,
		Example: `  mirror credential-provider --mirror mirror.example:5000 --audience mirror`,
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := p.check(); err != nil {
				return err
			}
			text, err := awaited(cmd.Context(), func() (string, error) { return p.answer(cmd.InOrStdin(), time.Now()) })
			if err != nil {
				return &exitError{exitFailed, err}
			}
			return write(cmd.OutOrStdout(), text)
		},
	}
	cmd.Flags().StringArrayVar(&p.mirrors, "mirror", nil, "`HOST[:PORT]` of the mirror, as in the names of images; may be repeated")
	cmd.Flags().StringVar(&p.audience, "audience", "", "clients.kubernetes.audience of the mirror: a token for another one is not given; empty: it is not compared")
	return cmd
}

// credentialProvider answers requests of a kubelet.
type credentialProvider struct {
	mirrors  []string // HOST or HOST:PORT; in lower case after check
	audience string   // empty: any
}

// check reports what is wrong with the flags.
func (p *credentialProvider) check() error {
	if len(p.mirrors) == 0 {
		return errors.New("credential-provider needs --mirror HOST[:PORT]: the mirror's host as in the names of images, mirror.example:5000")
	}
	known, err := config.Load("", nil)
	if err != nil {
		return err
	}
	for i, m := range p.mirrors {
		if err := checkOwnHost(m, known.Upstreams); err != nil {
			return fmt.Errorf("--mirror %s: %w", m, err)
		}
		p.mirrors[i] = strings.ToLower(m)
	}
	return nil
}

// checkOwnHost reports why a host can't be the mirror's.
func checkOwnHost(text string, known config.Upstreams) error {
	if scheme, rest, ok := strings.Cut(text, "://"); ok {
		return fmt.Errorf("names of images have no %s://; write %s", scheme, strings.TrimRight(rest, "/"))
	}
	host := strings.ToLower(text)
	bare := host
	if name, _, err := net.SplitHostPort(host); err == nil {
		bare = name
	}
	if isRegistry(bare, known) {
		return errors.New("this is a registry, which would get the tokens of pods; write the host of the mirror")
	}
	if strings.HasPrefix(host, "[") && strings.HasSuffix(host, "]") {
		return errors.New("the kubelet compares an IPv6 address only with its port; name the mirror's images with the port, and write it here")
	}
	if ref, err := oci.ParseRef(host + "/image"); err != nil || ref.Host != host {
		return errors.New("no image can be named by this host; write HOST or HOST:PORT, with a dot in it or a port, as in mirror.example:5000")
	}
	return nil
}

// isRegistry reports whether a host without a port, in lower case, is one of the registries that the mirror knows by itself, or of
// their own hosts.
func isRegistry(host string, known config.Upstreams) bool {
	below := func(of string) bool { return host == of || strings.HasSuffix(host, "."+of) }
	for _, u := range known {
		hosts := append(append([]string{u.Name}, u.Aliases...), u.AuthHosts...)
		for _, e := range u.Endpoints {
			if at, err := url.Parse(e.URL); err == nil {
				hosts = append(hosts, at.Hostname())
			}
		}
		if slices.ContainsFunc(hosts, below) {
			return true
		}
	}
	return slices.ContainsFunc(clouds.All, func(c *clouds.Cloud) bool { return c.Is(host) })
}

// providerRequest is what the kubelet asks. It may have more than this.
type providerRequest struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Image      string `json:"image"` // without tag and digest
	Token      string `json:"serviceAccountToken"`
}

// providerResponse is the answer. The kubelet refuses one that has more than its own type.
type providerResponse struct {
	APIVersion    string                   `json:"apiVersion"`
	Kind          string                   `json:"kind"`
	CacheKeyType  string                   `json:"cacheKeyType"`
	CacheDuration string                   `json:"cacheDuration"`
	Auth          map[string]providerLogin `json:"auth"` // by the host, as the image has it; nil: none
}

type providerLogin struct {
	Username string `json:"username"`
	Password string `json:"password"`
}

// answer reads a request, and returns the response to it. An error shows claims of the token, and never the token.
func (p *credentialProvider) answer(stdin io.Reader, now time.Time) (string, error) {
	request, err := readProviderRequest(stdin)
	if err != nil {
		return "", err
	}
	// The token is the same for all images of the host, so the kubelet may keep the answer for the host.
	response := providerResponse{
		APIVersion: providerAPI, Kind: providerResponseKind, CacheKeyType: "Registry", CacheDuration: time.Duration(0).String(),
	}
	// A host that is not in ASCII may be equal in lower case only.
	if host, _, more := strings.Cut(request.Image, "/"); more && oci.IsHostText(host) && slices.Contains(p.mirrors, strings.ToLower(host)) {
		expires, err := p.checkToken(request.Token, now)
		if err != nil {
			return "", fmt.Errorf("no credentials for %s: %w", host, err)
		}
		if !expires.IsZero() {
			left := min(expires.Sub(now)-providerMargin, maxProviderCache)
			response.CacheDuration = max(left, 0).Truncate(time.Second).String()
		}
		response.Auth = map[string]providerLogin{host: {accountUser, request.Token}}
	}
	b, err := json.Marshal(response)
	if err != nil {
		return "", err
	}
	return string(b) + "\n", nil
}

// readProviderRequest reads a request.
func readProviderRequest(stdin io.Reader) (r providerRequest, err error) {
	text, err := io.ReadAll(io.LimitReader(stdin, maxProviderRequest+1))
	switch {
	case err != nil:
		return r, fmt.Errorf("read the request of the kubelet: %w", err)
	case len(text) > maxProviderRequest:
		return r, fmt.Errorf("the request has more than %d KiB; ask for fewer annotations of service accounts", maxProviderRequest>>10)
	case len(strings.TrimSpace(string(text))) == 0:
		return r, errors.New("standard input is empty; the kubelet runs this command, with a " + providerRequestKind)
	}
	if err := json.Unmarshal(text, &r); err != nil { // which would quote the token
		if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok && wrong.Field != "" {
			return r, fmt.Errorf("%q of the request is not a text; the kubelet runs this command, with a %s", wrong.Field, providerRequestKind)
		}
		return r, errors.New("the request is not an object in JSON; the kubelet runs this command, with a " + providerRequestKind)
	}
	switch {
	case r.Kind != providerRequestKind:
		return r, fmt.Errorf("the request is a %.60q, want %s", r.Kind, providerRequestKind)
	case r.APIVersion != providerAPI:
		return r, fmt.Errorf("the request is of apiVersion %.60q; write apiVersion: %s for this provider in the kubelet's CredentialProviderConfig",
			r.APIVersion, providerAPI)
	case r.Image == "":
		return r, errors.New("the request names no image; the kubelet runs this command, with a " + providerRequestKind)
	}
	return r, nil
}

// checkToken reports why a token is not one for the mirror, as far as it says so itself, and when it ends; zero: it does not say.
func (p *credentialProvider) checkToken(token string, now time.Time) (expires time.Time, err error) {
	const attributes = "tokenAttributes.serviceAccountTokenAudience"
	if token == "" {
		return expires, errors.New("the kubelet sent no token of a service account; in its CredentialProviderConfig set " + attributes +
			", and requireServiceAccount: true, so that it does not ask for pods without a service account")
	}
	said, err := identity.ReadUnchecked(token)
	switch {
	case err != nil:
		return expires, err
	case said.Who == "":
		return expires, errors.New("the token is not of a service account")
	case !said.Expires.IsZero() && !now.Before(said.Expires):
		return expires, fmt.Errorf("the token of %s has expired at %s; compare the clocks of the node and the API server",
			said.Who, said.Expires.UTC().Format(time.RFC3339))
	case slices.Contains(said.Audience, said.Issuer): // by default tokens for the API server itself have this audience
		return expires, fmt.Errorf("the token of %s is for the API server, and would give its rights in the cluster; set %s to the audience of the mirror",
			said.Who, attributes)
	case p.audience != "" && !slices.Equal(said.Audience, []string{p.audience}):
		return expires, fmt.Errorf("the token of %s is for the audience %.200q, want %q; set %s to it", said.Who, said.Audience, p.audience, attributes)
	}
	return said.Expires, nil
}
