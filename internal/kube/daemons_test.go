package kube_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/registrymirror/mirror/internal/kube"
)

// daemons is an API server with one DaemonSet.
type daemons struct {
	status map[string]any
	pods   map[string]string // node: value of the condition Ready
	asked  []string
}

func (d *daemons) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	d.asked = append(d.asked, r.URL.Path)
	switch r.URL.Path {
	case "/apis/apps/v1/namespaces/mirror/daemonsets/mirror-cleanup":
		_ = json.NewEncoder(w).Encode(map[string]any{
			"metadata": map[string]any{"generation": 1}, "status": d.status,
			"spec": map[string]any{"selector": map[string]any{"matchLabels": map[string]any{"b": "2", "a": "1"}}},
		})
	case "/api/v1/namespaces/mirror/pods":
		if r.URL.Query().Get("labelSelector") != "a=1,b=2" {
			status(w, 400, "BadRequest", r.URL.RawQuery)
			break
		}
		var items []any
		for node, ready := range d.pods {
			items = append(items, map[string]any{
				"spec":   map[string]any{"nodeName": node},
				"status": map[string]any{"conditions": []any{map[string]any{"type": "Ready", "status": ready}}},
			})
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"items": items})
	default:
		status(w, 403, "Forbidden", r.URL.Path)
	}
	return w.Result(), nil
}

// The state of a DaemonSet, with the nodes whose pods are not ready. Pods are listed only where some are not.
func TestDaemons(t *testing.T) {
	t.Parallel()
	const set, pods = "/apis/apps/v1/namespaces/mirror/daemonsets/mirror-cleanup", "/api/v1/namespaces/mirror/pods"
	for _, tt := range []struct {
		name  string
		d     daemons
		want  kube.Daemons
		asked []string
	}{
		{"no controller has seen it", daemons{}, kube.Daemons{}, []string{set}},
		{
			"all are ready",
			daemons{status: map[string]any{"observedGeneration": 1, "desiredNumberScheduled": 2, "numberReady": 2}},
			kube.Daemons{Seen: true, Wanted: 2, Ready: 2},
			[]string{set},
		},
		{
			"two are not", daemons{
				status: map[string]any{"observedGeneration": 1, "desiredNumberScheduled": 4, "numberReady": 1},
				pods:   map[string]string{"n3": "False", "n1": "True", "n2": "Unknown", "": "False"},
			}, kube.Daemons{Seen: true, Wanted: 4, Ready: 1, Unready: []string{"n2", "n3"}}, []string{set, pods},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c, err := kube.NewClient(kube.ClientOptions{Server: "https://api.test", TokenFile: tokenFile(t), Transport: &tt.d})
			if err != nil {
				t.Fatal(err)
			}
			got, err := c.Daemons(t.Context(), "mirror", "mirror-cleanup")
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tt.asked, tt.d.asked); diff != "" {
				t.Errorf("requests (-want +got):\n%s", diff)
			}
			if _, err := c.Daemons(t.Context(), "other", "mirror-cleanup"); err == nil {
				t.Error("a refusal is not an error")
			}
		})
	}
}
