package admin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"net/http"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/registrymirror/mirror/access"
	"github.com/registrymirror/mirror/catalog"
	"github.com/registrymirror/mirror/diagnose"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/pull"
	"github.com/registrymirror/mirror/route"
)

// Ledger is what is known of tags, and what can be done about them. All methods take canonical references but Canonical, and are
// safe for concurrent use.
type Ledger interface {
	// Canonical is the reference with the names of the configuration: docker.io/library/nginx for index.docker.io/nginx. The
	// error is a *route.UnknownError.
	Canonical(ref oci.Ref) (oci.Ref, error)
	// Tag returns the record of a tag, or catalog.ErrUnknown; Tags those whose repository and tag begin with prefix, in order.
	Tag(ref oci.Ref) (catalog.Tag, error)
	Tags(prefix string) iter.Seq2[catalog.Tag, error]
	// Clients are those that pulled a tag, and which digest each got last.
	Clients(ref oci.Ref) ([]catalog.Client, error)
	// Cached reports whether all that nodes pull of an image is in the cache, and how many bytes that is.
	Cached(ref oci.Ref) (size int64, complete bool)
	// Choice is the digest that a pull of the tag gets now.
	Choice(tag catalog.Tag) catalog.Choice
	// Pinned is the pin of a tag that holds now, Pins are all of them.
	Pinned(ref oci.Ref, now time.Time) (catalog.Pin, bool)
	Pins(now time.Time) []catalog.Pin
	// Pin fetches what is missing of the image first: a *pull.MissingError says what can't be had. Unpin of a tag without a pin
	// is catalog.ErrUnknown; a pin of the configuration is refused with catalog.ErrPinnedByConfig.
	Pin(ctx context.Context, pin catalog.Pin) error
	Unpin(ref oci.Ref) error
	// Refresh asks the registry now, and returns the digest before (empty: none) and after.
	Refresh(ctx context.Context, ref oci.Ref) (before, after oci.Digest, err error)
	// Purge removes an image with its tag from the cache, PurgeContent one piece of content. A *pull.PinnedError says that a
	// pin keeps it.
	Purge(ctx context.Context, ref oci.Ref) error
	PurgeContent(d oci.Digest) error
}

// TagList is the body of GET /api/v1/tags without an image: the tags in use, sorted by image. They are in use if a client has pulled
// them lately, if they are pinned, or if a pod or workload names them.
type TagList struct {
	Tags  []TagSummary `json:"tags"`
	Notes []string     `json:"notes,omitempty"` // what could not be read of the cluster
	// Continue is the parameter for the next page; absent: this is the last one.
	Continue string `json:"continue,omitempty"`
}

// TagSummary is one tag of the list.
type TagSummary struct {
	Image     string    `json:"image"`
	Digest    string    `json:"digest"`
	CheckedAt time.Time `json:"checkedAt,omitzero"`
	LastPull  time.Time `json:"lastPull,omitzero"`
	Clients   int       `json:"clients"`  // that pulled it
	Changes   int       `json:"changes"`  // times that it moved, as far as the history goes back
	Floating  bool      `json:"floating"` // it has moved, or its name is not one of a single version
	Pinned    bool      `json:"pinned"`
	Uses      int       `json:"uses,omitempty"`   // pods and workloads that name the tag
	UsedBy    []string  `json:"usedBy,omitempty"` // 20 of these: NAMESPACE/NAME of pods, NAMESPACE/KIND/NAME of workloads
}

// Tag is the body of GET /api/v1/tags?image=.
type Tag struct {
	Image     string      `json:"image"`
	Digest    string      `json:"digest"` // what the tag means; with at: what it meant
	At        time.Time   `json:"at,omitzero"`
	NotSeen   *TagGap     `json:"notSeen,omitempty"` // at lies in it; absent: in none
	CheckedAt time.Time   `json:"checkedAt,omitzero"`
	Served    string      `json:"served,omitempty"`   // the digest that pulls get; absent: the same
	HeldBy    string      `json:"heldBy,omitempty"`   // why they get it: pin, immutable or minAge; absent: nothing is held
	HeldUntil time.Time   `json:"heldUntil,omitzero"` // absent: it has no end
	History   []TagPeriod `json:"history"`            // the newest first; with at: the one period
	Pin       *Pin        `json:"pin,omitempty"`
	Clients   []TagClient `json:"clients"` // the one that pulled last first
}

