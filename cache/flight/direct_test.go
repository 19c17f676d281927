package flight_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/registrymirror/mirror/cache/flight"
)

func TestDirect(t *testing.T) {
	t.Parallel()
	const size = 3<<20 + 1
	for _, tt := range []struct {
		name string
		size int64
		flip int64
		n    int64
	}{
		{"right", size, -1, size},
		{"size not known", -1, -1, size},
		{"a range", size, -1, 1000},
		{"wrong", size, size - 5, size},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			o := newOrigin(9, size)
			o.flip = tt.flip
			g := flight.New(flight.Options{})
			defer g.Close()
			r, err := g.Direct(t.Context(), o.digest(), tt.size, o.source("a", fault{}))
			if err != nil {
				t.Fatal(err)
			}
			b, err := copyAll(t.Context(), r, 0, tt.n)
			if tt.flip >= 0 {
				var wrong *flight.MismatchError
				if !errors.As(err, &wrong) || len(b) > size-64<<10 {
					t.Errorf("wrong content: %d bytes, %v", len(b), err)
				}
			} else if err != nil || !bytes.Equal(b, o.content[:tt.n]) {
				t.Errorf("%d bytes, %v", len(b), err)
			}
			_ = r.Close()
			if o.open != 0 {
				t.Errorf("%d bodies left open", o.open)
			}
		})
	}
}
