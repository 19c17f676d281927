package pull

import (
	"fmt"
	"time"

	"github.com/registrymirror/mirror/oci"
)

// MaxLeased is how many digests leases remember.
const MaxLeased = maxLeased

func digestOf(id int) oci.Digest { return oci.Digest(fmt.Sprintf("sha256:%064x", uint64(id))) }

// Lease grants n leases of so many digests each, of which all but the first are shared, and sweeps at the end if they are
// over. It says how many digests leases remember, and by how many of them a lease is found.
func Lease(p *Puller, n, parts int, shared, over bool) (leased, found int) {
	l, now := p.leases, time.Now()
	for i := range n {
		var list []oci.Digest
		for j := range parts {
			id := i*parts + j
			if shared && j > 0 {
				id = j
			}
			list = append(list, digestOf(id))
		}
		l.grant(digestOf(-1-i), list, now)
	}
	if over {
		l.sweep(now.Add(leaseFor))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.parts, len(l.holders)
}
