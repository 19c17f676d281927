package flight_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"

	"github.com/registrymirror/mirror/cache/flight"
)

// changed is a body with some of its methods replaced.
type changed struct {
	flight.Body
	read func(b flight.Body, p []byte) (int, error)
	size func() int64
}

func (b *changed) Read(p []byte) (int, error) {
	if b.read != nil {
		return b.read(b.Body, p)
	}
	return b.Body.Read(p)
}

func (b *changed) Size() int64 {
	if b.size != nil {
		return b.size()
	}
	return b.Body.Size()
}

// change wraps the bodies of a source.
func change(s flight.Source, how func(w flight.Want, b flight.Body) flight.Body) flight.Source {
	fetch := s.Fetch
	s.Fetch = func(ctx context.Context, w flight.Want) (flight.Body, error) {
		b, err := fetch(ctx, w)
		if err != nil {
			return nil, err
		}
		return how(w, b), nil
	}
	return s
}

// No matter what one source does, readers with another source get the blob.
func TestOddSources(t *testing.T) {
	t.Parallel()
	const size = 6 << 20
	for _, tt := range []struct {
		name string
		how  func(w flight.Want, b flight.Body) flight.Body
		any  bool  // its reader gets some error
		want error // its reader gets this; nil: it succeeds
	}{
		{"panics when it is asked", func(flight.Want, flight.Body) flight.Body { panic("odd") }, true, nil},
		{"panics over the size", func(_ flight.Want, b flight.Body) flight.Body {
			return &changed{Body: b, size: func() int64 { panic("odd") }}
		}, true, nil},
		{"panics in the middle", func(_ flight.Want, b flight.Body) flight.Body {
			return &changed{Body: b, read: func(b flight.Body, p []byte) (int, error) {
				if n, err := b.Read(p[:min(len(p), size/7)]); n > size/7-1 {
					return n, err
				}
				panic("odd")
			}}
		}, true, nil},
		{"never sends anything", func(_ flight.Want, b flight.Body) flight.Body {
			return &changed{Body: b, read: func(flight.Body, []byte) (int, error) { return 0, nil }}
		}, false, io.ErrNoProgress},
		{"sends nothing now and then", func(_ flight.Want, b flight.Body) flight.Body {
			odd := false
			return &changed{Body: b, read: func(b flight.Body, p []byte) (int, error) {
				if odd = !odd; odd {
					return 0, nil
				}
				return b.Read(p)
			}}
		}, false, nil},
		{"says that it has read more than there was room for", func(_ flight.Want, b flight.Body) flight.Body {
			return &changed{Body: b, read: func(b flight.Body, p []byte) (int, error) {
				n, err := b.Read(p)
				return n + len(p), err
			}}
		}, true, nil},
		{"ends early", func(w flight.Want, b flight.Body) flight.Body {
			return &changed{Body: b, read: func(b flight.Body, p []byte) (int, error) {
				n, err := b.Read(p)
				if n > 0 {
					return n, io.EOF
				}
				return 0, err
			}}
		}, false, io.ErrUnexpectedEOF},
		{"breaks with its last byte", func(w flight.Want, b flight.Body) flight.Body {
			left := w.To - w.From
			return &changed{Body: b, read: func(b flight.Body, p []byte) (int, error) {
				n, err := b.Read(p)
				if left -= int64(n); left == 0 {
					err = errCut
				}
				return n, err
			}}
		}, false, nil},
		{"has more than was asked for", func(w flight.Want, b flight.Body) flight.Body {
			left := w.To - w.From
			return &changed{Body: b, read: func(b flight.Body, p []byte) (int, error) {
				n, err := b.Read(p[:min(int64(len(p)), left)])
				left -= int64(n)
				if n > 0 {
					return n, nil
				}
				return len(p), err
			}}
		}, false, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			for _, direct := range []bool{false, true} {
				o := newOrigin(50, size)
				o.chunk = 200 << 10
				st := &store{}
				g := flight.New(st.options())
				var obj flight.Object
				odd := change(o.source("odd", fault{}), tt.how)
				if direct {
					obj, _ = g.Direct(t.Context(), o.digest(), size, odd)
				} else {
					obj, _ = join(t, g, o, odd)
				}
				even, _ := join(t, g, o, o.source("even", fault{}))
				func() {
					defer obj.Close()
					defer func() {
						if p := recover(); p != nil && !direct { // else it happened in the caller's goroutine
							t.Errorf("panic: %v", p)
						}
					}()
					b, err := copyAll(t.Context(), obj, 0, size)
					switch {
					case !tt.any && tt.want == nil && (err != nil || !bytes.Equal(b, o.content)):
						t.Errorf("direct %t: %d bytes, %v", direct, len(b), err)
					case tt.any && err == nil, !tt.any && !errors.Is(err, tt.want):
						t.Errorf("direct %t: %v, want %v", direct, err, tt.want)
					}
				}()
				if b, err := copyAll(t.Context(), even, 0, size); err != nil || !bytes.Equal(b, o.content) {
					t.Errorf("direct %t: the other one: %d bytes, %v", direct, len(b), err)
				}
				_ = even.Close()
				g.Close()
				st.check(t)
			}
		})
	}
}

// A source that panics while its reader is still being made leaves nothing behind.
func TestPanicInJoin(t *testing.T) {
	t.Parallel()
	o := newOrigin(51, 1000)
	g := flight.New((&store{noSpool: errDisk}).options())
	defer g.Close()
	ctx := make(chan context.Context, 2)
	odd := flight.Source{Key: "odd", Fetch: func(c context.Context, _ flight.Want) (flight.Body, error) {
		ctx <- c
		panic("odd")
	}}
	for _, open := range []func(){
		func() { _, _, _ = g.Join(t.Context(), o.digest(), -1, odd) },
		func() { _, _ = g.Direct(t.Context(), o.digest(), -1, odd) },
	} {
		func() {
			defer func() {
				if p := recover(); p != "odd" {
					t.Errorf("panic: %v", p)
				}
			}()
			open()
		}()
		if (<-ctx).Err() == nil {
			t.Error("the fetch's context lives on")
		}
	}
}
