package upstream

import "io"

// Body is a blob's range on its way. It satisfies flight.Body.
type Body struct {
	io.ReadCloser
	size int64
	host string
}

// Size is that of the whole blob in bytes, -1 where the upstream did not say.
func (b *Body) Size() int64 { return b.size }

// Host is what the bytes come from, after redirects.
func (b *Body) Host() string { return b.host }
