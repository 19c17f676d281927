package flight_test

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/registrymirror/mirror/cache/flight"
)

func TestObjectReads(t *testing.T) {
	t.Parallel()
	o := newOrigin(13, 5<<20)
	st := &store{}
	g := flight.New(st.options())
	obj, _ := join(t, g, o, o.source("a", fault{}))
	if _, err := obj.Seek(-10, io.SeekEnd); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(obj); err != nil || !bytes.Equal(b, o.content[len(o.content)-10:]) {
		t.Errorf("the last ten: %q, %v", b, err)
	}
	p := make([]byte, 100)
	if n, err := obj.ReadAt(p, 4<<20); n != 100 || err != nil || !bytes.Equal(p, o.content[4<<20:4<<20+100]) {
		t.Errorf("ReadAt: %d, %v", n, err)
	}
	if n, err := obj.ReadAt(p, int64(len(o.content))-50); n != 50 || !errors.Is(err, io.EOF) {
		t.Errorf("ReadAt over the end: %d, %v", n, err)
	}
	_, _ = obj.Seek(0, io.SeekStart)
	if b, err := io.ReadAll(obj); err != nil || !bytes.Equal(b, o.content) {
		t.Errorf("ReadAll: %d bytes, %v", len(b), err)
	}
	_ = obj.Close()
	if _, err := obj.ReadAt(p, 0); err == nil {
		t.Error("a closed reader still reads")
	}
	g.Close()
	st.check(t)
}
