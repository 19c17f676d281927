package flight

import (
	"time"

	"github.com/registrymirror/mirror/oci"
)

// Small has flights use a 16th of the usual bytes. It is called before the first Join.
func (g *Group) Small() {
	s := &g.sizes
	for _, n := range []*int64{&s.extent, &s.most, &s.holdBack, &s.verify} {
		*n /= 16
	}
	s.pace, s.nearly = s.pace/100, s.nearly/100
}

// Tests in real time count requests, however slow the machine is: they try no faster source unless they call Watch.
func init() { usual.watch = time.Hour }

// Watch sets how often flights look for a faster source. It is called before the first Join.
func (g *Group) Watch(every time.Duration) { g.sizes.watch = every }

// Over is closed once the group keeps nothing of the reader's flight.
func (r *Reader) Over() <-chan struct{} { return r.f.ctx.Done() }

// Spend charges n bytes to a client that has no reader; Unread is how many clients have an account.
func (g *Group) Spend(client string, n int64) { g.unread.spend(client, n) }
func (g *Group) Unread() int                  { return len(g.unread.clients) }

// Spoil keeps the Keys that bring d apart. Spoilt is how many digests are spoilt, IsSpoilt whether d is.
func (g *Group) Spoil(d oci.Digest)         { g.spoil(d) }
func (g *Group) Spoilt() int                { return len(g.spoilt) }
func (g *Group) IsSpoilt(d oci.Digest) bool { return g.place(d, "key").key != "" }

// Info describes a flight: bytes in the spool, and whether it is parked.
type Info struct {
	Have   int64
	Parked bool
}

// Flights lists the flights, in no order.
func (g *Group) Flights() (list []Info) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, f := range g.flights {
		f.mu.Lock()
		list = append(list, Info{f.plan.have.bytes(), f.idle.parked})
		f.mu.Unlock()
	}
	return list
}
