package disk

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"os"
	"path"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/registrymirror/mirror/cache"
	"github.com/registrymirror/mirror/oci"
)

// ScrubOptions for Store.Scrub. The zero value of a field means what its comment says.
type ScrubOptions struct {
	// Rate is how many bytes a second are read at most: 20 MiB.
	Rate int64
	// Every is how long after the beginning of one round the next begins, at the earliest: 24 h.
	Every time.Duration
	// Remove takes damaged content away: the store's own Remove. The cache's keeps its books as well.
	Remove func(d oci.Digest) error
}

// ScrubStats is what scrubbing has done since the store was opened.
type ScrubStats struct {
	Blobs   int64 // pieces of content read
	Bytes   int64 // read
	Damaged int64 // pieces of content that were found damaged
}

// scrubbed are the numbers of ScrubStats.
type scrubbed struct{ blobs, bytes, damaged atomic.Int64 }

// Scrubbed returns the present numbers.
func (s *Store) Scrubbed() ScrubStats {
	return ScrubStats{
		Blobs: s.scrubbed.blobs.Load(), Bytes: s.scrubbed.bytes.Load(), Damaged: s.scrubbed.damaged.Load(),
	}
}

const (
	scrubFile = "scrub.json"
	scrubSave = time.Minute // between two notes of how far it is
	// scrubShare is the part of the time that scrubbing may take, 1/10: where the disk or the machine is busy each read
	// takes longer, and so does the rest after it.
	scrubShare = 10
	// scrubNap is the shortest rest; less is saved up.
	scrubNap = 10 * time.Millisecond
)

// progress is the content of scrub.json.
type progress struct {
	Began time.Time  `json:"began"` // the round
	Next  oci.Digest `json:"next"`  // where it goes on; empty: the round is over
}

// Scrub reads all content again, round after round, and removes what is not what its name says: disks forget bits, and
// nothing else looks at what is served from the kernel. A round goes by names, so what was read longest ago comes next,
// and a restart goes on where the last process was. It gives way: it takes at most a tenth of the time, and leaves
// in memory what was there. It ends with ctx, and returns nil.
func (s *Store) Scrub(ctx context.Context, o ScrubOptions) error {
	o.Rate = cmp.Or(o.Rate, 20<<20)
	o.Every = cmp.Or(o.Every, 24*time.Hour)
	if o.Remove == nil {
		o.Remove = s.Remove
	}
	p := s.scrubProgress()
	if p.Next != "" {
		s.say(slog.LevelDebug, "scrubbing goes on", "next", p.Next, "began", p.Began)
	}
	for ctx.Err() == nil {
		if p.Next == "" {
			if wait := min(o.Every, time.Until(p.Began.Add(o.Every))); wait > 0 && !sleep(ctx, wait) {
				break
			}
			p = progress{Began: time.Now(), Next: firstDigest}
		}
		s.scrubRound(ctx, o, &p)
		s.saveProgress(p)
	}
	return nil
}

// firstDigest is not above any.
const firstDigest = oci.Digest(digest.SHA256 + ":")

// scrubRound reads what is left of a round.
func (s *Store) scrubRound(ctx context.Context, o ScrubOptions, p *progress) {
	pace := pace{rate: o.Rate}
	saved := time.Now()
	for e, err := range s.inOrder(p.Next) {
		if err != nil {
			s.say(slog.LevelWarn, "part of the cache can't be listed, and so not be scrubbed", "err", err)
			if !sleep(ctx, time.Second) {
				return
			}
			continue
		}
		p.Next = e.Digest
		if s.scrub(ctx, o, e.Digest, &pace); ctx.Err() != nil {
			return // it is read again
		}
		if time.Since(saved) > scrubSave {
			saved = time.Now()
			s.saveProgress(*p)
		}
	}
	if ctx.Err() == nil {
		p.Next = ""
	}
}

