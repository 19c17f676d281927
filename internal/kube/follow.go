package kube

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/registrymirror/mirror/internal/backoff"
)

const (
	followPages = 400     // bounds a list: 200,000 objects
	maxEvent    = 8 << 20 // bytes of one event: etcd takes objects of 1.5 MiB
	// watchLeast to watchMost is how long a watch lasts, if the server has its way. watchGrace is how much longer we wait for its end.
	watchLeast = 5 * time.Minute
	watchMost  = 10 * time.Minute
	watchGrace = 30 * time.Second
	// A watch that ends within watchShort, without an event, is a failure. One of watchSteady ends a row of failures.
	watchShort  = time.Second
	watchSteady = time.Minute

	failuresToLog = 3           // in a row, of a kind that may pass
	followNone    = time.Minute // between two requests for what we may not have
)

// followWaits are the waits after failures in a row.
var followWaits = backoff.Backoff{First: time.Second, Most: time.Minute}

// Sink takes what a Follower learns. Its methods are called from several goroutines, but for one kind from a single one.
type Sink interface {
	// Put says which images an object, NAMESPACE/NAME, names now.
	Put(kind, object string, images []string)
	// Delete says that an object is gone.
	Delete(kind, object string)
	// Listing says that all objects of a kind are going to be put. Listed says that they were: others are gone.
	Listing(kind string)
	Listed(kind string)
}

// FollowerOptions for a Follower.
type FollowerOptions struct {
	Client *Client
	Sink   Sink
	// Namespace reports whether the objects of a namespace count.
	Namespace func(name string) bool
	// Log is told when objects can't be read, and when they can again.
	Log *slog.Logger
}

// Follower tells a Sink of the pods that have not ended, and of the workloads whose pod templates stay when they have no pods. Of
// each kind it reads a list and then watches for changes from there; it reads the list again when the server can't go on from
// the last change. Run is what it does.
type Follower struct {
	o             FollowerOptions
	lists, errors atomic.Int64 // as in FollowStats
}

// FollowStats count since the start.
type FollowStats struct {
	Lists  int64 // lists that were read
	Errors int64 // requests that the API server did not answer as it should
}

// NewFollower makes a Follower, which does nothing before Run.
func NewFollower(o FollowerOptions) *Follower { return &Follower{o: o} }

// Stats returns what has been done so far.
func (f *Follower) Stats() FollowStats {
	return FollowStats{Lists: f.lists.Load(), Errors: f.errors.Load()}
}

// Run follows the cluster until ctx ends, whose error it returns.
func (f *Follower) Run(ctx context.Context) error {
	defer f.o.Client.Close()
	var all sync.WaitGroup
	for _, k := range append([]kind{podKind}, workloadKinds...) {
		all.Go(func() { (&following{Follower: f, kind: k}).run(ctx) })
	}
	all.Wait()
	return ctx.Err()
}

// following is one kind as a Follower knows it.
type following struct {
	*Follower
	kind     kind
	version  string // of the last change; empty: the list is to be read
	failures int    // in a row
	logged   string // the remedy in the last log line about an error; empty: there is no error
}

func (f *following) run(ctx context.Context) {
	for ctx.Err() == nil {
		var err error
		if f.version == "" {
			err = f.list(ctx)
		} else {
			err = f.watch(ctx)
		}
		if err != nil && ctx.Err() == nil {
			backoff.Wait(ctx, f.failed(ctx, err))
		}
	}
}

// list reads all objects.
func (f *following) list(ctx context.Context) error {
	f.o.Sink.Listing(f.kind.name)
	version, all, err := pages(ctx, f.o.Client, f.kind, followPages, nil, func(items []object) {
		for i := range items {
			f.put(&items[i])
		}
	})
	if err != nil {
		return err
	}
	if !all || version == "" {
		return fmt.Errorf("list %s: the list has no end, or no version", f.kind.plural)
	}
	f.o.Sink.Listed(f.kind.name)
	f.version = version
	f.lists.Add(1)
	return nil
}

func (f *following) put(o *object) {
	if f.o.Namespace(o.Metadata.Namespace) {
		f.o.Sink.Put(f.kind.name, o.name(), o.images())
	}
}

var (
	errShort  = errors.New("it ended at once, without an event")
	errSilent = errors.New("it was silent for longer than it was to last")
	errLarge  = fmt.Errorf("an event is larger than %d bytes", maxEvent)
)

