package doctor_test

import (
	"net/url"
	"testing"
	"time"

	"github.com/registrymirror/mirror/diagnose/doctor"
	"github.com/registrymirror/mirror/internal/origin"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/upstream"
)

// TestUpstreamWithoutAnImage examines a registry from which no image was pulled yet: what is said names no image, and the proxy that
// would be used.
func TestUpstreamWithoutAnImage(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name           string
		tls            bool
		set            func(*world)
		detail, remedy string
	}{
		{
			name: "a black hole", tls: true, set: func(w *world) { w.o.Dial, w.o.DialTimeout = hole, 50*time.Millisecond },
			detail: "REGISTRY did not accept a connection for a ping of docker.io",
			remedy: "allow the mirror to reach REGISTRY in the firewall, or set HTTPS_PROXY",
		},
		{
			name: "a black hole, by plain HTTP", set: func(w *world) { w.o.Dial, w.o.DialTimeout = hole, 50*time.Millisecond },
			detail: "REGISTRY did not accept a connection for a ping of docker.io",
			remedy: "allow the mirror to reach REGISTRY in the firewall, or set HTTP_PROXY",
		},
		{
			name: "reset", set: func(w *world) { w.Script(origin.Rule{Early: true, Do: origin.Fault{Drop: true, Reset: true}}) },
			detail: "REGISTRY broke the connection while answering a ping of docker.io",
			remedy: "run mirror doctor again; if it stays check proxies and firewalls on the way to REGISTRY",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := &world{Origin: origin.Start(t, origin.Options{TLS: tt.tls})}
			w.o = upstream.Options{
				Name: "docker.io", Endpoints: []upstream.Endpoint{w.at(w.URL())},
				Proxy: func(*url.URL) (*url.URL, error) { return nil, nil },
			}
			tt.set(w)
			r, err := upstream.New(w.o)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			c := doctor.Upstream(t.Context(), "docker.io", r, oci.Ref{}, false)
			if got := w.blank(c.Detail); c.State != doctor.Broken || got != tt.detail {
				t.Errorf("%s: %s, want %s", c.State, got, tt.detail)
			}
			if got := w.blank(c.Remedy); got != tt.remedy {
				t.Errorf("the remedy is %s, want %s", got, tt.remedy)
			}
		})
	}
}
