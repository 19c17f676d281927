package flight

import (
	"time"

	"github.com/registrymirror/mirror/oci"
)

// Small makes flights go by a 16th of the usual bytes. It comes before the first Join.
func (g *Group) Small() {
	s := &g.sizes
	for _, n := range []*int64{&s.extent, &s.most, &s.holdBack, &s.verify} {
		*n /= 16
	}
	s.pace, s.nearly = s.pace/100, s.nearly/100
}

// Tests in real time count requests, however slow the machine is: they look for no better source unless they say so.
func init() { usual.watch = time.Hour }

// Watch has flights look for a better source so often. It comes before the first Join.
func (g *Group) Watch(every time.Duration) { g.sizes.watch = every }

// Over is closed once nothing of the reader's flight is remembered.
func (r *Reader) Over() <-chan struct{} { return r.f.ctx.Done() }

// Spend notes n bytes that came for a client without a reader; Unread is how many clients have an account of them.
func (g *Group) Spend(client string, n int64) { g.unread.spend(client, n) }
func (g *Group) Unread() int                  { return len(g.unread.clients) }

// Spoil keeps the Keys that bring d apart; Spoilt is of how many digests, and IsSpoilt of which.
func (g *Group) Spoil(d oci.Digest)         { g.spoil(d) }
func (g *Group) Spoilt() int                { return len(g.spoilt) }
func (g *Group) IsSpoilt(d oci.Digest) bool { return g.place(d, "key").key != "" }
