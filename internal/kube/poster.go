package kube

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/registrymirror/mirror/client"
	"github.com/registrymirror/mirror/diagnose"
	"github.com/registrymirror/mirror/internal/backoff"
	"github.com/registrymirror/mirror/journal"
	"github.com/registrymirror/mirror/oci"
)

const (
	maxQueued     = 1000             // failures that wait for a look at the pods
	maxNodes      = 20               // nodes whose pods are listed in one round
	maxPosted     = 10_000           // Events that are remembered
	countInterval = 10 * time.Minute // between two counts of one Event
	eventLife     = time.Hour        // after its last change the API server deletes an Event
	maxPause      = 5 * time.Minute
	maxText       = 1024 // bytes of an Event's message that newer servers allow
	requestRate   = 5    // requests a second
)

// lookTimes are the times after a failure at which the pods are listed. The kubelet gives up a pull after it has tried each of
// its hosts, and the pod's status shows it a second or two later.
var lookTimes = []time.Duration{2 * time.Second, 8 * time.Second, 20 * time.Second, time.Minute}

// PosterOptions for a Poster.
type PosterOptions struct {
	Client *Client
	// Canonical returns the reference under which we know an image. A pod may name it by an alias of its registry, or
	// below a name of ours, as in mirror.example/docker.io/library/nginx.
	Canonical func(oci.Ref) oci.Ref
	// Instance names this mirror in its Events, as its pod's name. Empty: "mirror".
	Instance string
	// Log is told when Events can't be posted, and when they can again.
	Log *slog.Logger
}

// Poster posts Events on pods that can't pull. Failed and Stats may be called from anywhere; Run is one goroutine, and
// owns the rest.
type Poster struct {
	o    PosterOptions
	wake chan struct{} // holds one: a failure was queued

	mu     sync.Mutex // guards what follows
	queued map[want]*wanted
	stats  Stats

	// What follows is Run's alone.
	limit  *rate.Limiter
	posted map[posting]*event
	logged string // the remedy in the last log line about an error; empty: there is no error
}

// Stats count since the start.
type Stats struct {
	Posted  int64 // Events created, or counted up
	Dropped int64 // failures that came while 1,000 others waited
	Errors  int64 // requests that the API server did not answer as it should
}

// want tells failures apart as far as Events are concerned.
type want struct{ id, image, client string }

type wanted struct {
	failure journal.Failure
	ref     oci.Ref
	due     time.Time
	look    int // how often it was looked for
}

// posting is a failure of a pod.
type posting struct{ uid, id string }

// NewPoster makes a Poster, which does nothing before Run.
func NewPoster(o PosterOptions) *Poster {
	o.Instance = cmp.Or(o.Instance, "mirror")
	return &Poster{
		o: o, wake: make(chan struct{}, 1), queued: make(map[want]*wanted), posted: make(map[posting]*event),
		limit: rate.NewLimiter(requestRate, 2*requestRate),
	}
}

// Failed says that a pull failed or was declined. It never blocks.
func (p *Poster) Failed(f journal.Failure) {
	if f.Reason == diagnose.ClientGone || f.Image == "" {
		return
	}
	ref, err := oci.ParseRef(f.Image)
	if err != nil {
		return // no pod can name it
	}
	k := want{f.ID, f.Image, f.Client}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.queued[k] != nil:
		p.queued[k].look = 0 // it goes on: so does looking
		return
	case len(p.queued) >= maxQueued:
		p.stats.Dropped++
		return
	}
	p.queued[k] = &wanted{failure: f, ref: ref, due: time.Now().Add(lookTimes[0])}
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// Stats returns what has been done so far.
func (p *Poster) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stats
}

