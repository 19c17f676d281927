package pull

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/registrymirror/mirror/catalog"
	"github.com/registrymirror/mirror/oci"
)

const (
	// pinsEvery is how often the content of pins is looked after: what is missing is fetched, and all is kept from eviction.
	pinsEvery = 10 * time.Minute
	// pinsKept is for how long a pin's content is kept with each look. The cache does not end keeps of this length early.
	pinsKept = 24 * time.Hour
	// pinsAtOnce is how many pinned images are fetched at once.
	pinsAtOnce = 4
)

// pins are the parts of pinned images, so that they can be kept from eviction and purge.
type pins struct {
	due chan struct{} // holds one: a look at all pins is due now

	mu       sync.Mutex                     // guards what follows; a leaf
	kept     map[oci.Ref]pinned             // by tag
	fetching map[oci.Ref]context.CancelFunc // the pins whose images are being fetched
}

// pinned is what is kept for a pin.
type pinned struct {
	digest oci.Digest
	until  time.Time // zero: without end
	parts  []oci.Digest
}

// over reports whether the pin has ended.
func (k pinned) over() bool { return !k.until.IsZero() && !time.Now().Before(k.until) }

func newPins() *pins {
	return &pins{due: make(chan struct{}, 1), kept: make(map[oci.Ref]pinned), fetching: make(map[oci.Ref]context.CancelFunc)}
}

// look has the pins looked after soon.
func (s *pins) look() {
	select {
	case s.due <- struct{}{}:
	default: // it is due already
	}
}

// of finds a pin that is of the tag ref, or to one of the digests.
func (s *pins) of(ref oci.Ref, roots []oci.Digest) (oci.Ref, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for tag, kept := range s.kept {
		if !kept.over() && tag.Repo == ref.Repo && (tag.Tag == ref.Tag || slices.Contains(roots, kept.digest)) {
			tag.Digest = kept.digest
			return tag, true
		}
	}
	return oci.Ref{}, false
}

// with finds a pin of an image that has a part.
func (s *pins) with(d oci.Digest) (oci.Ref, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for tag, kept := range s.kept {
		if !kept.over() && slices.Contains(kept.parts, d) {
			tag.Digest = kept.digest
			return tag, true
		}
	}
	return oci.Ref{}, false
}

// without returns those of the parts that no pinned image has.
func (s *pins) without(parts []oci.Digest) (free []oci.Digest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	taken := make(map[oci.Digest]bool)
	for _, kept := range s.kept {
		if kept.over() {
			continue
		}
		for _, d := range kept.parts {
			taken[d] = true
		}
	}
	for _, d := range parts {
		if !taken[d] {
			free = append(free, d)
		}
	}
	return free
}

// PartError says that a digest is only a part of an image that a tag has meant: of one platform, or an attestation.
type PartError struct {
	Ref      oci.Ref    // the tag, with the digest
	Index    oci.Digest // that has it
	Platform string     // OS/ARCH or OS/ARCH/VARIANT; empty: it is for no platform
}

func (e *PartError) Error() string {
	what := "the image for " + e.Platform + " alone"
	if e.Platform == "" || strings.HasPrefix(e.Platform, "unknown/") {
		what = "an attestation, and not an image"
	}
	return fmt.Sprintf("%s of %s:%s is %s; use the digest of the index that has it, %s", e.Ref.Digest, e.Ref.Repo, e.Ref.Tag, what, e.Index)
}

