package transfer

import "io"

// Body is a blob's range on its way. It satisfies flight.Body. Read and Close are for one goroutine.
type Body struct {
	io.ReadCloser
	size int64
	host string
	from *transfer // nil for a Body made by NewBody
}

// NewBody makes a body of bytes that do not come from a Pool.
func NewBody(rc io.ReadCloser, size int64, host string) *Body {
	return &Body{ReadCloser: rc, size: size, host: host}
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
	if b.from != nil {
		return *b.from.host.Load()
	}
	return b.host
}
