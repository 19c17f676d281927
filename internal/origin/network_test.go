package origin_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/registrymirror/mirror/internal/origin"
)

// pair is both ends of a connection on a network.
func pair(t *testing.T, n *origin.Network) (here, there net.Conn) {
	t.Helper()
	l, err := n.Listen("")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if here, err = n.Dial(context.Background(), "tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if there, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	return here, there
}

func TestNetworkEnds(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		end  func(c net.Conn)
		want error
	}{
		{"close", func(c net.Conn) { _ = c.Close() }, io.EOF},
		{"reset", func(c net.Conn) { c.(interface{ Reset() }).Reset() }, syscall.ECONNRESET},
	} {
		here, there := pair(t, new(origin.Network))
		if _, err := there.Write([]byte("last words")); err != nil {
			t.Fatal(err)
		}
		c.end(there)
		b := make([]byte, 100)
		n, err := here.Read(b)
		if err != nil || string(b[:n]) != "last words" {
			t.Errorf("%s: %q, %v", c.name, b[:n], err)
		}
		for range 2 {
			if _, err := here.Read(b); !errors.Is(err, c.want) {
				t.Errorf("%s: %v, want %v", c.name, err, c.want)
			}
		}
		if _, err := here.Write(b); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%s: write: %v", c.name, err)
		}
		if _, err := there.Read(b); !errors.Is(err, net.ErrClosed) {
			t.Errorf("%s: read after it: %v", c.name, err)
		}
	}
}

// A writer waits for room, and notices meanwhile what happens to the other end.
func TestNetworkWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		here, there := pair(t, &origin.Network{Buffer: 1000})
		sent := bytes.Repeat([]byte("0123456789"), 1000)
		go func() {
			_, _ = there.Write(sent)
			_ = there.Close()
		}()
		synctest.Wait()
		got, err := io.ReadAll(here)
		if err != nil || !bytes.Equal(got, sent) {
			t.Errorf("%d bytes of %d, %v", len(got), len(sent), err)
		}
		here, there = pair(t, &origin.Network{Buffer: 1000})
		start := time.Now()
		_ = here.SetDeadline(start.Add(time.Minute))
		if n, err := here.Write(sent); n != 1000 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("wrote %d, %v", n, err)
		}
		if _, err := here.Read(sent); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("read: %v", err)
		}
		if d := time.Since(start); d != time.Minute {
			t.Errorf("deadline after %v", d)
		}
		_ = here.SetDeadline(time.Time{})
		time.AfterFunc(time.Hour, func() { _ = there.Close() })
		if _, err := here.Read(sent); !errors.Is(err, io.EOF) {
			t.Errorf("read: %v", err)
		}
	})
}

func TestNetworkRefuses(t *testing.T) {
	t.Parallel()
	n := new(origin.Network)
	if _, err := n.Dial(t.Context(), "tcp", "127.0.0.1:1"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("dial: %v", err)
	}
	l, err := n.Listen("127.0.0.1:1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.Listen("127.0.0.1:1"); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("listen twice: %v", err)
	}
	c, err := n.Dial(t.Context(), "tcp", "127.0.0.1:1")
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read of a connection that was not accepted: %v", err)
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("accept: %v", err)
	}
}

// A registry on a network in memory is one as any other, down and up included.
func TestOriginOnANetwork(t *testing.T) {
	t.Parallel()
	for _, secure := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			n := new(origin.Network)
			up, err := origin.New(origin.Options{Network: n, TLS: secure})
			if err != nil {
				t.Fatal(err)
			}
			defer up.Close()
			blob := up.AddBlob("a/b", bytes.Repeat([]byte("x"), 200_000))
			get := func() error {
				tr := &http.Transport{DialContext: n.Dial}
				if secure {
					tr.TLSClientConfig = &tls.Config{RootCAs: up.CA()}
				}
				defer tr.CloseIdleConnections()
				req, err := http.NewRequestWithContext(context.Background(), http.MethodGet,
					up.URL()+"/v2/a/b/blobs/"+blob.Digest.String(), nil)
				if err != nil {
					t.Fatal(err)
				}
				res, err := tr.RoundTrip(req)
				if err != nil {
					return err
				}
				defer res.Body.Close()
				b, err := io.ReadAll(res.Body)
				if err == nil && len(b) != 200_000 {
					t.Errorf("%d bytes", len(b))
				}
				return err
			}
			if err := get(); err != nil {
				t.Error(err)
			}
			up.Down()
			if err := get(); !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("down: %v", err)
			}
			up.Up()
			up.Script(origin.Rule{Do: origin.Fault{Cut: &origin.Cut{At: 100_000, How: origin.CutReset}}})
			if err := get(); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("cut: %v", err)
			}
			up.ClearRules()
			if err := get(); err != nil {
				t.Error(err)
			}
		})
	}
}