// whole checks that the digest of a pin is not only a part of an index that the tag has meant. A node reports such a digest, and
// with it nodes of other platforms would get what they can't run.
func (p *Puller) whole(pin catalog.Pin) error {
	t, err := p.catalog.Tag(pin.Ref)
	if err != nil {
		return nil // the tag is new here
	}
	seen := make(map[oci.Digest]bool)
	for _, s := range t.History {
		if s.Digest == pin.Digest {
			return nil
		}
		if seen[s.Digest] {
			continue
		}
		seen[s.Digest] = true
		doc, err := p.peekManifest(oci.Descriptor{Digest: s.Digest})
		if err != nil || doc == nil {
			continue
		}
		for _, c := range doc.Children {
			if c.Manifest && c.Digest == pin.Digest {
				e := &PartError{Ref: pin.Ref, Index: s.Digest}
				e.Ref.Digest = pin.Digest
				if c.Platform != nil {
					e.Platform = oci.PlatformText(*c.Platform)
				}
				return e
			}
		}
	}
	return nil
}

// Pin makes a tag mean a digest until it is unpinned, or until the pin's time. All parts of the image are fetched first, those
// for the platforms of nodes; the error is a *MissingError if that can't be done, and a *PartError if the digest is only a part
// of an image. Then nothing has changed.
func (p *Puller) Pin(ctx context.Context, pin catalog.Pin) error {
	_, ref, err := p.allowed(pin.Ref)
	if err != nil {
		return err
	}
	ref.Digest = ""
	pin.Ref = ref
	if err := p.whole(pin); err != nil {
		return err
	}
	m, err := p.fetchPinned(ctx, pin, false)
	if err != nil {
		return err
	}
	if err := p.catalog.SetPin(pin); err != nil {
		return err
	}
	p.keepPin(pin, m, time.Now())
	p.pins.look()
	return nil
}

// Unpin ends the pin of a tag. The error is catalog.ErrUnknown where there is none.
func (p *Puller) Unpin(ref oci.Ref) error {
	_, ref, err := p.own(ref)
	if err != nil {
		return err
	}
	ref.Digest = ""
	if err := p.catalog.RemovePin(ref); err != nil {
		return err
	}
	p.pins.look()
	return nil
}

// fetchPinned brings a pinned image into the cache, and returns it. background says that no operator waits for it.
func (p *Puller) fetchPinned(ctx context.Context, pin catalog.Pin, background bool) (*Image, error) {
	at := oci.Ref{Repo: pin.Ref.Repo, Digest: pin.Digest}
	platforms := p.setup.Load().Platforms
	if m, err := p.Survey(at, platforms); err == nil && len(m.Missing()) == 0 {
		return m, nil
	}
	m, err := p.Fetch(ctx, at, FetchOptions{Platforms: platforms, As: "pins", Background: background})
	if err == nil && len(m.Missing()) > 0 {
		err = errUncached
	}
	if err != nil {
		missing := []oci.Digest{pin.Digest}
		if m != nil {
			missing = m.Missing()
		}
		return nil, &MissingError{Ref: oci.Ref{Repo: pin.Ref.Repo, Tag: pin.Ref.Tag, Digest: pin.Digest}, Digests: missing, Err: err}
	}
	return m, nil
}

// keepPin keeps the parts of a pinned image from eviction.
func (p *Puller) keepPin(pin catalog.Pin, m *Image, now time.Time) {
	until := now.Add(pinsKept)
	if !pin.Until.IsZero() && pin.Until.Before(until) {
		until = pin.Until
	}
	parts := m.Digests()
	p.cache.Keep(pinHolder(pin.Ref), until, parts...)
	p.pins.mu.Lock()
	p.pins.kept[pin.Ref] = pinned{pin.Digest, pin.Until, parts}
	p.pins.mu.Unlock()
}

func pinHolder(ref oci.Ref) string { return "pin " + ref.String() }

// watchPins looks after the pins until the context ends: at once, when they have changed, when one ends, and every ten minutes.
func (p *Puller) watchPins(ctx context.Context) {
	var fetches sync.WaitGroup
	defer fetches.Wait()
	turns := make(chan struct{}, pinsAtOnce)
	for {
		p.logEnded(ctx)
		for _, pin := range p.keepPins(ctx) {
			p.fetchInBackground(ctx, pin, turns, &fetches)
		}
		timer := time.NewTimer(p.nextPinsLook(time.Now()))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		case <-p.pins.due:
			timer.Stop()
		}
	}
}

