package admin

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/registrymirror/mirror/catalog"
	"github.com/registrymirror/mirror/internal/text"
	"github.com/registrymirror/mirror/oci"
)

// Pin is a tag that means a fixed digest.
type Pin struct {
	Image  string    `json:"image"`
	Digest string    `json:"digest"`
	Since  time.Time `json:"since,omitzero"`
	Until  time.Time `json:"until,omitzero"` // absent: it has no end
	Reason string    `json:"reason,omitempty"`
	By     string    `json:"by,omitempty"` // api or config
	// Operator is the name of the operator that set it; absent: the configuration did, a caller without a name, or an earlier version.
	Operator string `json:"operator,omitempty"`
	// NotSeen is set where the pin was made for a time that lies in it; absent: in none.
	NotSeen *TagGap `json:"notSeen,omitempty"`
}

// PinList is the body of GET /api/v1/pins, sorted by image.
type PinList struct {
	Pins []Pin `json:"pins"`
	// Continue is the parameter for the next page; absent: this is the last one.
	Continue string `json:"continue,omitempty"`
}

// PinRequest is the body of PUT /api/v1/pins: either the digest, or the time at which the tag meant it.
type PinRequest struct {
	Image  string     `json:"image"`
	Digest string     `json:"digest,omitempty"`
	At     time.Time  `json:"at,omitzero"`
	Until  *time.Time `json:"until,omitempty"` // nil: it has no end
	Reason string     `json:"reason,omitempty"`
}

// maxReason is how many bytes of a pin's reason are kept.
const maxReason = 500

func viewPin(p catalog.Pin) Pin {
	p.Ref.Digest = ""
	return Pin{
		Image: p.Ref.String(), Digest: p.Digest.String(), Since: p.Since.UTC(), Until: p.Until.UTC(), Reason: p.Reason, By: p.By,
		Operator: p.Operator,
	}
}

// pins answers with the pins.
func (t tags) pins(_ http.ResponseWriter, r *http.Request) (any, error) {
	p, err := pageOf(r.URL.Query(), maxPage)
	if err != nil {
		return nil, badRequest(err)
	}
	all := t.ledger.Pins(time.Now())
	if c := callerOf(r); !c.seesAll() {
		all = slices.DeleteFunc(slices.Clone(all), func(p catalog.Pin) bool { return !c.sees(p.Ref.Repo) })
	}
	list, next := cut(p, all, func(p catalog.Pin) string { return p.Ref.String() })
	body := PinList{Pins: make([]Pin, len(list)), Continue: next}
	for i, pin := range list {
		body.Pins[i] = viewPin(pin)
	}
	return body, nil
}

// pin pins a tag.
func (t tags) pin(_ http.ResponseWriter, r *http.Request) (any, error) {
	var q PinRequest
	if err := readRequest(r, &q, `{"image":"docker.io/library/nginx:1.27","digest":"sha256:..."}`); err != nil {
		return nil, err
	}
	ref, err := t.image(r, q.Image, "tag", true)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	pin := catalog.Pin{
		Ref: ref, Digest: oci.Digest(q.Digest), Since: now.UTC(), Reason: q.Reason, By: catalog.PinnedByAPI, Operator: callerOf(r).operator(),
	}
	if q.Until != nil {
		pin.Until = *q.Until
	}
	switch {
	case (q.Digest == "") == q.At.IsZero():
		return nil, badRequest(errors.New("give either digest, or at (the time at which the tag meant it)"))
	case q.Digest != "" && pin.Digest.Validate() != nil:
		return nil, badRequest(fmt.Errorf("digest=%s: must be sha256: and 64 hex digits", q.Digest))
	case q.Until != nil && !q.Until.After(now):
		return nil, badRequest(fmt.Errorf("until=%s is over", q.Until.UTC().Format(time.RFC3339)))
	case len(q.Reason) > maxReason || text.Line(q.Reason, maxReason) != q.Reason:
		return nil, badRequest(fmt.Errorf("reason: must be one line of at most %d bytes", maxReason))
	}
	var gap *TagGap
	if !q.At.IsZero() {
		if err := past(q.At, now); err != nil {
			return nil, err
		}
		tag, err := t.ledger.Tag(ref)
		then, ok := tag.At(q.At)
		if err != nil || !ok {
			return nil, &refusal{status: http.StatusNotFound, detail: fmt.Sprintf("it is not known what %s meant at %s; mirror tags show %s has its history",
				ref, q.At.UTC().Format(time.RFC3339), ref)}
		}
		pin.Digest, gap = then.Digest, gapAt(tag, q.At)
	}
	before, _ := t.ledger.Pinned(ref, now)
	if err := t.ledger.Pin(r.Context(), pin); err != nil {
		return nil, t.refused(err)
	}
	attrs := []any{"digest", pin.Digest, "previous", before.Digest, "reason", pin.Reason}
	if !pin.Until.IsZero() {
		attrs = append(attrs, "expires_at", pin.Until)
	}
	t.audit(r, "tag pinned", ref, attrs...)
	body := viewPin(pin)
	body.NotSeen = gap
	return body, nil
}

// unpin ends a pin.
func (t tags) unpin(_ http.ResponseWriter, r *http.Request) (any, error) {
	q := r.URL.Query()
	if _, err := pageOf(q, maxPage, "image"); err != nil {
		return nil, badRequest(err)
	}
	ref, err := t.image(r, q.Get("image"), "tag", true)
	if err != nil {
		return nil, err
	}
	before, _ := t.ledger.Pinned(ref, time.Now())
	err = t.ledger.Unpin(ref)
	if errors.Is(err, catalog.ErrUnknown) {
		return nil, &refusal{status: http.StatusNotFound, detail: fmt.Sprintf("%s is not pinned; mirror tags pins lists the pins", ref)}
	}
	if err != nil {
		return nil, t.refused(err)
	}
	t.audit(r, "tag unpinned", ref, "previous", before.Digest)
	return noContent, nil
}