// TagGap is a gap of a tag's history in which its registry was not asked: the tag may have moved at any time in it.
type TagGap struct {
	From time.Time `json:"from"` // when the digest before was last seen
	To   time.Time `json:"to"`   // when the one after was first seen
}

// gapAt is the gap that a time lies in. Nil: it lies in none.
func gapAt(tag catalog.Tag, at time.Time) *TagGap {
	from, to, ok := tag.Gap(at)
	if !ok {
		return nil
	}
	return &TagGap{From: from.UTC(), To: to.UTC()}
}

// TagPeriod is a time in which a tag meant one digest.
type TagPeriod struct {
	Digest    string         `json:"digest"`
	FirstSeen time.Time      `json:"firstSeen"`
	LastSeen  time.Time      `json:"lastSeen"`
	Source    catalog.Source `json:"source,omitempty"`
	Size      int64          `json:"size,omitempty"` // bytes; of an index, of the platforms of nodes
	Platforms []string       `json:"platforms,omitempty"`
	Complete  bool           `json:"complete"`  // all that nodes pull of it is in the cache: a pin needs no registry
	Reversion bool           `json:"reversion"` // the tag went back to it
}

// TagClient is a client that pulled a tag.
type TagClient struct {
	Client   string    `json:"client"`
	Digest   string    `json:"digest"` // that it got last
	LastPull time.Time `json:"lastPull"`
}

// ImageRequest is the body of POST /api/v1/tags/refresh.
type ImageRequest struct {
	Image string `json:"image"`
}

// Refreshed is the answer to it.
type Refreshed struct {
	Image   string `json:"image"`
	Digest  string `json:"digest"`
	Changed bool   `json:"changed"`          // the tag meant another digest before, or was not known
	Served  string `json:"served,omitempty"` // the digest that pulls get; absent: the same
	HeldBy  string `json:"heldBy,omitempty"` // why they get it: pin, immutable or minAge; absent: nothing is held
}

// PurgeRequest is the body of POST /api/v1/purge: an image, or a digest.
type PurgeRequest struct {
	Image  string `json:"image,omitempty"`
	Digest string `json:"digest,omitempty"`
}

// inUse is how long after its last pull a tag counts as in use.
const inUse = 30 * 24 * time.Hour

const (
	// mostUses is how many pods and workloads of a tag are listed.
	mostUses = 20
	// maxDigests is how many pieces of content an answer names that an image lacks.
	maxDigests = 20
)

// tags are the handlers of tags, pins and purges.
type tags struct {
	ledger   Ledger
	readUses func(ctx context.Context) (by map[oci.Ref][]string, notes []string, err error)
	uses     *remembered[uses]
	log      *slog.Logger
}

// uses are the pods and workloads that name each tag, sorted, each once.
type uses struct {
	by    map[oci.Ref][]string
	notes []string
}

// usesFor reads the cluster for a page. Without it the list is still worth showing.
func (t tags) usesFor(ctx context.Context, p page) uses {
	if t.readUses == nil {
		return uses{}
	}
	u, err := t.uses.get(p, func() (u uses, err error) {
		u.by, u.notes, err = t.readUses(ctx)
		for ref, names := range u.by {
			slices.Sort(names)
			u.by[ref] = slices.Compact(names) // several containers of one pod
		}
		return u, err
	})
	if err != nil {
		return uses{notes: []string{err.Error()}}
	}
	return u
}

