package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"
)

const (
	patience    = 20 * time.Second
	maxManifest = 4 << 20
)

// Pulled is the result of a pull.
type Pulled struct {
	Bytes int64
	Stale bool // the mirror served the tag from its cache, since the registry did not answer
}

// Pull pulls an image as containerd does: from the host at base, which is the registry itself, or a mirror; ns then names the
// registry. The client has a login, as from a pod's imagePullSecret, and sends it to the registry alone. The error is the one
// that containerd prints.
func Pull(ctx context.Context, base, host, ns string) (Pulled, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	c := client{http: &http.Client{Transport: transport}, base: base, ns: ns}
	image := host + "/" + Repository + ":" + Tag
	got, err := c.pull(ctx)
	if err != nil {
		return got, fmt.Errorf("failed to pull and unpack image %q: %w", image, err)
	}
	return got, nil
}

type client struct {
	http  *http.Client
	base  string
	ns    string
	token string
}

// url is the URL that containerd requests for a path.
func (c *client) url(path string) string {
	u := c.base + "/v2/" + Repository + "/" + path
	if c.ns != "" {
		u += "?ns=" + url.QueryEscape(c.ns)
	}
	return u
}

func (c *client) pull(ctx context.Context) (got Pulled, err error) {
	resp, err := c.ask(ctx, http.MethodHead, "manifests/"+Tag)
	if err != nil {
		return got, fmt.Errorf("failed to resolve image: %w", err)
	}
	_ = resp.Body.Close()
	got.Stale = resp.Header.Get("Warning") != ""
	digest := resp.Header.Get("Docker-Content-Digest")
	if digest == "" { // containerd takes the body for the manifest, and requests it by its digest
		return got, c.notAManifest(ctx)
	}
	manifest, err := c.content(ctx, "manifests/"+digest, digest)
	if err != nil {
		return got, err
	}
	var m struct {
		Config struct{ Digest string }
		Layers []struct{ Digest string }
	}
	if err := json.Unmarshal(manifest, &m); err != nil {
		return got, err
	}
	got.Bytes = int64(len(manifest))
	for _, l := range append(m.Layers, m.Config) {
		blob, err := c.content(ctx, "blobs/"+l.Digest, l.Digest)
		if err != nil {
			return got, err
		}
		got.Bytes += int64(len(blob))
	}
	return got, nil
}

// notAManifest is the error of containerd when a page is sent in place of a manifest.
func (c *client) notAManifest(ctx context.Context) error {
	resp, err := c.ask(ctx, http.MethodGet, "manifests/"+Tag)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxManifest))
	if err != nil {
		return err
	}
	kind, _, _ := strings.Cut(resp.Header.Get("Content-Type"), ";")
	return fmt.Errorf("failed to copy: httpReadSeeker: failed open: could not fetch content descriptor %s (%s) from remote: not found",
		digestOf(body), kind)
}

// content gets the content with a digest.
func (c *client) content(ctx context.Context, path, digest string) ([]byte, error) {
	resp, err := c.ask(ctx, http.MethodGet, path)
	if err != nil {
		return nil, fmt.Errorf("failed to copy: httpReadSeeker: failed open: %w", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 2*layerSize))
	if err == nil && digestOf(body) != digest {
		err = fmt.Errorf("unexpected commit digest %s, expected %s", digestOf(body), digest)
	}
	if err != nil {
		return nil, fmt.Errorf("failed to copy: %w", err)
	}
	return body, nil
}

var realm = regexp.MustCompile(`realm="([^"]*)"`)

// ask sends a request, and repeats it with a token where one is required.
func (c *client) ask(ctx context.Context, method, path string) (*http.Response, error) {
	for range 2 {
		req, err := http.NewRequestWithContext(ctx, method, c.url(path), nil)
		if err != nil {
			return nil, err
		}
		req.Header.Set("User-Agent", "containerd/v2.1.0 (mirror demo)")
		req.Header.Set("Accept", manifestType+", */*")
		if c.token != "" {
			req.Header.Set("Authorization", "Bearer "+c.token)
		}
		resp, err := c.http.Do(req)
		if err != nil {
			return nil, fmt.Errorf("failed to do request: %w", err)
		}
		if resp.StatusCode == http.StatusOK {
			return resp, nil
		}
		_ = resp.Body.Close()
		challenge := realm.FindStringSubmatch(resp.Header.Get("WWW-Authenticate"))
		if resp.StatusCode != http.StatusUnauthorized || challenge == nil {
			return nil, fmt.Errorf("unexpected status from %s request to %s: %s", method, c.url(path), resp.Status)
		}
		if err := c.login(ctx, challenge[1]); err != nil {
			return nil, fmt.Errorf("failed to authorize: failed to fetch oauth token: %w", err)
		}
	}
	return nil, errors.New("authorization failed")
}

// login gets a token.
func (c *client) login(ctx context.Context, at string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil)
	if err != nil {
		return err
	}
	req.SetBasicAuth("ci-bot", "last year's password")
	resp, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("unexpected status from GET request to %s: %s", at, resp.Status)
	}
	var t struct{ Token string }
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxManifest)).Decode(&t); err != nil {
		return err
	}
	c.token = t.Token
	return nil
}
