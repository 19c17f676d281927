package diagnose

import (
	"cmp"
	"errors"
	"fmt"

	"github.com/registrymirror/mirror/cache/flight"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/pull"
	"github.com/registrymirror/mirror/upstream/fault"
)

// content reads a mistake in content that came with a good status.
func (c *draft) content() {
	if e, ok := errors.AsType[*pull.ClaimError](c.err); ok {
		c.f.Host = cmp.Or(e.Host, c.f.Host)
		c.claim(e.Ref.Digest, e.Claim, e.Size, cmp.Or(e.Host, e.Ref.Host))
		c.note("%s: %d bytes by the manifest, %d bytes at %s", e.Ref.Digest, e.Claim, e.Size, cmp.Or(e.Host, e.Ref.Host))
		return
	}
	if e, ok := errors.AsType[*flight.MismatchError](c.err); ok {
		c.f.Host = cmp.Or(e.Host, c.f.Host)
		if e.Got == "" {
			c.set(DigestMismatch, "%s sent %d bytes for %s, which has %d", cmp.Or(e.Host, c.up), e.GotSize,
				short(e.Digest), e.Size)
		} else {
			c.set(DigestMismatch, "%s sent corrupt data for %s (got %s)", cmp.Or(e.Host, c.up), short(e.Digest),
				short(e.Got))
		}
		c.note("wanted %s of %d bytes, got %s of %d bytes", e.Digest, e.Size, cmp.Or(e.Got.String(), "nothing hashed"),
			e.GotSize)
		c.remedy("pull again; if it keeps failing, something between the mirror and that host alters the data")
		return
	}
	if e, ok := errors.AsType[*oci.ManifestError](c.err); ok {
		if c.note("%s: %s", e.Fault, e.Detail); e.Fault == oci.FaultTooLarge {
			c.tooLarge()
			return
		}
		if e.Fault == oci.FaultSigned {
			c.set(UnsupportedImage, "%s at %s is of Docker's signed schema 1, which no current runtime pulls", c.what(), c.up)
			c.f.Short = "its manifest at " + c.up + " is of Docker's signed schema 1, which no current runtime pulls"
			c.remedy("pull it with a current tool (skopeo copy --format oci) and push it again, or use a newer tag")
			return
		}
		c.set(UnsupportedImage, "%s at %s is not valid: %s", c.what(), c.up, e.Detail)
		c.f.Short = fmt.Sprintf("its manifest at %s is not valid: %s", c.up, e.Detail)
		c.remedy("push the image again with a current tool")
		return
	}
	e, ok := errors.AsType[*fault.ContentError](c.err)
	if !ok {
		return
	}
	c.note("%s: wanted %s, got %s", e.Kind, cmp.Or(e.Want, "nothing else"), cmp.Or(e.Got, "nothing"))
	if e.Claimed && e.Kind == fault.ContentSize {
		c.claim(oci.Digest(c.e.Reference), e.WantSize, e.GotSize, c.host)
		return
	}
	switch e.Kind {
	case fault.ContentDigest, fault.ContentSize:
		c.set(DigestMismatch, "%s sent corrupt data for %s", c.host, c.full())
		c.remedy("pull again; if it keeps failing, something between the mirror and %s alters the data", c.host)
	case fault.ContentTooLarge:
		if c.step.Name == fault.StepToken || c.e.Op == "tags" || c.e.Op == "referrers" {
			c.set(UpstreamError, "%s sent more than the mirror reads for %s", c.host, c.asked())
			c.remedy("report it to the operator of %s", c.up)
			return
		}
		c.tooLarge()
	case fault.ContentNotManifest:
		c.set(UnsupportedImage, "%s at %s is not an image manifest or index", cmp.Or(c.image(), "the manifest"), c.up)
		c.remedy("push the image again with a current tool")
	case fault.ContentNotRegistry:
		c.set(NotARegistry, "%s sent %s for %s", c.host, cmp.Or(e.Got, "unexpected content"), c.asked())
		c.remedy("check the endpoint of %s, and whether a proxy or login page stands before it", c.up)
	case fault.ContentLength:
		c.set(UpstreamError, "%s doesn't say how large %s is", c.host, c.full())
		c.remedy("report it to the operator of %s; downloads still work", c.up)
	case fault.ContentNextPage:
		c.set(UpstreamError, "%s sent the first part of %s and a link to the next that leads nowhere: %s", c.host, c.asked(), e.Got)
		c.f.Short = fmt.Sprintf("%s sent a list whose link to the next page leads nowhere", c.host)
		c.remedy("report it to the operator of %s", c.up)
	case fault.ContentEncoding:
		c.set(UpstreamError, "%s sent %s packed (Content-Encoding: %s), and not as it is", c.host, c.full(), e.Got)
		c.remedy("look for a proxy before %s that compresses, and turn that off for it", c.host)
	case fault.ContentSlow:
		c.set(Stalled, "%s sends %s too slowly to end, %s", c.host, c.full(), e.Got)
		c.remedy("pull again; if it stays look at the path between the mirror and %s", c.host)
	case fault.ContentStalled:
		c.set(Stalled, "%s stopped sending %s", c.host, c.full())
		c.remedy("pull again; if it stays look at the path between the mirror and %s", c.host)
	default:
		c.set(UpstreamError, "%s sent %s with a wrong %s", c.host, c.full(), e.Kind)
		c.remedy("pull again; if it stays report it to the operator of %s", c.up)
	}
}