// image reads an image of a request: canonical, with a tag or a digest as they are wanted. For a change the tag has to be
// written: an image that was copied from a node has none, and latest is not what was meant.
func (t tags) image(r *http.Request, text, want string, change bool) (oci.Ref, error) {
	if text == "" {
		return oci.Ref{}, badRequest(errors.New("image is missing; write it as in docker.io/library/nginx:1.27"))
	}
	ref, err := oci.ParseRef(text)
	if err != nil {
		return oci.Ref{}, badRequest(fmt.Errorf("image=%s: %w", text, err))
	}
	if change && !strings.Contains(path.Base(text), ":") {
		return oci.Ref{}, badRequest(fmt.Errorf("image=%s: write its tag, as in %s:1.27; a change takes no tag for granted", text, text))
	}
	if want == "tag" && (ref.Tag == "" || ref.Digest != "") {
		return oci.Ref{}, badRequest(fmt.Errorf("image=%s: write it with its tag and without a digest, as in docker.io/library/nginx:1.27", text))
	}
	own, err := t.ledger.Canonical(ref)
	switch c := callerOf(r); {
	case err != nil && c.seesAll():
		return oci.Ref{}, t.refused(err)
	case change || r.Method != http.MethodGet: // the same whether there is such an image or not
		if err != nil || !c.scope.Allows(access.Operate, own.Repo) {
			return oci.Ref{}, c.lacksFor(access.Operate, ref.String())
		}
	case err != nil || !c.sees(own.Repo):
		return oci.Ref{}, neverSeen(ref)
	}
	return own, nil
}

// neverSeen is the answer for a tag without a record, and for one that the caller may not see.
func neverSeen(ref oci.Ref) error {
	return &refusal{status: http.StatusNotFound, detail: fmt.Sprintf("the mirror has never seen %s; it knows a tag from its first pull on", ref)}
}

// refused is the answer to an error of the ledger.
func (t tags) refused(err error) error {
	var (
		unknown *route.UnknownError
		missing *pull.MissingError
		pinned  *pull.PinnedError
		part    *pull.PartError

		forbidden *access.ForbiddenError
	)
	switch {
	case errors.As(err, &unknown):
		return &refusal{status: http.StatusNotFound, detail: err.Error() + "; mirror upstreams lists the upstreams"}
	case errors.As(err, &missing):
		digests := make([]string, len(missing.Digests))
		for i, d := range missing.Digests {
			digests[i] = d.String()
		}
		detail := err.Error()
		if f := diagnose.Explain(missing.Err); f.Reason != diagnose.InternalError {
			detail = missing.Lack() + ": " + f.Summary + "; " + f.Remedy
		}
		return &refusal{status: http.StatusConflict, detail: detail + "; nothing was changed", problems: firstOf(digests, maxDigests)}
	case errors.As(err, &forbidden):
		return &refusal{status: http.StatusConflict, detail: fmt.Sprintf("no rule lets clients pull %s, and the mirror's login is used for nothing else; add a rule for it", forbidden.Repo)}
	case errors.As(err, &part), errors.As(err, &pinned):
		return &refusal{status: http.StatusConflict, detail: err.Error()}
	case errors.Is(err, catalog.ErrPinnedByConfig):
		return &refusal{status: http.StatusConflict, detail: err.Error() + ", and reload"}
	}
	f := diagnose.Explain(err)
	return &refusal{status: http.StatusBadGateway, detail: f.Summary + "; " + f.Remedy}
}

// list answers with one tag, or with the tags in use.
func (t tags) list(_ http.ResponseWriter, r *http.Request) (any, error) {
	q := r.URL.Query()
	if q.Has("image") {
		return t.tag(r)
	}
	p, err := pageOf(q, maxPage, "image", "at", "floating")
	if err != nil {
		return nil, badRequest(err)
	}
	if q.Has("at") {
		return nil, badRequest(errors.New("at needs an image"))
	}
	now, used, who := time.Now(), t.usesFor(r.Context(), p), callerOf(r)
	body := TagList{Tags: []TagSummary{}, Notes: used.notes}
	for tag, err := range t.ledger.Tags("") {
		if err != nil {
			return nil, fmt.Errorf("read the tags: %w", err)
		}
		if err := r.Context().Err(); err != nil {
			return nil, errGone
		}
		name := tag.Ref.String()
		if name <= p.after || catalog.IsArtifactTag(tag.Ref.Tag) || !who.sees(tag.Ref.Repo) {
			continue
		}
		s, inUse := t.summary(tag, used.by, now)
		if !inUse || q.Get("floating") == "true" && !s.Floating {
			continue
		}
		if len(body.Tags) == p.limit { // the table is in the order of the list, so that one page is in memory
			body.Continue = continues(body.Tags[p.limit-1].Image)
			break
		}
		body.Tags = append(body.Tags, s)
	}
	return body, nil
}

