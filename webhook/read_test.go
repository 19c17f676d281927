package webhook_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/registrymirror/mirror/webhook"
)

// pipes is a listener in memory.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }

// A body that doesn't come ends the request after ten seconds, whether the secret was shown or a signature is announced.
func TestSlowBody(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := start(t)
		l := &pipes{conns: make(chan net.Conn), closed: make(chan struct{})}
		s := &http.Server{Handler: h}
		done := make(chan error, 1)
		go func() { done <- s.Serve(l) }()
		for _, head := range []string{
			"POST /webhooks/quay/" + secret + " HTTP/1.1\r\nHost: m\r\nContent-Length: 100\r\n\r\n{",
			"POST /webhooks/github HTTP/1.1\r\nHost: m\r\nX-Hub-Signature-256: sha256=00\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n",
		} {
			ours, theirs := net.Pipe()
			l.conns <- theirs
			began := time.Now()
			if _, err := io.WriteString(ours, head); err != nil {
				t.Fatal(err)
			}
			answer, err := io.ReadAll(ours) // to the end: the connection is closed
			if err != nil && len(answer) == 0 {
				t.Fatal(err)
			}
			if text := string(answer); !strings.HasPrefix(text, "HTTP/1.1 408 ") || !strings.Contains(text, "longer than 10s") {
				t.Errorf("%.30q: %s", head, text)
			}
			if took := time.Since(began); took < webhook.BodyTimeout || took > webhook.BodyTimeout+5*time.Second {
				t.Errorf("%.30q: after %v", head, took)
			}
			ours.Close()
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
}

// senders are clients of a handler.
type senders struct {
	h  http.Handler
	wg sync.WaitGroup // of the requests that are held
}

// hold begins a request whose body doesn't end until stop is called.
func (c *senders) hold(t *testing.T, kind, from string, header ...string) (stop func()) {
	body, end := io.Pipe()
	ctx, cancel := context.WithCancel(t.Context())
	r := request(ctx, kind, from, body, header)
	c.wg.Go(func() {
		defer cancel()
		c.h.ServeHTTP(httptest.NewRecorder(), r)
	})
	return func() { end.Close() }
}

// ask makes a request, and returns its status.
func (c *senders) ask(t *testing.T, kind, from string, body []byte, header ...string) int {
	w := httptest.NewRecorder()
	c.h.ServeHTTP(w, request(t.Context(), kind, from, bytes.NewReader(body), header))
	return w.Code
}

// request is a report from an address. header has names and values in turn.
func request(ctx context.Context, kind, from string, body io.Reader, header []string) *http.Request {
	r := httptest.NewRequestWithContext(ctx, http.MethodPost, "/webhooks/"+kind, body)
	r.RemoteAddr = net.JoinHostPort(from, "1")
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	return r
}

// The bodies that are read at once are bounded. A report waits for its turn for a while, since many senders send it once; and
// callers that have shown nothing keep none of the others from being read, nor one another for long.
func TestTurns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := senders{h: start(t)}
		forged := []string{"X-Hub-Signature-256", "sha256=00"}
		var stops []func()
		for range 8 {
			stops = append(stops, c.hold(t, "github", "192.0.2.1", forged...))
		}
		synctest.Wait()
		began := time.Now()
		if got := c.ask(t, "github", "192.0.2.1", nil, forged...); got != http.StatusServiceUnavailable || time.Since(began) != 5*time.Second {
			t.Errorf("the ninth of one address: %d after %v", got, time.Since(began))
		}
		body := recorded(t, "github")
		_, header := prove("github", "github", secret, body)
		began = time.Now()
		if got := c.ask(t, "github", "192.0.2.2", body, header...); got != http.StatusAccepted || time.Since(began) != 0 {
			t.Errorf("another address: %d after %v", got, time.Since(began))
		}
		for range 8 {
			stops = append(stops, c.hold(t, "gitea", "192.0.2.3", "X-Gitea-Signature", "00"))
		}
		synctest.Wait()
		if got := c.ask(t, "github", "192.0.2.2", body, header...); got != http.StatusServiceUnavailable {
			t.Errorf("a seventeenth: %d", got)
		}
		if got := c.ask(t, "quay/"+secret, "192.0.2.1", recorded(t, "quay")); got != http.StatusAccepted {
			t.Errorf("a sender that has shown its secret: %d", got)
		}
		// The owner of one secret takes no turns of other hooks.
		for range 8 {
			stops = append(stops, c.hold(t, "quay/"+secret, "192.0.2.4"))
		}
		synctest.Wait()
		if got := c.ask(t, "dockerhub/"+secret, "192.0.2.5", recorded(t, "dockerhub")); got != http.StatusAccepted {
			t.Errorf("another hook: %d", got)
		}
		// It is read as soon as another one ends.
		c.wg.Go(func() {
			began := time.Now()
			if got := c.ask(t, "github", "192.0.2.2", body, header...); got != http.StatusAccepted || time.Since(began) != time.Second {
				t.Errorf("a report that waited: %d after %v", got, time.Since(began))
			}
		})
		time.Sleep(time.Second)
		for _, stop := range stops {
			stop()
		}
		c.wg.Wait()
	})
}

// A sender with many networks of IPv6 holds up neither those of IPv4, nor for long another network: a turn that ends goes to the
// source that has the fewest.
func TestTurnsOfManyNetworks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := senders{h: start(t)}
		hold := func(from string) (stop func()) {
			stop = c.hold(t, "github", from, "X-Hub-Signature-256", "sha256=00")
			synctest.Wait()
			return stop
		}
		body := recorded(t, "github")
		_, header := prove("github", "github", secret, body)
		ask := func(from string) int {
			return c.ask(t, "github", from, body, append(slices.Clone(header), "X-GitHub-Delivery", from)...)
		}
		var stops []func()
		for i := range 20 { // twelve have turns
			stops = append(stops, hold(fmt.Sprintf("2001:db8:0:%x::1", i)))
		}
		began := time.Now()
		if got := ask("192.0.2.1"); got != http.StatusAccepted || time.Since(began) != 0 {
			t.Errorf("an address of IPv4: %d after %v", got, time.Since(began))
		}
		for i := range 20 {
			stops = append(stops, hold(fmt.Sprintf("2001:db8:0:0::%x", i)))
		}
		done := make(chan int)
		go func() { done <- ask("2001:db8:ffff::1") }()
		synctest.Wait()
		for i := range 9 { // eight networks without a turn came before, and one that has a turn already
			stops[i+1]()
			synctest.Wait()
		}
		if got := <-done; got != http.StatusAccepted || time.Since(began) != 0 {
			t.Errorf("another network: %d after %v", got, time.Since(began))
		}
		for _, stop := range stops {
			stop()
		}
		c.wg.Wait()
	})
}
