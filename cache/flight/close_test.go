package flight_test

import (
	"errors"
	"io"
	"testing"

	"github.com/registrymirror/mirror/cache/flight"
)

func TestCloseEndsReaders(t *testing.T) {
	t.Parallel()
	o := newOrigin(14, 5<<20)
	st := &store{}
	g := flight.New(st.options())
	obj, _ := join(t, g, o, o.source("a", fault{gate: make(chan struct{})}))
	res := make(chan error, 1)
	go func() {
		_, err := obj.(*flight.Reader).CopyTo(t.Context(), io.Discard, 0, obj.Size())
		res <- err
	}()
	g.Close()
	if err := <-res; !errors.Is(err, flight.ErrClosed) {
		t.Errorf("reader: %v, want ErrClosed", err)
	}
	_ = obj.Close()
	if _, _, err := g.Join(t.Context(), o.digest(), 1, o.source("a", fault{})); !errors.Is(err, flight.ErrClosed) {
		t.Errorf("Join after Close: %v", err)
	}
	st.check(t)
}
