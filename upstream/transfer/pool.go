package transfer

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/registrymirror/mirror/cache/flight"
	"github.com/registrymirror/mirror/internal/bounded"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/upstream/endpoint"
	"github.com/registrymirror/mirror/upstream/fault"
)

// Options are the limits of a Pool.
type Options struct {
	MaxTransfers  int           // of each endpoint at once; negative: any number
	StallTimeout  time.Duration // how long an endpoint whose blobs were down may take to show that they work again
	HeaderTimeout time.Duration // how long a client waits for the first byte
}

// Pool is what the transfers of one upstream share: the turns at each endpoint, and the sizes that it has said. It is safe for
// concurrent use.
type Pool struct {
	o         Options
	endpoints []*endpoint.Endpoint
	sites     map[*endpoint.Endpoint]*site
	senders   senders
}

// site is what is kept of an endpoint.
type site struct {
	queue *queue
	small *queue                      // of small blobs that find no turn in the other one
	sizes *bounded.LRU[string, int64] // of blobs, as the endpoint has answered them to a HEAD
}

// NewPool makes a pool for the endpoints of an upstream, in their order.
func NewPool(endpoints []*endpoint.Endpoint, o Options) *Pool {
	p := &Pool{o: o, endpoints: endpoints, sites: make(map[*endpoint.Endpoint]*site)}
	for _, e := range endpoints {
		p.sites[e] = &site{
			queue: newQueue(o.MaxTransfers), small: newQueue(max(1, o.MaxTransfers/4)),
			sizes: bounded.NewLRU(bounded.Options[string, int64]{Budget: maxSizes}),
		}
	}
	return p
}

// Load is how many transfers run at an endpoint, and how many wait for their turn.
func (p *Pool) Load(e *endpoint.Endpoint) (running, waiting int) {
	for _, q := range []*queue{p.sites[e].queue, p.sites[e].small} {
		r, w := q.load()
		running, waiting = running+r, waiting+w
	}
	return running, waiting
}

// SetSize records the size of a blob that an endpoint has answered to a HEAD.
func (p *Pool) SetSize(e *endpoint.Endpoint, repo string, d oci.Digest, size int64) {
	p.sites[e].sizes.Put(blobKey(repo, d), size, 1)
}

// Call makes the requests of one transfer, and collects how endpoints have failed. It is used by one goroutine.
type Call interface {
	// Use makes an endpoint the one that the other methods are about.
	Use(e *endpoint.Endpoint)
	// Asks reports whether an endpoint may be asked for the blob.
	Asks(e *endpoint.Endpoint) bool
	// Get asks for the blob, or for a range of it where header says so. Again: for a part that was asked for before, so an address
	// that the registry redirected to must not be used again.
	Get(ctx context.Context, header http.Header, again bool) (*endpoint.Answer, error)
	// Trace is what was tried so far. Transfers add to it.
	Trace() *fault.Trace
	// Failed records how the endpoint has failed. RetryAfter is the wait that an endpoint asked for then, 0 for none; false: it
	// has not failed.
	Failed(err error)
	RetryAfter(e *endpoint.Endpoint) (wait time.Duration, failed bool)
	// Continue reports whether another endpoint may do better than the one that failed with err.
	Continue(err error) bool
	// Decide is the error of a call that has failed everywhere, and Wrap makes an error that ends it one for callers.
	Decide() error
	Wrap(err error) error
}

// Open asks for a range of a blob of a repository, as clients know it. It returns once an endpoint has begun to send it. The body goes on through breaks until the
// range is complete; the context ends it at any time. Its errors are those of the call.
func (p *Pool) Open(ctx context.Context, c Call, repo string, d oci.Digest, w flight.Want) (*Body, error) {
	if w.From < 0 || w.To >= 0 && w.To < w.From || w.To == w.From && w.From > 0 {
		return nil, c.Wrap(fmt.Errorf("a range from %d to %d", w.From, w.To))
	}
	t := newTransfer(ctx, p, c, repo, d, w)
	if err := t.begin(); err != nil {
		t.Close()
		return nil, c.Wrap(err)
	}
	return &Body{ReadCloser: t, size: t.size, from: t}, nil
}

// Body is a blob's range on its way. It satisfies flight.Body. Read and Close are for one goroutine.
type Body struct {
	io.ReadCloser
	size int64
	from *transfer // nil: a body that does not come from a Pool
}

// Size is that of the whole blob in bytes, -1 where the upstream did not say.
func (b *Body) Size() int64 { return b.size }

// Extend makes the body go on to the end of the blob, if the upstream sends all of it though a part was wanted, and reports
// whether it does. It must be called before the first Read.
func (b *Body) Extend() bool {
	t := b.from
	if t == nil || !t.all || t.size < 0 {
		return false
	}
	t.end = t.size
	return true
}

// Host is the host that the bytes come from, after redirects. It may change when a transfer goes on after a break. It may be
// called at any time.
func (b *Body) Host() string {
	if b.from == nil {
		return ""
	}
	return *b.from.host.Load()
}
