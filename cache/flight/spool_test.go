package flight_test

import (
	"bytes"
	"fmt"
	"sync"
	"testing"

	"github.com/registrymirror/mirror/cache/flight"
)

// Whatever write fails, every reader gets the right bytes.
func TestSpoolBreaks(t *testing.T) {
	t.Parallel()
	const size = 5<<20 + 123
	for k := range 25 {
		t.Run(fmt.Sprint(k), func(t *testing.T) {
			t.Parallel()
			o := newOrigin(8, size)
			o.chunk = 256 << 10
			st := &store{failAt: k}
			if k == 0 {
				st = &store{noSpool: errDisk}
			}
			g := flight.New(st.options())
			var wg sync.WaitGroup
			for i := range 4 {
				wg.Go(func() {
					obj, _ := join(t, g, o, o.source(fmt.Sprint(i), fault{}))
					defer obj.Close()
					b, err := copyAll(t.Context(), obj, 0, size)
					if err != nil || !bytes.Equal(b, o.content) {
						t.Errorf("reader %d: %d bytes, %v", i, len(b), err)
					}
				})
			}
			wg.Wait()
			g.Close()
			st.check(t)
		})
	}
}
