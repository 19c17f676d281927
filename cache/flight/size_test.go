package flight_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/registrymirror/mirror/cache/flight"
)

func TestUnknownSize(t *testing.T) {
	t.Parallel()
	o := newOrigin(10, 300<<10)
	o.size = -1
	st := &store{}
	g := flight.New(st.options())
	obj, _, err := g.Join(t.Context(), o.digest(), -1, o.source("a", fault{}))
	if err != nil {
		t.Fatal(err)
	}
	if obj.Size() != 300<<10 {
		t.Errorf("size %d", obj.Size())
	}
	if b, err := copyAll(t.Context(), obj, 0, obj.Size()); err != nil || !bytes.Equal(b, o.content) {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	_ = obj.Close()
	g.Close()
	st.check(t)
}

func TestSourceThatSaysAnotherSize(t *testing.T) {
	t.Parallel()
	o := newOrigin(11, 100<<10)
	o.size++
	st := &store{}
	g := flight.New(st.options())
	obj, _ := join(t, g, o, o.source("a", fault{}))
	var wrong *flight.MismatchError
	if err := obj.(*flight.Reader).Ready(t.Context(), 0, 1); !errors.As(err, &wrong) || wrong.GotSize != 100<<10+1 {
		t.Errorf("Ready: %v, want a mismatch of sizes", err)
	}
	_ = obj.Close()
	g.Close()
	st.check(t)
}

func TestEmptyBlob(t *testing.T) {
	t.Parallel()
	o := newOrigin(12, 0)
	st := &store{}
	g := flight.New(st.options())
	obj, _ := join(t, g, o, o.source("a", fault{}))
	if err := obj.(*flight.Reader).Ready(t.Context(), 0, 0); err != nil {
		t.Error(err)
	}
	_ = obj.Close()
	lie, _, err := g.Join(t.Context(), digest.FromString("not empty"), 0, o.source("a", fault{}))
	if err != nil {
		t.Fatal(err)
	}
	var wrong *flight.MismatchError
	if err := lie.(*flight.Reader).Ready(t.Context(), 0, 0); !errors.As(err, &wrong) {
		t.Errorf("a blob that is said to be empty and isn't: %v", err)
	}
	_ = lie.Close()
	g.Close()
	st.check(t)
}