// watch follows the changes after the version until the server ends it, or it fails. Where the server can't go on from there the
// version is empty afterwards.
func (f *following) watch(ctx context.Context) error {
	began, lasts := time.Now(), watchLeast+rand.N(watchMost-watchLeast)
	defer func() { f.worked(ctx, began) }()
	ctx, cancel := context.WithTimeoutCause(ctx, lasts+watchGrace, errSilent)
	defer cancel()
	op := "watch " + f.kind.plural
	query := f.kind.query()
	query.Set("watch", "1")
	query.Set("resourceVersion", f.version)
	query.Set("allowWatchBookmarks", "true")
	query.Set("timeoutSeconds", strconv.Itoa(int(lasts.Seconds())))
	resp, err := f.o.Client.send(ctx, op, http.MethodGet, f.kind.path, query, nil)
	if err != nil {
		silent := errors.Is(context.Cause(ctx), errSilent) // there are proxies that hold the headers back until the first event
		if e, ok := errors.AsType[*APIError](err); silent || ok && e.final() {
			f.version = ""
		}
		return err
	}
	defer resp.Body.Close()
	body := &budget{r: resp.Body}
	stream := json.NewDecoder(body)
	for events := 0; ; events++ {
		body.left = maxEvent
		var c change
		err := stream.Decode(&c)
		if err == nil {
			err = f.take(op, c)
		}
		switch {
		case err == nil:
			f.worked(ctx, began)
			continue
		case errors.Is(context.Cause(ctx), errSilent) && events == 0:
			f.version, err = "", errSilent
		case errors.Is(context.Cause(ctx), errSilent), errors.Is(err, io.EOF) && (events > 0 || time.Since(began) >= watchShort):
			return nil // it has lasted its time
		case errors.Is(err, io.EOF):
			err = errShort
		case body.err == nil && refusedWith(err) != http.StatusTooManyRequests: // it is not the connection
			f.version = ""
		}
		return fmt.Errorf("%s: %w", op, err)
	}
}

// change is an event of a watch.
type change struct {
	Type   string
	Object json.RawMessage
}

// take passes a change on, and notes its version. An ERROR is an *APIError.
func (f *following) take(op string, c change) error {
	if c.Type == "ERROR" {
		return statusError(op, c.Object)
	}
	var o object
	if err := json.Unmarshal(c.Object, &o); err != nil {
		return fmt.Errorf("read an event: %w", err)
	}
	switch c.Type {
	case "ADDED", "MODIFIED":
		f.put(&o)
	case "DELETED":
		f.o.Sink.Delete(f.kind.name, o.name())
	}
	f.version = cmp.Or(o.Metadata.ResourceVersion, f.version) // that of a BOOKMARK, too
	return nil
}

// budget is a stream that fails where more bytes come than are left. It keeps the error of what it reads.
type budget struct {
	r    io.Reader
	left int
	err  error
}

func (b *budget) Read(p []byte) (n int, err error) {
	if b.left == 0 {
		return 0, errLarge
	}
	n, b.err = b.r.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, b.err
}

// worked ends a row of failures, if the watch that began then has been steady.
func (f *following) worked(ctx context.Context, began time.Time) {
	if time.Since(began) < watchSteady {
		return
	}
	f.failures = 0
	if f.logged != "" {
		f.logged = ""
		f.o.Log.InfoContext(ctx, "the images of the cluster are read again", "name", f.kind.plural)
	}
}

// failed counts an error, logs it once for each remedy, and returns how long to wait before the next request. That a list is too
// old to go on from is not an error. A connection that ends is common, as where a load balancer restarts: it is logged only if
// the next ones fail as well.
func (f *following) failed(ctx context.Context, err error) time.Duration {
	f.failures++
	wait := followWaits.After(f.failures)
	wait = backoff.Between(wait, wait+wait/2)
	refused, _ := errors.AsType[*APIError](err)
	if refused != nil && refused.Status == http.StatusGone {
		return wait
	}
	f.errors.Add(1)
	certain := refused != nil && refused.Status/100 == 4 && refused.Status != http.StatusTooManyRequests
	if refused != nil {
		wait = max(wait, refused.RetryAfter)
		if refused.final() {
			wait = followNone
		}
	}
	fix := refused.remedy("let the service account list and watch " + f.kind.plural + " in all namespaces: apply deploy/kubernetes/feed.yaml")
	if fix != f.logged && (certain || f.failures >= failuresToLog) {
		f.logged = fix
		f.o.Log.WarnContext(ctx, "cannot read the images of the cluster; those that are known are kept warm", "name", f.kind.plural, "error", err, "remedy", fix)
	}
	return wait
}