// summary is a tag in the list, with the pods and workloads that name it, and whether it is in use.
func (t tags) summary(tag catalog.Tag, by map[oci.Ref][]string, now time.Time) (s TagSummary, used bool) {
	tag.Ref.Digest = ""
	usedBy := by[tag.Ref]
	s = TagSummary{
		Image: tag.Ref.String(), Digest: tag.Digest.String(), CheckedAt: tag.Checked.UTC(), Changes: max(0, len(tag.History)-1),
		Floating: catalog.Floating(tag), Uses: len(usedBy), UsedBy: usedBy[:min(len(usedBy), mostUses)],
	}
	clients, err := t.ledger.Clients(tag.Ref)
	if err != nil {
		return s, false
	}
	for _, c := range clients {
		if c.LastPull.After(s.LastPull) {
			s.LastPull = c.LastPull.UTC()
		}
	}
	s.Clients = len(clients)
	_, s.Pinned = t.ledger.Pinned(tag.Ref, now)
	return s, s.Pinned || s.Uses > 0 || now.Sub(s.LastPull) <= inUse
}

// tag answers with one tag, now or at a time.
func (t tags) tag(r *http.Request) (any, error) {
	q := r.URL.Query()
	if _, err := pageOf(q, maxPage, "image", "at"); err != nil {
		return nil, badRequest(err)
	}
	ref, err := t.image(r, q.Get("image"), "tag", false)
	if err != nil {
		return nil, err
	}
	tag, err := t.ledger.Tag(ref)
	if errors.Is(err, catalog.ErrUnknown) {
		return nil, neverSeen(ref)
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", ref, err)
	}
	now := time.Now()
	body := Tag{
		Image: ref.String(), Digest: tag.Digest.String(), CheckedAt: tag.Checked.UTC(), History: []TagPeriod{}, Clients: []TagClient{},
	}
	periods := tag.History
	if q.Has("at") {
		at, err := Since(q.Get("at"), now)
		if err != nil {
			return nil, badRequest(fmt.Errorf("at=%s: %w", q.Get("at"), err))
		}
		if err := past(at, now); err != nil {
			return nil, err
		}
		then, ok := tag.At(at)
		if !ok {
			return nil, &refusal{status: http.StatusNotFound, detail: fmt.Sprintf("the mirror knows nothing of %s at %s; its history begins at %s", ref,
				at.UTC().Format(time.RFC3339), began(tag))}
		}
		periods, body.At, body.Digest, body.NotSeen = []catalog.Seen{then}, at.UTC(), then.Digest.String(), gapAt(tag, at)
	}
	for _, s := range periods {
		size, complete := t.ledger.Cached(oci.Ref{Repo: ref.Repo, Tag: ref.Tag, Digest: s.Digest})
		if !complete {
			size = 0
		}
		body.History = append(body.History, TagPeriod{
			Digest: s.Digest.String(), FirstSeen: s.First.UTC(), LastSeen: s.Last.UTC(), Source: s.Source, Size: cmp.Or(s.Size, size),
			Platforms: s.Platforms, Complete: complete, Reversion: s.Reversion,
		})
	}
	if body.At.IsZero() {
		body.Served, body.HeldBy, body.HeldUntil = served(t.ledger.Choice(tag), tag.Digest)
	}
	if pin, ok := t.ledger.Pinned(ref, now); ok {
		body.Pin = new(viewPin(pin))
	}
	clients, err := t.ledger.Clients(ref)
	if err != nil {
		return nil, fmt.Errorf("read the clients of %s: %w", ref, err)
	}
	slices.SortFunc(clients, func(a, b catalog.Client) int { return b.LastPull.Compare(a.LastPull) })
	for _, c := range clients {
		body.Clients = append(body.Clients, TagClient{Client: c.Client, Digest: c.Digest.String(), LastPull: c.LastPull.UTC()})
	}
	return body, nil
}