// Run posts until ctx ends, whose error it returns.
func (p *Poster) Run(ctx context.Context) error {
	defer p.o.Client.Close()
	if err := p.o.Client.Ready(ctx); err != nil && ctx.Err() == nil {
		p.logError(err) // logged before an Event is missed
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		if next := p.next(); next.IsZero() {
			timer.Stop()
		} else {
			timer.Reset(time.Until(next))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-p.wake:
			continue
		case <-timer.C:
		}
		if err := p.round(ctx); err != nil && ctx.Err() == nil {
			backoff.Wait(ctx, p.logError(err))
		}
	}
}

// next is when there is something to look for; zero where there is nothing.
func (p *Poster) next() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	var first time.Time
	for _, w := range p.queued {
		if first.IsZero() || w.due.Before(first) {
			first = w.due
		}
	}
	return first
}

// round looks once for the pods of all failures that are due, and posts. After an error nothing is lost: they are due again.
func (p *Poster) round(ctx context.Context) error {
	now, failed := time.Now(), false
	due := p.due(now)
	if len(due) == 0 {
		return nil
	}
	waiting, err := p.look(ctx, due)
	if err != nil {
		return err
	}
	for _, w := range due {
		found := false
		for _, h := range holders(waiting[w.ref.Repo], w) {
			found = true
			err := p.post(ctx, h, w.failure)
			if refused, _ := errors.AsType[*APIError](err); refused != nil && refused.final() {
				p.logError(err) // of this pod, as where its namespace is being deleted; others may do better
				failed = true
			} else if err != nil {
				return err
			}
		}
		p.finish(w, found, now)
	}
	for k, e := range p.posted {
		if now.Sub(e.last) > eventLife {
			delete(p.posted, k)
		}
	}
	if p.logged != "" && !failed {
		p.logged = ""
		p.o.Log.Info("Kubernetes Events for failed pulls are posted again")
	}
	return nil
}

func (p *Poster) due(now time.Time) []*wanted {
	p.mu.Lock()
	defer p.mu.Unlock()
	var due []*wanted
	for _, w := range p.queued {
		if !w.due.After(now.Add(time.Second)) { // with those that are due within a second: one request for both
			due = append(due, w)
		}
	}
	slices.SortFunc(due, func(a, b *wanted) int { return a.due.Compare(b.due) })
	return due
}

// finish takes a failure off the queue once a pod was found, or after the last look; else it sets the next look.
func (p *Poster) finish(w *wanted, found bool, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	w.look++
	if found || w.look >= len(lookTimes) {
		delete(p.queued, want{w.failure.ID, w.failure.Image, w.failure.Client})
		return
	}
	w.due = now.Add(lookTimes[w.look] - lookTimes[w.look-1])
}

// look lists the containers that wait for an image, by its repository. A pod that waits for the first image of one of
// its containers is Pending; one whose container ran before is not, and is found where the client says its node's name.
func (p *Poster) look(ctx context.Context, due []*wanted) (map[oci.Repo][]holder, error) {
	selectors := []string{"status.phase=Pending"}
	for _, w := range due {
		if s := "spec.nodeName=" + w.failure.Client; client.IsNode(w.failure.Client) && len(selectors) <= maxNodes &&
			!slices.Contains(selectors, s) {
			selectors = append(selectors, s)
		}
	}
	list := make(map[oci.Repo][]holder)
	seen := make(map[string]bool)
	for _, s := range selectors {
		pods, err := p.o.Client.pods(ctx, s, p.limit.Wait)
		if err != nil {
			return nil, err
		}
		for _, x := range pods {
			if seen[x.Metadata.UID] {
				continue
			}
			seen[x.Metadata.UID] = true
			for _, c := range x.waiting() {
				repo := p.o.Canonical(c.ref).Repo
				list[repo] = append(list[repo], holder{x, c})
			}
		}
	}
	return list, nil
}

// holder is a container that waits for an image.
type holder struct {
	pod *pod
	waiting
}

