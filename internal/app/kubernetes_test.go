package app_test

import (
	"encoding/json"
	"encoding/pem"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/registrymirror/mirror/config"
	"github.com/registrymirror/mirror/internal/app"
	"github.com/registrymirror/mirror/internal/origin"
)

// TestEventsOnPods: a tag that isn't there becomes an Event on the pods that wait for it, by whatever name they call it.
func TestEventsOnPods(t *testing.T) {
	t.Parallel()
	o := origin.Start(t, origin.Options{})
	o.AddImage("acme/app", "v1", origin.Image{})
	images := []string{
		nameOf(o) + "/acme/app:v2", "shop.test/acme/app:v2", "mirror.test:5000/" + nameOf(o) + "/acme/app:v2",
		nameOf(o) + "/acme/app:v1", "elsewhere.test/acme/app:v2",
	}
	var pods []any
	for i, image := range images {
		pods = append(pods, map[string]any{
			"metadata": map[string]any{"name": fmt.Sprint("pod-", i), "namespace": "shop", "uid": fmt.Sprint(i)},
			"spec":     map[string]any{"nodeName": "node-1", "containers": []any{map[string]any{"name": "c", "image": image}}},
			"status": map[string]any{"hostIP": "127.0.0.1", "containerStatuses": []any{map[string]any{
				"name": "c", "state": map[string]any{"waiting": map[string]any{"reason": "ImagePullBackOff"}},
			}}},
		})
	}
	events := make(chan string, 10)
	api := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Header.Get("Authorization") != "Bearer sesame":
			w.WriteHeader(http.StatusUnauthorized)
		case r.Method == http.MethodPost:
			var e struct {
				Message        string
				InvolvedObject struct{ Name string }
			}
			if err := json.NewDecoder(r.Body).Decode(&e); err != nil {
				t.Error(err)
			}
			events <- e.InvolvedObject.Name + " " + e.Message
		default:
			_ = json.NewEncoder(w).Encode(map[string]any{"items": pods})
		}
	}))
	t.Cleanup(api.Close)
	dir := t.TempDir()
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: api.Certificate().Raw})
	for name, b := range map[string][]byte{"token": []byte("sesame"), "ca.crt": ca} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c := parse(t, dir, fmt.Sprintf("  %s: {endpoints: [%q], aliases: [shop.test]}\n", nameOf(o), o.URL()))
	c.Kubernetes = config.Kubernetes{
		Events: true, Server: api.URL, TokenFile: filepath.Join(dir, "token"), CAFile: filepath.Join(dir, "ca.crt"),
	}
	r := run(t, c)
	status, _ := get(t, "http://"+r.Addr().String()+"/v2/acme/app/manifests/v2?ns="+nameOf(o))
	if status != http.StatusNotFound {
		t.Fatalf("the missing tag is %d", status)
	}
	var got []string
	for range 3 {
		name, message, _ := strings.Cut(<-events, " ")
		got = append(got, name)
		if want := "(mirror: " + nameOf(o) + " has no acme/app:v2"; !strings.Contains(message, want) {
			t.Errorf("%s says %q, want %q", name, message, want)
		}
	}
	slices.Sort(got)
	if diff := cmp.Diff([]string{"pod-0", "pod-1", "pod-2"}, got); diff != "" {
		t.Error(diff)
	}
	_, metrics := get(t, "http://"+r.AdminAddr().String()+"/metrics")
	if !strings.Contains(metrics, "mirror_kubernetes_errors_total 0") {
		t.Error("no metrics of it")
	}
	if len(events) != 0 {
		t.Errorf("and one more: %s", <-events)
	}
}

func TestEventsWithoutACluster(t *testing.T) {
	t.Parallel()
	c := parse(t, t.TempDir(), "  docker.io: {}\n")
	c.Kubernetes = config.Kubernetes{Events: true, Server: "https://127.0.0.1:1", TokenFile: "none"}
	_, err := app.New(t.Context(), app.Options{Config: c, Log: slog.New(slog.DiscardHandler)})
	if err == nil || !strings.Contains(err.Error(), "kubernetes.events: read the token") {
		t.Errorf("got %v", err)
	}
}
