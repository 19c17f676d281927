package flight_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/registrymirror/mirror/cache/flight"
)

// leaves joins a blob of its own, reads n bytes of it (0: it leaves before the first), and leaves.
func leaves(t *testing.T, g *flight.Group, o *origin, client string, n int64) {
	t.Helper()
	s := o.source("key", fault{wait: time.Millisecond})
	s.Client = client
	obj, _ := join(t, g, o, s)
	defer obj.Close()
	if n == 0 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Microsecond)
		defer cancel()
		_ = obj.(*flight.Reader).Ready(ctx, 0, 1)
		return
	}
	_, _ = obj.(*flight.Reader).CopyTo(t.Context(), &leaver{left: n}, 0, int64(len(o.content)))
}

func TestBytesWithoutAReaderAreBounded(t *testing.T) {
	t.Parallel()
	const size, unread, chunk = 1 << 20, 2 << 20, 16 << 10
	const slack = 40 * 8 * chunk // twice the bytes that the clients have read
	for name, tt := range map[string]struct {
		client func(i int) string
		n      int64 // bytes that each of the clients takes
		most   int64 // bytes that may come, of 40 blobs
		least  int64
	}{
		"one client":               {func(int) string { return "a" }, 100, unread + slack, unread},
		"before the first byte":    {func(int) string { return "a" }, 0, 40 * chunk, 0},
		"four clients":             {func(i int) string { return fmt.Sprint(i % 4) }, 100, 4*unread + slack, 3 * unread},
		"as many as there are":     {func(i int) string { return fmt.Sprint(i) }, 100, 16*unread + slack, 25 << 20},
		"most of it has been read": {func(int) string { return "a" }, 3 * size / 4, 40 * size, 40 * size},
		"no client, as of warming": {func(int) string { return "" }, 100, 40 * size, 40 * size},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				st := &store{}
				opts := st.options()
				opts.Unread = unread
				g := flight.New(opts)
				var all []*origin
				for i := range 40 {
					o := newOrigin(uint64(1000+i), size)
					o.chunk = chunk
					all = append(all, o)
					go leaves(t, g, o, tt.client(i), tt.n)
				}
				synctest.Wait()
				time.Sleep(5 * time.Second)
				var sent int64
				for _, o := range all {
					sent += o.total()
				}
				if sent > tt.most || sent < tt.least {
					t.Errorf("%d bytes came of %d, want %d to %d", sent, 40*size, tt.least, tt.most)
				}
				g.Close()
				st.check(t)
			})
		})
	}
}

// The allowance is restored, and a client that returns to a parked download continues with it.
func TestAllowanceComesBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		st := &store{}
		opts := st.options()
		opts.Unread, opts.Park = 1<<20, time.Hour
		g := flight.New(opts)
		one, two, three := newOrigin(60, 4<<20), newOrigin(61, 4<<20), newOrigin(62, 4<<20)
		for _, o := range []*origin{one, two, three} {
			o.chunk = 64 << 10
		}
		leaves(t, g, one, "a", 100)
		time.Sleep(5 * time.Second)
		leaves(t, g, two, "a", 100)
		time.Sleep(5 * time.Second)
		if n := two.total(); n > 300<<10 {
			t.Errorf("%d bytes came for a client that has used its allowance up", n)
		}
		time.Sleep(10 * time.Minute)
		leaves(t, g, three, "a", 100)
		time.Sleep(5 * time.Second)
		if n := three.total(); n < 1<<20 {
			t.Errorf("%d bytes came ten minutes later", n)
		}
		for _, o := range []*origin{one, two, three} {
			pullWhole(t, g, o, o.source("key", fault{}))
			if n := o.total(); n != 4<<20 {
				t.Errorf("%d bytes came of %d", n, 4<<20)
			}
		}
		g.Close()
		st.check(t)
	})
}

// The number of accounts is bounded.
func TestUnreadClientsAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		st := &store{}
		g := flight.New(st.options())
		for i := range 12_000 {
			g.Spend(fmt.Sprint("client-", i), 1000)
		}
		if n := g.Unread(); n > 10_001 {
			t.Errorf("%d clients are remembered", n)
		}
		time.Sleep(20 * time.Minute)
		g.Spend("another", 1000)
		if n := g.Unread(); n > 1 {
			t.Errorf("%d clients are remembered, and all but one have used nothing", n)
		}
		for i := range 10_000 {
			g.Spend(fmt.Sprint("later-", i), 1)
		}
		time.Sleep(time.Second)
		g.Spend("last", 1000)
		if n := g.Unread(); n > 2 {
			t.Errorf("%d clients are remembered, and all but two have their allowance again", n)
		}
		g.Close()
	})
}
