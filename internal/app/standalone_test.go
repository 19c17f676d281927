package app_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/registrymirror/mirror/admin"
	"github.com/registrymirror/mirror/admin/client"
	"github.com/registrymirror/mirror/cache/disk"
	"github.com/registrymirror/mirror/config"
	"github.com/registrymirror/mirror/internal/app"
	"github.com/registrymirror/mirror/internal/origin"
	"github.com/registrymirror/mirror/internal/testlog"
)

// A mirror without listeners answers its own process alone, and gives the folder back. While it has the folder, another one is
// told so at once.
func TestStandalone(t *testing.T) {
	t.Parallel()
	c, err := config.Parse(filepath.Join(t.TempDir(), "config.yaml"), []byte("listen: 192.0.2.1:1\nadmin: {listen: '192.0.2.1:2', tokenFile: none}\ncache: {dir: data, minFree: 0}\n"), nil)
	if err != nil {
		t.Fatal(err)
	}
	o := app.Options{Config: c, Version: "test", Log: slog.New(slog.NewTextHandler(&testlog.Log{}, nil))}
	failure := errors.New("x")
	for range 2 {
		var after func(context.Context) (net.Conn, error)
		err = app.Standalone(t.Context(), o, func(dial func(context.Context) (net.Conn, error)) error {
			after = dial
			api, err := client.New(client.Options{URL: "http://localhost", Dial: dial})
			if err != nil {
				return err
			}
			if body, err := api.Get(t.Context(), "warm", nil); err != nil || !strings.HasPrefix(string(body), `{"jobs":[]`) {
				t.Errorf("%s, %v", body, err)
			}
			// Without listeners the mirror has no port of its own.
			body, err := api.Do(t.Context(), http.MethodPost, "warm/verify", nil, []byte(`{"images":["127.0.0.1:5000/docker.io/library/a:1"]}`))
			if err != nil || !strings.Contains(string(body), `"image":"docker.io/library/a:1"`) {
				t.Errorf("%s, %v", body, err)
			}
			err = app.Standalone(t.Context(), o, func(func(context.Context) (net.Conn, error)) error {
				t.Error("a second one runs")
				return nil
			})
			if _, locked := errors.AsType[*disk.LockedError](err); !locked {
				t.Errorf("a second one: %v", err)
			}
			return failure
		})
		if !errors.Is(err, failure) {
			t.Errorf("%v, want that of the work", err)
		}
		if _, err := after(t.Context()); !errors.Is(err, net.ErrClosed) {
			t.Errorf("a connection after the end: %v", err)
		}
	}
}

// The stop of the mirror ends the streams of jobs that have not ended. The job goes on with the next start.
func TestStopEndsStreams(t *testing.T) {
	t.Parallel()
	o := origin.Start(t, origin.Options{})
	o.AddImage("acme/app", "1", origin.Image{Layers: []int64{8 << 10}})
	gate := origin.NewGate()
	stalled := o.Script(origin.Rule{Kind: origin.KindBlob, Do: origin.Fault{Stall: &origin.Stall{Gate: gate}}})
	dir := t.TempDir()
	more := fmt.Sprintf("  registry.example: {endpoints: [%q]}\n", o.URL())
	c, err := config.Parse(filepath.Join(dir, "config.yaml"), []byte("listen: 127.0.0.1:0\nadmin: {listen: '127.0.0.1:0'}\ncache: {dir: data, minFree: 0}\nupstreams:\n"+more), nil)
	if err != nil {
		t.Fatal(err)
	}
	a, err := app.New(t.Context(), app.Options{Config: c, Version: "test", Log: slog.New(slog.NewTextHandler(&testlog.Log{}, nil))})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	api, err := client.New(client.Options{URL: a.AdminAddr().String()})
	if err != nil {
		t.Fatal(err)
	}
	var job admin.WarmJob
	body, err := api.Do(t.Context(), http.MethodPost, "warm", nil, []byte(`{"images":["registry.example/acme/app:1"]}`))
	if err == nil {
		err = json.Unmarshal(body, &job)
	}
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		<-gate.Arrived()
		stop() // while the download stands still
	}()
	var last error
	for e, err := range api.Events(t.Context(), "warm/"+job.ID+"/events", "") {
		if last = err; err != nil {
			break
		}
		if err := json.Unmarshal(e.Data, &job); err != nil || job.State.Over() {
			t.Fatalf("%s, %v", e.Data, err)
		}
	}
	if last != nil && !errors.Is(last, client.ErrUnreachable) {
		t.Error(last)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	stalled()
	gate.Open()
	b, _ := start(t, c)
	if api, err = client.New(client.Options{URL: b.AdminAddr().String()}); err != nil {
		t.Fatal(err)
	}
	for e, err := range api.Events(t.Context(), "warm/"+job.ID+"/events", "") {
		if err != nil || json.Unmarshal(e.Data, &job) != nil {
			t.Fatal(err)
		}
	}
	if job.State != "done" {
		t.Errorf("after the restart: %+v", job)
	}
}