// nextPinsLook is how long it is until the pins are looked after again: when one of them ends, at the latest.
func (p *Puller) nextPinsLook(now time.Time) time.Duration {
	next := pinsEvery
	for _, pin := range p.catalog.Pins(now) {
		if !pin.Until.IsZero() {
			next = min(next, pin.Until.Sub(now))
		}
	}
	return next
}

// logEnded logs the pins that have ended, each once.
func (p *Puller) logEnded(ctx context.Context) {
	ended, err := p.catalog.EndedPins(time.Now())
	if err != nil {
		p.log.WarnContext(ctx, "cannot record that pins have ended; it is tried again", "error", err)
	}
	for _, pin := range ended {
		p.log.InfoContext(ctx, "pin ended; pulls of the tag get what its registry says", "repository", pin.Ref.Repo.String(), "tag", pin.Ref.Tag,
			"digest", pin.Digest, "expires_at", pin.Until, "reason", pin.Reason)
	}
}

// keepPins keeps what is here of the pinned images from eviction, ends that for pins that are gone, and returns those whose
// images are not complete.
func (p *Puller) keepPins(ctx context.Context) (incomplete []catalog.Pin) {
	now := time.Now()
	current := p.catalog.Pins(now)
	p.dropPins(current, now)
	for _, pin := range current {
		if ctx.Err() != nil {
			return nil
		}
		m, err := p.Survey(oci.Ref{Repo: pin.Ref.Repo, Digest: pin.Digest}, p.setup.Load().Platforms)
		if m != nil {
			p.keepPin(pin, m, now)
		}
		if err != nil || len(m.Missing()) > 0 {
			incomplete = append(incomplete, pin)
		}
	}
	return incomplete
}

// fetchInBackground fetches what is missing of a pinned image, unless that goes on already. A few are fetched at once, so that a slow
// one holds up no other; the end of the pin ends it.
func (p *Puller) fetchInBackground(ctx context.Context, pin catalog.Pin, turns chan struct{}, fetches *sync.WaitGroup) {
	ctx, cancel := context.WithCancel(ctx)
	p.pins.mu.Lock()
	_, going := p.pins.fetching[pin.Ref]
	if !going {
		p.pins.fetching[pin.Ref] = cancel
	}
	p.pins.mu.Unlock()
	if going {
		cancel()
		return
	}
	fetches.Go(func() {
		defer func() {
			cancel()
			p.pins.mu.Lock()
			delete(p.pins.fetching, pin.Ref)
			p.pins.mu.Unlock()
		}()
		select {
		case turns <- struct{}{}:
			defer func() { <-turns }()
		case <-ctx.Done():
			return
		}
		m, err := p.fetchPinned(ctx, pin, true)
		switch {
		case ctx.Err() != nil || errors.Is(err, errNoSetup):
		case err != nil:
			p.log.WarnContext(ctx, "a pinned image is not all in the cache; it is fetched again later", "repository", pin.Ref.Repo.String(),
				"tag", pin.Ref.Tag, "digest", pin.Digest, "next_try", time.Now().Add(pinsEvery), "error", err)
		default:
			p.keepPin(pin, m, time.Now())
		}
	})
}

// dropPins ends what is kept for pins that are no longer there, and their fetches.
func (p *Puller) dropPins(current []catalog.Pin, now time.Time) {
	there := make(map[oci.Ref]bool, len(current))
	for _, pin := range current {
		there[pin.Ref] = true
	}
	p.pins.mu.Lock()
	var gone []oci.Ref
	for tag := range p.pins.kept {
		if !there[tag] {
			gone = append(gone, tag)
			delete(p.pins.kept, tag)
		}
	}
	for tag, cancel := range p.pins.fetching {
		if !there[tag] {
			cancel()
		}
	}
	p.pins.mu.Unlock()
	for _, tag := range gone {
		p.cache.Keep(pinHolder(tag), now)
	}
}
