package demo

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"time"
)

// Kind is the behaviour of a registry.
type Kind int

// The kinds of registries.
const (
	Healthy  Kind = iota // it gives its image to every client
	Private              // it requires a login, and accepts none: the password has expired
	Limiting             // the rate limit of the client's address is used up
	Portal               // it is not a registry: the network's login page answers in its place
)

// Repository and Tag name the one image that each registry has.
const (
	Repository = "acme/app"
	Tag        = "v1"
)

const (
	manifestType = "application/vnd.oci.image.manifest.v1+json"
	configType   = "application/vnd.oci.image.config.v1+json"
	layerType    = "application/vnd.oci.image.layer.v1.tar"
	layerSize    = 3 << 20
)

// Registry is a registry on loopback with one image.
type Registry struct {
	kind     Kind
	listener net.Listener
	server   *http.Server
	manifest []byte
	blobs    map[string][]byte // by digest
}

// Start starts a registry. Close ends it.
func Start(ctx context.Context, kind Kind) (*Registry, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("start a registry for the demo: %w", err)
	}
	r := &Registry{kind: kind, listener: l, blobs: make(map[string][]byte)}
	r.makeImage()
	r.server = &http.Server{Handler: r, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = r.server.Serve(l) }()
	return r, nil
}

// Addr is its HOST:PORT, also after Close.
func (r *Registry) Addr() string { return r.listener.Addr().String() }

// Close stops it at once.
func (r *Registry) Close() error { return r.server.Close() }

func digestOf(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// makeImage makes an image with one layer, the same each time.
func (r *Registry) makeImage() {
	layer := make([]byte, layerSize)
	_, _ = rand.NewChaCha8([32]byte{byte(r.kind)}).Read(layer) // it can't fail
	config := []byte(`{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":["` + digestOf(layer) + `"]}}`)
	r.blobs[digestOf(layer)], r.blobs[digestOf(config)] = layer, config
	type descriptor struct {
		MediaType string `json:"mediaType"`
		Digest    string `json:"digest"`
		Size      int    `json:"size"`
	}
	r.manifest, _ = json.Marshal(map[string]any{ // of strings and numbers: it can't fail
		"schemaVersion": 2, "mediaType": manifestType,
		"config": descriptor{configType, digestOf(config), len(config)},
		"layers": []descriptor{{layerType, digestOf(layer), len(layer)}},
	})
}

// ServeHTTP answers as a registry of its kind does.
func (r *Registry) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	switch r.kind {
	case Portal:
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = io.WriteString(w, "<html><head><title>Sign in to the guest network</title></head><body></body></html>\n")
		return
	case Limiting:
		if req.URL.Path != "/v2/" {
			w.Header().Set("RateLimit-Limit", "100;w=21600")
			w.Header().Set("RateLimit-Remaining", "0;w=21600")
			w.Header().Set("Retry-After", "5400")
			refuse(w, http.StatusTooManyRequests, "TOOMANYREQUESTS", "You have reached your unauthenticated pull rate limit.")
			return
		}
	case Private:
		if req.URL.Path == "/token" {
			refuse(w, http.StatusUnauthorized, "UNAUTHORIZED", "incorrect username or password")
			return
		}
		w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/token",service="registry",scope="repository:%s:pull"`,
			req.Host, Repository))
		refuse(w, http.StatusUnauthorized, "UNAUTHORIZED", "authentication required")
		return
	case Healthy:
	}
	r.content(w, req)
}

// content serves the manifest and the blobs.
func (r *Registry) content(w http.ResponseWriter, req *http.Request) {
	of, name, _ := strings.Cut(strings.TrimPrefix(req.URL.Path, "/v2/"+Repository+"/"), "/")
	body, kind := r.blobs[name], "application/octet-stream"
	if of == "manifests" {
		if body, kind = nil, manifestType; name == Tag || name == digestOf(r.manifest) {
			body = r.manifest
		}
	}
	switch {
	case req.URL.Path == "/v2/":
		w.WriteHeader(http.StatusOK)
		return
	case body == nil:
		refuse(w, http.StatusNotFound, "MANIFEST_UNKNOWN", "manifest unknown")
		return
	}
	w.Header().Set("Content-Type", kind)
	w.Header().Set("Docker-Content-Digest", digestOf(body))
	w.Header().Set("Content-Length", fmt.Sprint(len(body)))
	if req.Method != http.MethodHead {
		_, _ = w.Write(body)
	}
}

// refuse answers with an error of the distribution spec.
func refuse(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"errors": []map[string]string{{"code": code, "message": message}}})
}
