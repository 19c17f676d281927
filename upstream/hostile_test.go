package upstream_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/registrymirror/mirror/cache/flight"
	"github.com/registrymirror/mirror/upstream"
	"github.com/registrymirror/mirror/upstream/fault"
)

// TestHostile has a registry that knows our login send us, by the realm of its challenge and by redirects of manifests
// and blobs, where our login must not go. Whatever is listening there gets no byte of Authorization.
func TestHostile(t *testing.T) {
	t.Parallel()
	const public = "93.184.216.34"
	for _, tt := range []struct {
		name, host string   // "" is the listener's own address
		addrs      []string // that connections to the host seem to lead to, the last one for good; nil: where they do
		secure     bool     // the registry speaks https
		refused    bool     // a redirect there is not followed at all, at the latest the second time
	}{
		{name: "other host", host: "evil.example", addrs: []string{public}},
		{name: "subdomain", host: "cdn.reg.example", addrs: []string{public}},
		{name: "IP literal", refused: true},
		{name: "DNS to a private address", host: "inside.example", refused: true},
		{name: "rebinding", host: "rebind.example", addrs: []string{public, ""}, refused: true},
		{name: "http downgrade", host: "example.com", addrs: []string{public}, secure: true, refused: true},
	} {
		for _, way := range []string{"realm", "manifest", "blob"} {
			t.Run(tt.name+" by "+way, func(t *testing.T) {
				t.Parallel()
				content := blobOf(100)
				sniffer := serve(t, func(w http.ResponseWriter, r *http.Request) {
					switch {
					case r.URL.Path == "/token":
						_, _ = io.WriteString(w, `{"token":"x"}`)
					case way == "manifest":
						w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
						_, _ = w.Write(manifest)
					default:
						_, _ = w.Write(content)
					}
				})
				host := tt.host
				if host == "" {
					host = "127.0.0.1"
				}
				target := "http://" + host + ":" + portOf(sniffer)
				s := &server{}
				s.Server = httptest.NewUnstartedServer(s.noted(func(w http.ResponseWriter, r *http.Request) {
					switch {
					case r.Header.Get("Authorization") == basic("bot", "pw"):
						http.Redirect(w, r, target+"/stolen?sig=1", http.StatusTemporaryRedirect)
					case way == "realm":
						w.Header().Set("WWW-Authenticate", `Bearer realm="`+target+`/token",service="reg"`)
						w.WriteHeader(http.StatusUnauthorized)
					default:
						w.Header().Set("WWW-Authenticate", `Basic realm="reg"`)
						w.WriteHeader(http.StatusUnauthorized)
					}
				}))
				scheme := "http"
				if tt.secure {
					scheme = "https"
					s.StartTLS()
				} else {
					s.Start()
				}
				t.Cleanup(s.Close)
				var mu sync.Mutex
				addrs := tt.addrs
				dial := func(ctx context.Context, network, addr string) (net.Conn, error) {
					name, port, _ := net.SplitHostPort(addr)
					var d net.Dialer
					c, err := d.DialContext(ctx, network, "127.0.0.1:"+port)
					seems := ""
					mu.Lock()
					defer mu.Unlock()
					switch {
					case port == portOf(s): // the registry is a public one
						seems = public
					case name == tt.host && len(addrs) > 0:
						if seems = addrs[0]; len(addrs) > 1 {
							addrs = addrs[1:]
						}
					}
					if err == nil && seems != "" {
						return at{c, &net.TCPAddr{IP: net.ParseIP(seems), Port: 443}}, nil
					}
					return c, err
				}
				r := registry(t, scheme+"://reg.example:"+portOf(s), as(login("bot", "pw")), func(o *upstream.Options) {
					o.Dial = dial
					if tt.secure {
						o.Endpoints[0].RootCAs = s.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
						o.Endpoints[0].URL.Host = "example.com:" + portOf(s) // whom httptest's certificate is for
					}
				})
				ask := func() error {
					if way == "blob" {
						_, _, err := fetch(t, r, digestOf(content), flight.Want{To: 100})
						return err
					}
					_, err := r.Manifest(t.Context(), "app", "1")
					return err
				}
				err := ask()
				for range len(tt.addrs) - 1 {
					r.CloseIdle()
					err = ask()
				}
				got := sniffer.asked()
				for _, line := range got {
					if strings.Contains(line, "[") {
						t.Errorf("the listener got %s", line)
					}
				}
				if way == "realm" {
					if _, ok := errors.AsType[*fault.RealmError](err); !ok || len(got) > 0 {
						t.Errorf("%v, want a RealmError; the listener was asked %q", err, got)
					}
					return
				}
				if tt.refused != notFollowed(err) || !tt.refused && (err != nil || len(got) == 0) {
					t.Errorf("%v, the listener was asked %q; want it refused: %t", err, got, tt.refused)
				}
				if s.count("["+basic("bot", "pw")) == 0 {
					t.Error("the registry never got the login, so nothing was shown")
				}
			})
		}
	}
}

func notFollowed(err error) bool {
	_, redirect := errors.AsType[*fault.RedirectError](err)
	_, address := errors.AsType[*fault.AddressError](err)
	return redirect || address
}