// scrub reads one piece of content.
func (s *Store) scrub(ctx context.Context, o ScrubOptions, d oci.Digest, pace *pace) {
	begin := time.Now()
	name, err := blobPath(d)
	if err != nil {
		return
	}
	f, err := s.openFile(name)
	if err != nil {
		if !errors.Is(err, cache.ErrNotFound) {
			s.say(slog.LevelDebug, "content can't be opened to be scrubbed", "digest", d, "err", err)
		}
		_ = pace.rest(ctx, 0, time.Since(begin))
		return
	}
	defer f.Close()
	if s.isDead(d) || s.doubted(d, f.File) {
		return // others see to it
	}
	why, err := s.examine(f, d, s.root.ReadCold, func(n int) error {
		s.scrubbed.bytes.Add(int64(n))
		err := pace.rest(ctx, n, time.Since(begin))
		begin = time.Now()
		return err
	})
	if err != nil {
		if ctx.Err() == nil {
			s.say(slog.LevelDebug, "content can't be scrubbed", "digest", d, "err", err)
		}
		return
	}
	s.scrubbed.blobs.Add(1)
	if why == "" || !s.still(name, f) {
		_ = pace.rest(ctx, 0, time.Since(begin))
		return
	}
	s.scrubbed.damaged.Add(1)
	if err := o.Remove(d); err != nil {
		s.say(slog.LevelWarn, "cached content is damaged and can't be removed; check the disk of cache.dir", "digest", d,
			"size", f.size, "why", why, "err", err)
		return
	}
	s.say(slog.LevelWarn, "cached content was damaged; it is removed, and fetched again when it is next pulled: "+
		"check the disk of cache.dir", "digest", d, "size", f.size, "why", why)
}

// examine says what is wrong with a file; nothing: it holds what d says. An error says that it can't be told.
func (s *Store) examine(
	o *Object, d oci.Digest, read func(*os.File, []byte, int64) (int, error), next func(n int) error,
) (why string, err error) {
	got, err := s.hash(o, d, read, next)
	switch {
	case errors.Is(err, syscall.EIO):
		return fmt.Sprintf("read: %v", err), nil
	case err != nil:
		return "", err
	case got == d:
		return "", nil
	case o.size == 0:
		return "size: the file is empty", nil
	}
	return fmt.Sprintf("hash: its bytes are %s", got), nil
}

// still reports whether a name still is that of an open file.
func (s *Store) still(name string, o *Object) bool {
	now, err := s.root.Lstat(name)
	if err != nil {
		return false
	}
	was, err := o.Stat()
	return err == nil && os.SameFile(now, was)
}

// inOrder yields all content from a digest on, by its digest.
func (s *Store) inOrder(from oci.Digest) iter.Seq2[cache.Entry, error] {
	return func(yield func(cache.Entry, error) bool) {
		for _, a := range []digest.Algorithm{digest.SHA256, digest.SHA512} {
			for prefix, err := range s.subfolders(path.Join(blobsDir, string(a))) {
				if err != nil {
					if !yield(cache.Entry{}, err) {
						return
					}
					continue
				}
				if last := oci.Digest(string(a) + ":" + prefix + "g"); last < from {
					continue
				}
				var list []cache.Entry
				more := s.allIn(a, prefix, func(e cache.Entry, err error) bool {
					if err != nil {
						return yield(e, err)
					}
					if e.Digest >= from {
						list = append(list, e)
					}
					return true
				})
				if !more {
					return
				}
				slices.SortFunc(list, func(a, b cache.Entry) int { return cmp.Compare(a.Digest, b.Digest) })
				for _, e := range list {
					if !yield(e, nil) {
						return
					}
				}
			}
		}
	}
}

// scrubProgress reads how far the process before was.
func (s *Store) scrubProgress() (p progress) {
	b, err := s.root.ReadFile(scrubFile)
	if err != nil || json.Unmarshal(b, &p) != nil {
		return progress{}
	}
	return p
}

// saveProgress writes how far we are. Where it is lost some is read once more, or later.
func (s *Store) saveProgress(p progress) {
	b, err := json.Marshal(p)
	if err != nil {
		return
	}
	const tmp = scrubFile + ".tmp"
	err = func() error {
		f, err := s.root.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
		if err != nil {
			return err
		}
		defer f.Close()
		if _, err := s.root.WriteAt(f, append(b, '\n'), 0); err != nil {
			return err
		}
		return s.root.Rename(tmp, scrubFile)
	}()
	if err != nil {
		s.say(slog.LevelDebug, "how far scrubbing is can't be written", "err", err)
	}
}

// pace keeps to a rate, and to a share of the time.
type pace struct {
	rate int64 // bytes a second
	owed time.Duration
}

// rest waits as long as n bytes, for which it took some time, ask for.
func (p *pace) rest(ctx context.Context, n int, took time.Duration) error {
	due := time.Duration(float64(n) / float64(p.rate) * float64(time.Second))
	p.owed += max(due, scrubShare*took) - took
	if p.owed >= scrubNap {
		wait := p.owed
		p.owed = 0
		if !sleep(ctx, wait) {
			return context.Cause(ctx)
		}
	}
	return ctx.Err()
}

// sleep waits, and reports whether it came to the end.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
