package kube

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"

	"github.com/registrymirror/mirror/internal/text"
)

// tokenReview is the part of an authentication.k8s.io/v1 TokenReview that is used here.
type tokenReview struct {
	APIVersion string      `json:"apiVersion"`
	Kind       string      `json:"kind"`
	Spec       reviewSpec  `json:"spec"`
	Status     reviewState `json:"status,omitzero"`
}

type reviewSpec struct {
	Token     string   `json:"token"`
	Audiences []string `json:"audiences"`
}

type reviewState struct {
	Authenticated bool     `json:"authenticated,omitempty"`
	Audiences     []string `json:"audiences,omitempty"`
	Error         string   `json:"error,omitempty"`
	User          struct {
		Username string `json:"username,omitempty"`
	} `json:"user,omitzero"`
}

// ReviewToken asks the API server whether a token is valid for an audience, and returns the name of its user. Empty: it is not,
// and why says what the API server says. An API server that knows nothing of audiences accepts no token. The service account must be
// allowed to create tokenreviews, as by the ClusterRole system:auth-delegator.
func (c *Client) ReviewToken(ctx context.Context, token, audience string) (user, why string, err error) {
	review := tokenReview{
		APIVersion: "authentication.k8s.io/v1", Kind: "TokenReview", Spec: reviewSpec{Token: token, Audiences: []string{audience}},
	}
	var answer tokenReview
	const path = "/apis/authentication.k8s.io/v1/tokenreviews"
	if err := c.ask(ctx, "review a token", http.MethodPost, path, nil, review, &answer); err != nil {
		return "", "", err
	}
	s := answer.Status
	if !s.Authenticated || !slices.Contains(s.Audiences, audience) {
		return "", text.FirstLine(s.Error, 200, token), nil
	}
	return s.User.Username, "", nil
}

// Keys is the set of keys, JWKS, with which the cluster signs the tokens of its service accounts. Each of these may read it, by the
// ClusterRole system:service-account-issuer-discovery, unless the operator has taken that away.
func (c *Client) Keys(ctx context.Context) ([]byte, error) {
	var set json.RawMessage
	err := c.ask(ctx, "read the keys of service accounts", http.MethodGet, "/openid/v1/jwks", nil, nil, &set)
	return set, err
}
