package upstream

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"

	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/upstream/endpoint"
	"github.com/registrymirror/mirror/upstream/fault"
	"github.com/registrymirror/mirror/upstream/header"
)

// blobs reads the config and asks for each further blob, and each host that a redirect leads to for a byte.
func (x *examination) blobs(ctx context.Context) bool {
	c := x.call("blob", "")
	hosts := make(map[string]bool)
	for i, d := range x.image.Children {
		switch {
		case d.Manifest || len(d.URLs) > 0:
			continue // what is kept elsewhere the registry need not have
		case i == maxExamined:
			return x.tell(c, nil, nil)
		}
		c.reference = d.Digest.String()
		var err error
		if i == 0 && isConfig(d) {
			err = x.config(ctx, c, d)
		} else {
			err = peek(ctx, c, d, hosts)
		}
		for _, s := range c.trace.Steps {
			if s.Name == fault.StepBlobHost {
				hosts[s.Host] = true
			}
		}
		if p, ok := errors.AsType[*PlatformError](err); ok {
			_ = x.tell(c, nil, nil) && x.say(Examined{
				Step:     fault.Step{Name: fault.StepPlatform, Host: x.ep.Origin.String(), Err: p},
				Platform: p.Want, Platforms: p.Have,
			})
			return false
		}
		if err != nil {
			return x.tell(c, c.wrap(err), nil)
		}
	}
	return x.tell(c, nil, nil)
}

// peek asks for a byte of a blob. A host that is known is not asked again.
func peek(ctx context.Context, c *call, d oci.Child, hosts map[string]bool) error {
	a := c.blobAsk(d.Digest)
	a.Header = http.Header{"Range": {"bytes=0-0"}}
	resp, err := c.followPast(ctx, a, func(host string) bool { return hosts[host] })
	r, refused := fault.RefusalIn(err)
	switch {
	case errors.Is(err, errKnownHost), refused && r.Size == 0: // an empty blob has no first byte
		return nil
	case err != nil:
		return err
	case header.IsHTML(resp.Header):
		resp.Body.Close()
		err := &fault.ContentError{Kind: fault.ContentNotRegistry, Want: "a blob", Got: "a web page"}
		return &fault.Failure{Err: err, Step: *c.trace.Last()}
	}
	endpoint.Drain(resp.Body)
	return nil
}

func isConfig(d oci.Child) bool {
	return d.MediaType == "application/vnd.oci.image.config.v1+json" ||
		d.MediaType == "application/vnd.docker.container.image.v1+json"
}

// config reads the config of an image. Where no index has said so, that says what platform the image is for.
func (x *examination) config(ctx context.Context, c *call, d oci.Child) error {
	resp, err := c.follow(ctx, c.blobAsk(d.Digest))
	if err != nil {
		return err
	}
	b, err := c.document(ctx, resp, paper{what: "the config of an image", limit: oci.MaxManifestSize})
	if err != nil {
		return err
	}
	if !oci.VerifyDigest(d.Digest, b) {
		got := d.Digest.Algorithm().FromBytes(b).String()
		return &fault.ContentError{Kind: fault.ContentDigest, Want: d.Digest.String(), Got: got}
	}
	var conf struct{ OS, Architecture, Variant string }
	if x.index || json.Unmarshal(b, &conf) != nil || conf.OS == "" {
		return nil
	}
	have := strings.TrimSuffix(conf.OS+"/"+conf.Architecture+"/"+conf.Variant, "/")
	if x.want != "" && !fits(have, x.want) {
		return &PlatformError{Want: x.want, Have: []string{have}}
	}
	x.say(Examined{
		Step:     fault.Step{Name: fault.StepPlatform, Host: x.ep.Origin.String()},
		Platform: have, Platforms: []string{have}, Digest: x.image.Digest, Blobs: blobsOf(x.image),
	})
	return nil
}