// holders are the pods on the client's node, of those that wait for an image of the repository, that wait for this one.
// An address that is not one of their nodes' may be a whole cluster's: then they may be on any node.
func holders(list []holder, w *wanted) []holder {
	var all, near []holder
	taken := make(map[*pod]bool) // one Event for a pod
	for _, h := range list {
		if taken[h.pod] || !same(h.ref, w.ref) {
			continue
		}
		taken[h.pod] = true
		all = append(all, h)
		if h.pod.on(w.failure.Client) {
			near = append(near, h)
		}
	}
	if len(near) > 0 || client.IsNode(w.failure.Client) {
		return near
	}
	return all
}

// same reports whether a pod's image is the one of its repository that failed.
func same(pod, failed oci.Ref) bool {
	if failed.Digest != "" && pod.Digest != "" {
		return pod.Digest == failed.Digest
	}
	return failed.Tag == pod.Tag
}

// post puts an Event on a pod, or raises the count of the one that is there.
func (p *Poster) post(ctx context.Context, h holder, f journal.Failure) error {
	k := posting{h.pod.Metadata.UID, f.ID}
	now := time.Now()
	e := p.posted[k]
	switch {
	case e == nil && len(p.posted) >= maxPosted:
		p.count(func(s *Stats) { s.Dropped++ })
		return nil
	case e == nil:
		e = newEvent(h, f, p.o.Instance)
	case now.Sub(e.last) < countInterval:
		return nil
	}
	if err := p.limit.Wait(ctx); err != nil {
		return err
	}
	err := p.raise(ctx, e, f, now)
	if refusedWith(err) == http.StatusNotFound {
		delete(p.posted, k) // it has expired, or its namespace went
		return nil
	}
	if err != nil {
		return err
	}
	e.last = now
	p.posted[k] = e
	p.count(func(s *Stats) { s.Posted++ })
	return nil
}

// raise creates an Event, or raises the count of one that is there.
func (p *Poster) raise(ctx context.Context, e *event, f journal.Failure, now time.Time) error {
	path := "/api/v1/namespaces/" + e.Metadata.Namespace + "/events"
	count := e.Count
	if count == 0 {
		first := *e
		first.Count, first.FirstTimestamp, first.LastTimestamp = 1, stamp(now), stamp(now)
		err := p.o.Client.ask(ctx, "create event", http.MethodPost, path, nil, first, nil)
		if refusedWith(err) != http.StatusConflict {
			if err == nil {
				e.Count = 1
			}
			return err
		}
		// Another mirror of this cluster, or this one before a restart, has said the same.
		var there struct{ Count int }
		if err := p.o.Client.ask(ctx, "read event", http.MethodGet, path+"/"+e.Metadata.Name, nil, nil, &there); err != nil {
			return err
		}
		count = there.Count
	}
	change := map[string]any{"count": count + 1, "lastTimestamp": stamp(now), "message": message(f)}
	if err := p.o.Client.ask(ctx, "update event", http.MethodPatch, path+"/"+e.Metadata.Name, nil, change, nil); err != nil {
		return err
	}
	e.Count = count + 1
	return nil
}

func (p *Poster) count(f func(*Stats)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f(&p.stats)
}

// logError counts an error, logs it once for each remedy, and returns how long to wait before the next request.
func (p *Poster) logError(err error) time.Duration {
	p.count(func(s *Stats) { s.Errors++ })
	pause := 10 * time.Second
	refused, _ := errors.AsType[*APIError](err)
	switch {
	case refused == nil:
	case refused.RetryAfter > 0:
		pause = refused.RetryAfter
	case refused.Status/100 == 4:
		pause = time.Minute
	}
	fix := refused.remedy("let the service account list pods, and get, create and patch events, in all namespaces: " +
		"apply deploy/kubernetes/events.yaml")
	if fix != p.logged { // once for each cause
		p.logged = fix
		p.o.Log.Warn("cannot post Kubernetes Events for failed pulls", "error", err, "remedy", fix)
	}
	return pause
}
