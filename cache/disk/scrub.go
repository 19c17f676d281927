package disk

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/registrymirror/mirror/cache"
	"github.com/registrymirror/mirror/internal/backoff"
	"github.com/registrymirror/mirror/oci"
)

// ScrubOptions for Store.Scrub. The zero value of a field means what its comment says.
type ScrubOptions struct {
	// Rate is how many bytes a second are read at most: 20 MiB.
	Rate int64
	// Every is how long after the beginning of one round the next begins, at the earliest: 24 h.
	Every time.Duration
	// Remove removes damaged content. Nil: the store's own Remove. The cache's updates its counts as well.
	Remove func(d oci.Digest) error
}

// ScrubStats is what scrubbing has done since the store was opened.
type ScrubStats struct {
	Blobs   int64 // pieces of content read
	Bytes   int64 // read
	Damaged int64 // pieces of content that were found damaged
}

// scrubbed counts ScrubStats.
type scrubbed struct{ blobs, bytes, damaged atomic.Int64 }

// Scrubbed returns the present numbers.
func (s *Store) Scrubbed() ScrubStats {
	return ScrubStats{
		Blobs: s.scrubbed.blobs.Load(), Bytes: s.scrubbed.bytes.Load(), Damaged: s.scrubbed.damaged.Load(),
	}
}

const (
	scrubFile = "scrub.json"
	scrubSave = time.Minute // between two writes of scrub.json
	// scrubShare is the part of the time that scrubbing may take, 1/10: where the disk or the machine is busy each read
	// takes longer, and so does the rest after it.
	scrubShare = 10
	// minRest is the shortest rest; less is added to the next one.
	minRest = 10 * time.Millisecond
)

// progress is the content of scrub.json.
type progress struct {
	Began time.Time  `json:"began"` // the round
	Next  oci.Digest `json:"next"`  // the first digest that is not read yet; empty: the round is over
}

// Scrub reads all content again, round after round, and removes content that its name does not fit: disks lose bits, and
// nothing else looks at content that is served from the kernel. A round goes by names, so the content that was read longest
// ago comes next, and a restart continues where the last process was. It takes at most a tenth of the time, and leaves in
// memory what was there. It ends with ctx, and returns nil.
func (s *Store) Scrub(ctx context.Context, o ScrubOptions) error {
	o.Rate = cmp.Or(o.Rate, 20<<20)
	o.Every = cmp.Or(o.Every, 24*time.Hour)
	if o.Remove == nil {
		o.Remove = s.Remove
	}
	r := &scrubber{s: s, folder: s.folder, o: o, pace: pace{rate: o.Rate}}
	r.read()
	for ctx.Err() == nil {
		if r.Next == "" {
			if wait := min(o.Every, time.Until(r.Began.Add(o.Every))); wait > 0 && !backoff.Wait(ctx, wait) {
				break
			}
			r.progress = progress{Began: time.Now(), Next: firstDigest}
		}
		r.round(ctx)
		r.save()
	}
	return nil
}

// scrubber is one Scrub.
type scrubber struct {
	s      *Store
	folder *folder
	o      ScrubOptions
	pace   pace
	progress
}

// round reads the rest of a round.
func (r *scrubber) round(ctx context.Context) {
	saved := time.Now()
	for e, err := range r.folder.all(r.Next) {
		if err != nil {
			r.folder.report(slog.LevelWarn, "part of the cache can't be listed, and so not be scrubbed", "error", err)
			if !backoff.Wait(ctx, time.Second) {
				return
			}
			continue
		}
		r.Next = e.Digest
		if r.scrub(ctx, e.Digest); ctx.Err() != nil {
			return // it is read again
		}
		if time.Since(saved) > scrubSave {
			saved = time.Now()
			r.save()
		}
	}
	if ctx.Err() == nil {
		r.Next = ""
	}
}

// scrub reads one piece of content.
func (r *scrubber) scrub(ctx context.Context, d oci.Digest) {
	begin := time.Now()
	f, name, err := r.folder.openBlob(d)
	if err != nil {
		if !errors.Is(err, cache.ErrNotFound) {
			r.folder.report(slog.LevelDebug, "content can't be opened to be scrubbed", "digest", d, "error", err)
		}
		_ = r.pace.rest(ctx, 0, time.Since(begin))
		return
	}
	defer f.Close()
	if r.s.contents.isRemoved(d) || r.s.isSuspect(d, f.File) {
		return // it is about to be removed, or hashed
	}
	wrong, err := r.folder.examine(f, d, func(n int) error {
		r.s.scrubbed.bytes.Add(int64(n))
		err := r.pace.rest(ctx, n, time.Since(begin))
		begin = time.Now()
		return err
	})
	if err != nil {
		if ctx.Err() == nil {
			r.folder.report(slog.LevelDebug, "content can't be scrubbed", "digest", d, "error", err)
		}
		return
	}
	r.s.scrubbed.blobs.Add(1)
	if wrong == "" || !r.folder.sameFile(name, f) {
		_ = r.pace.rest(ctx, 0, time.Since(begin))
		return
	}
	r.s.scrubbed.damaged.Add(1)
	if err := r.o.Remove(d); err != nil {
		r.folder.report(slog.LevelWarn, "cached content is damaged and can't be removed; check the disk of cache.dir",
			"digest", d, "size", f.size, "reason", wrong, "error", err)
		return
	}
	r.folder.report(slog.LevelWarn, "cached content was damaged; it is removed, and fetched again when it is next pulled: "+
		"check the disk of cache.dir", "digest", d, "size", f.size, "reason", wrong)
}

// read reads how far the process before was. Without that a round begins.
func (r *scrubber) read() {
	b, err := r.folder.root.ReadFile(scrubFile)
	if err != nil || json.Unmarshal(b, &r.progress) != nil {
		r.progress = progress{}
	}
}

// save writes how far the round is. Where that is lost some content is read once more, or later.
func (r *scrubber) save() {
	tmp, err := r.folder.writeTemp(scrubFile, r.progress, false)
	if err == nil {
		err = r.folder.root.Rename(tmp, scrubFile)
	}
	if err != nil {
		r.folder.report(slog.LevelDebug, "the progress of scrubbing can't be written", "error", err)
	}
}

// pace keeps to a rate, and to a share of the time.
type pace struct {
	rate int64 // bytes a second
	owed time.Duration
}

// rest waits as long as it has to after n bytes that took some time.
func (p *pace) rest(ctx context.Context, n int, took time.Duration) error {
	due := time.Duration(float64(n) / float64(p.rate) * float64(time.Second))
	p.owed += max(due, scrubShare*took) - took
	if p.owed >= minRest {
		wait := p.owed
		p.owed = 0
		if !backoff.Wait(ctx, wait) {
			return context.Cause(ctx)
		}
	}
	return ctx.Err()
}
