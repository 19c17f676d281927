package plugin

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/registrymirror/mirror/auth"
)

// The words of the protocol.
const (
	apiVersion   = "credentialprovider.kubelet.k8s.io/v1"
	requestKind  = "CredentialProviderRequest"
	responseKind = "CredentialProviderResponse"
)

// keyType is the scope of an answer.
type keyType string

const (
	keyImage    keyType = "Image"
	keyRegistry keyType = "Registry"
	keyGlobal   keyType = "Global"
)

type request struct {
	APIVersion          string            `json:"apiVersion"`
	Kind                string            `json:"kind"`
	Image               string            `json:"image"`
	ServiceAccountToken string            `json:"serviceAccountToken,omitempty"`
	Annotations         map[string]string `json:"serviceAccountAnnotations,omitempty"`
}

// response is an answer for one image.
type response struct {
	keys keyType
	hold time.Duration // how long it may be used; -1: not given
	cred auth.Credential
}

// parse reads an answer. An error quotes nothing of it.
func parse(out []byte, image string) (response, error) {
	var doc struct {
		APIVersion    string  `json:"apiVersion"`
		Kind          string  `json:"kind"`
		CacheKeyType  keyType `json:"cacheKeyType"`
		CacheDuration *string `json:"cacheDuration"`
		Auth          map[string]struct {
			Username string `json:"username"`
			Password string `json:"password"`
		} `json:"auth"`
	}
	if err := json.Unmarshal(out, &doc); err != nil {
		if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
			return response{}, fmt.Errorf("its output has the wrong type of value in %q", e.Field)
		}
		return response{}, errors.New("its output is not JSON")
	}
	if doc.Kind != responseKind || doc.APIVersion != apiVersion {
		return response{}, fmt.Errorf("its output is not a %s of %s; give it the arguments with which it speaks that "+
			"version", responseKind, apiVersion)
	}
	r := response{keys: doc.CacheKeyType, hold: -1}
	switch r.keys {
	case keyImage, keyRegistry, keyGlobal:
	default:
		return response{}, errors.New("its output has none of the cacheKeyTypes Image, Registry and Global")
	}
	if doc.CacheDuration != nil {
		d, err := time.ParseDuration(*doc.CacheDuration)
		if err != nil || d < 0 {
			return response{}, errors.New("its output has a cacheDuration that is not one")
		}
		r.hold = d
	}
	var best pattern
	for name, login := range doc.Auth {
		// Some programs answer with an empty login where they have none: it must not hide another one.
		p, ok := parsePattern(name)
		if login.Password == "" || !ok || !p.fits(image) {
			continue
		}
		if r.cred.IsAnonymous() || p.better(best) {
			best = p
			r.cred = auth.Credential{Username: login.Username, Password: auth.NewSecret(login.Password)}
		}
	}
	return r, nil
}
