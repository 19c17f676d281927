package flight

import (
	"context"
	"errors"
)

// Stored waits until the blob is in the store, without reading it. It calls report when more bytes have arrived, with how many of the
// blob's are there.
func (r *Reader) Stored(ctx context.Context, report func(bytes int64)) error {
	if err := r.enter(); err != nil {
		return err
	}
	defer r.exit()
	f := r.f
	var end *commit
	for have := int64(0); end == nil; {
		before := have
		_, err := r.await(ctx, span{off: firstMissing}, func() bool {
			have, end = f.plan.have.bytes(), f.life.commit
			return end != nil || have > before
		})
		if errors.Is(err, errBroken) {
			return r.unstored()
		}
		if err != nil {
			return err
		}
		report(have)
	}
	return end.err
}

// unstored is why the blob can't be stored, since the spool is broken.
func (r *Reader) unstored() error {
	r.f.mu.Lock()
	defer r.f.mu.Unlock()
	return r.f.broken
}
