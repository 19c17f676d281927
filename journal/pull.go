package journal

import (
	"slices"
	"time"

	"github.com/registrymirror/mirror/cache"
	"github.com/registrymirror/mirror/diagnose"
	"github.com/registrymirror/mirror/oci"
)

const (
	maxParts = 100 // failing parts of one pull, and unfinished ones
	// maxMissing bounds the parts of an image by whose end its pull is known to be complete. The pull of a larger image ends
	// when its client is idle.
	maxMissing = 256
	// maxDocuments is how many documents of a pull are remembered: an index, a manifest and a config are one image.
	maxDocuments = 16
)

// pull is a pull that may go on.
type pull struct {
	listed
	key        repoKey
	ref        oci.Ref   // as first requested; the digest is known once something was answered
	upstream   string    // empty where it is not a configured one
	began      time.Time // when its first request came
	lastActive time.Time // when its last request ended or began to be sent
	lastEnd    time.Time // when its last answer ended

	sending   int // blobs that are being sent
	blobs     int // blob requests
	bytes     int64
	fromCache int64
	stale     bool
	contents

	failing map[part]cause            // parts whose last answer was a failure
	logged  map[diagnose.Reason]bool  // reasons that the log has of this pull
	counted map[diagnose.Reason]cause // failures that the record has of this pull

	offer      *offer           // an index that the client got, until it requests something in it
	platform   string           // platform that the client needs and the index lacks
	unfinished map[part]Request // blobs during which the client left
}

// contents are what a client has got of its image, and what it has not.
type contents struct {
	source    string              // the address of its first request
	missing   map[oci.Digest]bool // blobs of its manifest that the client has not got yet; nil: not known
	documents []oci.Digest        // as Pull has them
	configs   []oci.Digest        // of these, the configs
	config    bool                // the client got one of these
	layers    bool                // the client got another blob
}

// part is a piece of content as it was requested.
type part struct {
	kind      oci.Kind
	reference string
}

// cause is why a part failed.
type cause struct {
	finding *diagnose.Finding
	id      string
}

func partOf(r Request) part {
	if r.Ref.Tag != "" {
		return part{r.Kind, r.Ref.Tag}
	}
	return part{r.Kind, r.Ref.Digest.String()}
}

// completeAt is when a pull is finished whose client has everything.
func (p *pull) completeAt() time.Time { return p.lastActive.Add(afterComplete) }

// add counts an answer.
func (j *Journal) add(p *pull, r Request) {
	p.lastEnd = r.At.Add(r.Took)
	j.followChoice(p, r)
	p.followUnfinished(r)
	succeeded := r.Status/100 == 2
	if succeeded { // the text of a refusal is not content
		p.bytes += r.Bytes
		if r.Outcome == cache.Hit {
			p.fromCache += r.Bytes
		}
	}
	p.stale = p.stale || r.Stale
	p.followMissing(r)
	p.followDocuments(r)
	if r.Kind == oci.KindBlob && !r.Head {
		if p.sending > 0 && succeeded {
			p.sending--
		}
		p.blobs++
	}
	switch {
	case r.Finding != nil && !isLookup(r):
		p.setFailing(partOf(r), cause{r.Finding, r.ID})
	case r.Finding == nil && (succeeded || r.Status == 304):
		if f, ok := p.failing[partOf(r)]; ok && !r.Aborted { // it succeeded in the end
			delete(p.failing, partOf(r))
			j.retract(p, f.finding.Reason)
		}
		if p.ref.Digest == "" && r.Ref.Digest != "" && r.Ref.Tag == p.ref.Tag {
			j.open.setDigest(p, r.Ref.Digest)
		}
	}
}

func (p *pull) setFailing(of part, c cause) {
	if p.failing == nil {
		p.failing = make(map[part]cause)
	}
	if len(p.failing) < maxParts {
		p.failing[of] = c
	}
}

// followMissing notes which parts of its image a client has.
func (p *pull) followMissing(r Request) {
	switch {
	case r.Status != 200 || r.Aborted || r.Head:
	case r.Kind == oci.KindManifest && len(r.Parts) > 0 && len(p.missing)+len(r.Parts) <= maxMissing:
		if p.missing == nil {
			p.missing = make(map[oci.Digest]bool, len(r.Parts))
		}
		for _, d := range r.Parts {
			p.missing[d] = true
		}
	case r.Kind == oci.KindBlob:
		delete(p.missing, r.Ref.Digest)
	}
}

// followDocuments notes the digests by which a runtime may know the image, and what of it the client got.
func (p *pull) followDocuments(r Request) {
	switch {
	case r.Status/100 != 2 || r.Finding != nil:
	case r.Kind == oci.KindManifest:
		p.addDocument(r.Ref.Digest)
		if len(r.Parts) > 0 && len(p.configs) < maxDocuments { // the config comes first
			p.configs = append(p.configs, r.Parts[0])
			p.addDocument(r.Parts[0])
		}
	case r.Kind != oci.KindBlob || r.Head || r.Bytes == 0:
	case slices.Contains(p.configs, r.Ref.Digest):
		p.config = true
	default:
		p.layers = true
	}
}

func (p *pull) addDocument(d oci.Digest) {
	if d != "" && len(p.documents) < maxDocuments && !slices.Contains(p.documents, d) {
		p.documents = append(p.documents, d)
	}
}

// outcomeOf is the outcome of a pull that has failed.
func outcomeOf(f *diagnose.Finding) Outcome {
	if f.Declined {
		return Declined
	}
	return Failed
}

// outcome is how the pull went so far, and why if it did not go well. Of several failures one that is not declined
// counts.
func (p *pull) outcome() (Outcome, cause) {
	var worst cause
	for _, c := range p.failing {
		if worst.finding == nil || worst.finding.Declined && !c.finding.Declined ||
			worst.finding.Declined == c.finding.Declined && c.id < worst.id {
			worst = c
		}
	}
	switch {
	case worst.finding != nil:
		return outcomeOf(worst.finding), worst
	case p.stale:
		return Stale, cause{}
	case p.blobs > 0:
		return Served, cause{}
	}
	return Looked, cause{}
}

// sum is what is known of a pull so far.
func (p *pull) sum() Pull {
	outcome, why := p.outcome()
	return Pull{
		Ref: p.ref, Upstream: p.upstream, Client: p.key.client, Source: p.source, Outcome: outcome, Began: p.began,
		Took: max(0, p.lastEnd.Sub(p.began)), Bytes: p.bytes, FromCache: p.fromCache, Finding: why.finding, ID: why.id,
		Documents: slices.Clone(p.documents), Config: p.config, Layers: p.layers,
	}
}
