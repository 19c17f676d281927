package app

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"

	"github.com/registrymirror/mirror/access"
	"github.com/registrymirror/mirror/config"
	"github.com/registrymirror/mirror/diagnose/doctor"
	"github.com/registrymirror/mirror/internal/memory"
	"github.com/registrymirror/mirror/internal/metrics"
	"github.com/registrymirror/mirror/internal/registries"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/pull"
)

// Examine checks each step of a pull of an image from this machine, with the upstreams and credentials of a configuration and
// without a running mirror. With open, a registry that the configuration does not have is asked anonymously at https://HOST.
func Examine(
	ctx context.Context, c *config.Config, version string, log *slog.Logger, image, platform string, open bool,
) (*doctor.Report, error) {
	o := doctor.Options{Image: image, Platform: platform, Nodes: c.Platforms, At: "here"}
	ref, err := oci.ParseRef(image)
	if err != nil {
		o.Err = err
		return doctor.Image(ctx, o), nil
	}
	if open && c.Upstreams.Named(ref.Host) == nil {
		c.Upstreams = append(c.Upstreams, config.Upstream{
			Name: ref.Host, Access: "public", Endpoints: []config.Endpoint{{URL: "https://" + ref.Host}},
		})
	}
	s := registries.New(version, "", metrics.New(version, nil), log)
	setup, err := s.Setup(c)
	if err != nil {
		return nil, err
	}
	s.UseNext()
	defer s.Close()
	find(&o, s, setup, ref)
	return doctor.Image(ctx, o), nil
}

// examine is Examine in a running mirror, with the cached parts of the image.
func (a *App) examine(ctx context.Context, image, platform string) *doctor.Report {
	ctx, hold := a.memory.Enter(memory.By(ctx, "doctor"), memory.Work)
	defer hold.Release()
	o := doctor.Options{Image: image, Platform: platform, Nodes: a.journal.Nodes(), At: "mirror", Cached: a.cached}
	var ref oci.Ref
	if ref, o.Err = oci.ParseRef(image); o.Err == nil {
		find(&o, a.registries, *a.setup.Load(), a.canonical(ref))
	}
	return doctor.Image(ctx, o)
}

// find looks up the registry of a reference. As before a pull, the mirror's rules must let clients read of it.
func find(o *doctor.Options, open *registries.Registries, setup pull.Setup, ref oci.Ref) {
	t, err := setup.Routes.Resolve(oci.Request{Kind: oci.KindManifest, Namespace: ref.Host, Name: ref.Name})
	if err != nil {
		o.Err = err
		return
	}
	ref.Repo = t.Repo
	site := setup.Sites[cmp.Or(t.Pattern, t.Host)]
	o.Ref, o.Ruled, o.Own = ref, site.Ruled, site.Own != nil
	if o.Err = site.Names.Check(ref.Repo); o.Err != nil {
		return
	}
	if o.Ruled && !setup.Rules.Name(ref.Repo) {
		o.Err = &access.ForbiddenError{Repo: ref.Repo}
		return
	}
	if o.Registry = open.Open(t.Host, t.Pattern); o.Registry == nil { // a reload came in between
		o.Err = fmt.Errorf("upstream %s is not in use any more", t.Host)
	}
}

// cached describes the cached parts of an image, whose digests are those of the index, of the platform's manifest, and of the
// blobs.
func (a *App) cached(ref oci.Ref, image []oci.Digest) *doctor.Cache {
	c := new(doctor.Cache)
	want := ref.Digest
	if want == "" {
		if t, err := a.catalog.Tag(ref); err == nil {
			want = t.Digest
			c.Digest, c.CheckedAt = want.String(), doctor.At(t.Checked)
		}
	}
	if want == "" && len(image) > 0 {
		want = image[0] // what the tag means now
	}
	if want != "" {
		_, c.Manifest = a.cache.Stat(want)
	}
	for _, d := range image {
		if d == want {
			continue
		}
		c.Of++
		if _, ok := a.cache.Stat(d); ok {
			c.Blobs++
		}
	}
	return c
}
