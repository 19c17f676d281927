package server

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/registrymirror/mirror/cache"
	"github.com/registrymirror/mirror/catalog"
	"github.com/registrymirror/mirror/diagnose"
	"github.com/registrymirror/mirror/pull"
)

// cacheName is the name of this cache in Cache-Status.
const cacheName = "mirror"

// cacheStatus describes how the cache handled the request, by RFC 9211: "hit" and "fwd" exclude each other; a stale copy
// that is served because the upstream did not answer is a hit with a detail.
func cacheStatus(s pull.Status) string {
	switch {
	case s.Stale:
		return cacheName + "; hit; detail=stale"
	case s.Outcome == cache.Hit:
		return cacheName + "; hit"
	case s.Collapsed, s.Outcome == cache.Joined:
		return cacheName + "; fwd=miss; collapsed"
	case s.Outcome == cache.Uncached:
		return cacheName + "; fwd=miss; detail=uncached"
	case s.Outcome == cache.Miss:
		return cacheName + "; fwd=miss; stored"
	}
	return cacheName + "; fwd=miss"
}

// cacheStatus of a failure has the status of the upstream, or the reason why no request was sent to it.
func (f *failure) cacheStatus() string {
	switch {
	case f.finding.Status > 0:
		return fmt.Sprintf("%s; fwd=miss; fwd-status=%d", cacheName, f.finding.Status)
	case f.finding.Upstream != "" && f.finding.Reason != diagnose.ClientForbidden && f.finding.Reason != diagnose.BlockedByPolicy:
		return cacheName + "; fwd=miss"
	}
	return cacheName + "; detail=" + string(f.finding.Reason)
}

// describe sets the headers about the source and the age of an answer.
func (x *exchange) describe(c *pull.Content) {
	x.status = c.Status
	if c.Ref.Name != "" {
		x.ref = c.Ref
	}
	h := x.w.Header()
	h.Set("Cache-Status", cacheStatus(c.Status))
	if age := int64(c.Status.Age / time.Second); age > 0 {
		h.Set("Age", strconv.FormatInt(age, 10))
	}
	if c.Status.Stale {
		h.Add("Warning", warning(staleText(c)))
	}
	if text := heldText(c); text != "" {
		h.Add("Warning", warning(text))
	}
}

// tagOf is the name of an answer's repository, with the tag if that was asked for.
func tagOf(c *pull.Content) string {
	if c.Ref.Tag == "" {
		return c.Ref.Repo.String()
	}
	return c.Ref.Repo.String() + ":" + c.Ref.Tag
}

// heldText says why a tag was answered with another digest than its registry has, or although it is new. Empty: it was not.
func heldText(c *pull.Content) string {
	choice, until := c.Status.Choice, ""
	if !choice.Until.IsZero() {
		until = " until " + choice.Until.UTC().Format(time.RFC3339)
	}
	switch choice.Hold {
	case catalog.HeldByPin:
		return tagOf(c) + " is pinned to " + choice.Digest.String() + until
	case catalog.HeldByImmutable:
		return tagOf(c) + " must not move, and its registry has moved it to " + choice.Latest.String() + ": its first digest is served"
	case catalog.HeldByMinAge:
		return "an older digest of " + tagOf(c) + " is served" + until + ": " + choice.Latest.String() + " is younger than minAge"
	case catalog.HeldUnknown:
		return tagOf(c) + " is younger than minAge" + until + ", and the mirror knows no older digest of it"
	case catalog.NotHeld:
	}
	return ""
}

func staleText(c *pull.Content) string {
	text := "stale copy of " + tagOf(c)
	if c.Status.Age > 0 {
		text += ", last confirmed " + c.Status.Age.Round(time.Second).String() + " ago"
	}
	if c.Status.Reason != nil {
		text += ": " + diagnose.Explain(c.Status.Reason).Summary
	}
	return text
}

// entityTag is the strong ETag of content: its digest. Bytes never vary, so it is one for all clients.
func entityTag(c *pull.Content) string { return `"` + c.Digest.String() + `"` }

// notModified reports whether the client has the content already: If-None-Match compares weakly, RFC 9110, 13.1.2.
func notModified(r *http.Request, etag string) bool {
	for _, line := range r.Header.Values("If-None-Match") {
		for tag := range strings.SplitSeq(line, ",") { // digests have no commas
			if tag = strings.TrimSpace(tag); tag == "*" || strings.TrimPrefix(tag, "W/") == etag {
				return true
			}
		}
	}
	return false
}