// claim says that a manifest and a host differ in the size of a blob. The blob may be right: the image is wrong.
func (c *draft) claim(d oci.Digest, want, got int64, host string) {
	c.set(UnsupportedImage, "the image is wrong: its manifest says that %s has %d bytes, and %s has %d bytes", short(d), want, host, got)
	c.remedy("push the image again with a current tool; no registry or network is at fault")
}

func (c *draft) tooLarge() {
	c.set(ManifestTooLarge, "%s at %s is larger than 4 MiB, which no runtime accepts", c.what(), c.up)
	c.f.Short = "its manifest at " + c.up + " is larger than 4 MiB, which no runtime accepts"
	c.remedy("push it with fewer layers or annotations")
}

// notSent reads that the rules for hosts kept a request from being sent.
func (c *draft) notSent() {
	if e, ok := errors.AsType[*fault.RealmError](c.err); ok {
		if e.Malformed != "" {
			c.set(AuthHostNotAllowed, "the address of the token service that %s names is malformed: %s", c.up, e.Malformed)
			c.remedy("set the external URL in the settings of %s to https://HOST; the mirror needs no change", c.up)
			return
		}
		c.set(AuthHostNotAllowed, "%s wants its tokens from %s://%s, which is not in its authHosts", c.up, e.Scheme, e.Host)
		c.remedy("add %s to authHosts of %s, if that is right", e.Host, c.up)
		if e.Plain {
			c.set(AuthHostNotAllowed, "%s wants its tokens from %s://%s, and no login goes over http from a registry on https", c.up,
				e.Scheme, e.Host)
			c.f.Short = fmt.Sprintf("%s wants its tokens over http, from %s", c.up, e.Host)
			c.remedy("correct the registry's own address in its settings to https://, as behind a proxy that ends TLS")
		}
		c.f.Host = e.Host
		return
	}
	if e, ok := errors.AsType[*fault.RedirectError](c.err); ok {
		c.set(RedirectNotAllowed, "%s redirects %s to %s, which is not followed: %s", c.up, c.what(), e.Host, e.Why)
		c.f.Short = fmt.Sprintf("%s redirects to %s, which is not followed: %s", c.up, e.Host, e.Why)
		c.remedy("add %s to redirectHosts of %s, if that is right", e.Host, c.up)
		if e.Final {
			c.remedy("check the endpoint of %s, then report it to its operator", c.up)
		}
		c.f.Host = e.Host
		return
	}
	if e, ok := errors.AsType[*fault.AwayError](c.err); ok {
		c.set(AuthHostNotAllowed, "%s sends on to %s, which wants a login of its own", cmp.Or(e.From, c.up), e.To)
		c.remedy("make https://%s the endpoint of %s, or add it to redirectHosts and %s to authHosts", e.To, c.up, e.Realm)
		if e.Realm == "" {
			c.remedy("make https://%s the endpoint of %s", e.To, c.up)
		}
		c.f.Host = e.To
		return
	}
	if e, ok := errors.AsType[*fault.AddressError](c.err); ok {
		c.set(RedirectNotAllowed, "%s leads to %s, which has the private address %s", c.up, e.Host, e.Addr)
		c.remedy("add %s to redirectHosts of %s, if that is right", e.Host, c.up)
		c.f.Host = e.Host
		return
	}
}
