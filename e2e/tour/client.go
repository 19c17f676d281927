package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/registrymirror/mirror/e2e/internal/containerd"
	"github.com/registrymirror/mirror/e2e/internal/mirrord"
	"github.com/registrymirror/mirror/e2e/internal/tool"
	"github.com/registrymirror/mirror/e2e/internal/trouble"
)

// client is a program that pulls.
type client struct {
	pull  func(ctx context.Context, ref string) (digest string, err error)
	close func()
}

// clients are the same one twice, with the mirror and without it.
func clients(ctx context.Context, who, dir string, m *mirrord.Mirror, places []*trouble.Place) (with, without client, kind string, err error) {
	direct, nowhere := make(map[string]string), make(map[string]string)
	for _, p := range places {
		direct[p.Host] = p.Direct
		nowhere[p.Host] = cmp.Or(p.Node, "http://127.0.0.1:9") // where the node goes on by itself; nil: nowhere
	}
	line, ok := installed()
	if who == "containerd" && !ok {
		return with, without, "", errors.New("containerd is not installed, or this is not root")
	}
	if !ok || who == "library" {
		return fetcher(m.Host, nil), fetcher("", direct), library, nil
	}
	for _, c := range []struct {
		to    *client
		dir   string
		certs containerd.Certs
	}{
		{&with, "m", containerd.Certs{Mirror: m.URL(), Hosts: nowhere}},
		{&without, "d", containerd.Certs{Hosts: direct}},
	} {
		home := filepath.Join(dir, c.dir)
		if err := os.MkdirAll(home, 0o700); err != nil {
			return with, without, "", err
		}
		r, err := containerd.Launch(ctx, home, line, c.certs, containerd.Settings{})
		if err != nil {
			return with, without, "", err
		}
		*c.to = client{r.Pull, func() { r.End() }}
	}
	return with, without, "containerd " + string(line) + ", asked as the kubelet asks", nil
}

// installed is a containerd that can be run here.
func installed() (containerd.Line, bool) {
	if os.Geteuid() != 0 {
		return "", false
	}
	if _, err := tool.FindBuilt("containerd"); err == nil {
		return containerd.V2, true
	}
	if _, err := tool.FindSystem("containerd"); err == nil {
		return containerd.V1, true
	}
	return "", false
}

// library is what the other client calls itself.
const library = "go-containerregistry's library"

// fetcher pulls with go-containerregistry: from the mirror at an address, or from registries at theirs.
func fetcher(mirror string, direct map[string]string) client {
	amd64 := remote.WithPlatform(v1.Platform{OS: "linux", Architecture: "amd64"})
	once := remote.WithRetryStatusCodes() // what fails is shown, not waited for
	return client{close: func() {}, pull: func(ctx context.Context, ref string) (string, error) {
		at := mirror + "/" + ref
		host, rest, _ := strings.Cut(ref, "/")
		if mirror == "" {
			_, address, _ := strings.Cut(direct[host], "://")
			at = address + "/" + rest
		}
		parsed, err := name.ParseReference(at)
		if err != nil {
			return "", err
		}
		image, err := remote.Image(parsed, remote.WithContext(ctx), amd64, once, remote.WithTransport(http.DefaultTransport))
		if err != nil {
			return "", err
		}
		layers, err := image.Layers()
		if err != nil {
			return "", err
		}
		for _, l := range layers {
			body, err := l.Compressed()
			if err != nil {
				return "", err
			}
			_, err = io.Copy(io.Discard, body)
			_ = body.Close()
			if err != nil {
				return "", fmt.Errorf("download a layer: %w", err)
			}
		}
		digest, err := image.Digest()
		return digest.String(), err
	}}
}