// served is the digest that pulls of a tag get, if that is another one than its registry said last, and why and until when.
func served(c catalog.Choice, latest oci.Digest) (digest, by string, until time.Time) {
	by = map[catalog.Hold]string{
		catalog.HeldByPin: "pin", catalog.HeldByImmutable: "immutable", catalog.HeldByMinAge: "minAge", catalog.HeldUnknown: "minAge",
	}[c.Hold]
	if c.Digest != latest {
		digest = c.Digest.String()
	}
	return digest, by, c.Until.UTC()
}

// began is when the history of a tag begins.
func began(tag catalog.Tag) string {
	if len(tag.History) == 0 {
		return "its next pull"
	}
	return tag.History[len(tag.History)-1].First.UTC().Format(time.RFC3339)
}

// refresh asks the registry what a tag means now.
func (t tags) refresh(_ http.ResponseWriter, r *http.Request) (any, error) {
	var q ImageRequest
	if err := readRequest(r, &q, `{"image":"docker.io/library/nginx:1.27"}`); err != nil {
		return nil, err
	}
	ref, err := t.image(r, q.Image, "tag", false)
	if err != nil {
		return nil, err
	}
	before, after, err := t.ledger.Refresh(r.Context(), ref)
	if err != nil {
		return nil, t.refused(err)
	}
	t.audit(r, "tag refreshed", ref, "digest", after, "previous", before)
	answer := Refreshed{Image: ref.String(), Digest: after.String(), Changed: before != after}
	if tag, err := t.ledger.Tag(ref); err == nil {
		answer.Served, answer.HeldBy, _ = served(t.ledger.Choice(tag), after)
	}
	return answer, nil
}

// audit logs a change that an operator has made.
func (t tags) audit(r *http.Request, event string, ref oci.Ref, attrs ...any) {
	audit(r, t.log, event, append([]any{"repository", ref.Repo.String(), "tag", ref.Tag}, attrs...)...)
}

// purge removes an image or a digest from the cache.
func (t tags) purge(_ http.ResponseWriter, r *http.Request) (any, error) {
	var q PurgeRequest
	if err := readRequest(r, &q, `{"image":"docker.io/library/nginx:1.27"} or {"digest":"sha256:..."}`); err != nil {
		return nil, err
	}
	if (q.Image == "") == (q.Digest == "") {
		return nil, badRequest(errors.New("give either image or digest"))
	}
	if q.Digest != "" {
		d := oci.Digest(q.Digest)
		if d.Validate() != nil {
			return nil, badRequest(fmt.Errorf("digest=%s: must be sha256: and 64 hex digits", q.Digest))
		}
		if err := mayChangeAll(r); err != nil { // other images may have the same content
			return nil, err
		}
		if err := t.ledger.PurgeContent(d); err != nil {
			return nil, t.refused(err)
		}
		audit(r, t.log, "content purged", "digest", d)
		return noContent, nil
	}
	ref, err := t.image(r, q.Image, "", true)
	if err != nil {
		return nil, err
	}
	if ref.Tag == "" && ref.Digest == "" {
		return nil, badRequest(fmt.Errorf("image=%s: write its tag or digest", q.Image))
	}
	if err := t.ledger.Purge(r.Context(), ref); err != nil {
		return nil, t.refused(err)
	}
	t.audit(r, "image purged", ref, "digest", ref.Digest)
	return noContent, nil
}

// past refuses a time at which nothing has been seen yet. The client's clock may be a little ahead.
func past(at, now time.Time) error {
	if at.After(now.Add(time.Minute)) {
		return badRequest(fmt.Errorf("%s is in the future: the history of a tag ends now", at.UTC().Format(time.RFC3339)))
	}
	return nil
}
