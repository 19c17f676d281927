package client_test

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/registrymirror/mirror/admin"
	"github.com/registrymirror/mirror/admin/client"
)

// streaming is a client of a server that answers with a handler.
func streaming(t *testing.T, h http.HandlerFunc) *client.Client {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	c, err := client.New(client.Options{URL: s.URL, Token: "s3cret"})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// read is what a stream yields: "ID DATA" for each event, and the error.
func read(ctx context.Context, c *client.Client, lastID string) (got []string, err error) {
	for e, err := range c.Events(ctx, "warm/x/events", lastID) {
		if err != nil {
			return got, err
		}
		got = append(got, e.ID+" "+string(e.Data))
	}
	return got, nil
}

func TestEvents(t *testing.T) {
	t.Parallel()
	c := streaming(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/api/v1/warm/x/events" || r.Header.Get("Accept") != "text/event-stream" || r.Header.Get("Authorization") != "Bearer s3cret" {
			t.Errorf("%s %v", r.URL, r.Header)
		}
		_, _ = io.WriteString(w, "retry: 2000\n\nid: 7\ndata: {\"a\":1}\n\n:\n\nid:8\r\nevent: x\r\ndata:{\"a\":\r\ndata: 2}\r\n\r\n: note\ndata: "+strings.Repeat("x", 1<<20)+
			"\n\nid: "+r.Header.Get("Last-Event-ID")+"\ndata: last\n\nid: 9\ndata: cut off")
	})
	got, err := read(t.Context(), c, "6")
	if want := []string{`7 {"a":1}`, "8 {\"a\":\n2}", "8 " + strings.Repeat("x", 1<<20), "6 last"}; err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%.200q, %v", got, err)
	}
	for e, err := range c.Events(t.Context(), "warm/x/events", "") {
		if err != nil || e.ID != "7" {
			t.Errorf("%v %v", e, err)
		}
		break // the reader may leave
	}
}

func TestEventsEnd(t *testing.T) {
	t.Parallel()
	refuse := streaming(t, func(w http.ResponseWriter, _ *http.Request) { admin.Problem(w, http.StatusNotFound, "no such job") })
	_, err := read(t.Context(), refuse, "")
	if refused, ok := errors.AsType[*client.Refused](err); !ok || refused.Code != 404 || refused.Detail != "no such job" {
		t.Errorf("refused: %v", err)
	}
	if got, err := read(t.Context(), streaming(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }), ""); err != nil || got != nil {
		t.Errorf("nothing new: %q, %v", got, err)
	}
	broken := streaming(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "data: 1\n\n")
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	})
	if got, err := read(t.Context(), broken, ""); !errors.Is(err, client.ErrUnreachable) || len(got) != 1 {
		t.Errorf("a broken connection: %q, %v", got, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	leave := streaming(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "data: 1\n\n")
		_ = http.NewResponseController(w).Flush()
		cancel()
		<-r.Context().Done()
	})
	if _, err := read(ctx, leave, ""); !errors.Is(err, context.Canceled) {
		t.Errorf("a reader that was cancelled: %v", err)
	}
}

// A connection on which nothing comes any more, not even a heartbeat, is broken, though it was never closed.
func TestEventsOfASilentMirror(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, err := client.New(client.Options{URL: "http://localhost", Dial: func(context.Context) (net.Conn, error) {
			here, there := net.Pipe()
			go func() {
				_, _ = there.Read(make([]byte, 4096))
				_, _ = io.WriteString(there, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\ndata: 1\n\n")
				for range 3 {
					time.Sleep(50 * time.Second)
					_, _ = io.WriteString(there, ":\n\n")
				}
			}()
			return here, nil
		}})
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		got, err := read(t.Context(), c, "")
		if passed := time.Since(start); !errors.Is(err, client.ErrUnreachable) || !strings.Contains(err.Error(), "for a minute") || len(got) != 1 || passed != 210*time.Second {
			t.Errorf("after %s: %q, %v", passed, got, err)
		}
	})
}

// An admin listener with TLS speaks HTTP/2.
func TestEventsByHTTP2(t *testing.T) {
	t.Parallel()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Connection", "close")
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(time.Minute))
		_, _ = io.WriteString(w, "id: 1\ndata: "+r.Proto+"\n\n")
	}))
	s.EnableHTTP2 = true
	s.StartTLS()
	t.Cleanup(s.Close)
	c, err := client.New(client.Options{URL: s.URL, CA: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if got, err := read(t.Context(), c, ""); err != nil || fmt.Sprint(got) != "[1 HTTP/2.0]" {
			t.Errorf("%q, %v", got, err)
		}
	}
}
