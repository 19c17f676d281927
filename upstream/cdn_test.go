package upstream_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/registrymirror/mirror/cache/flight"
	"github.com/registrymirror/mirror/internal/origin"
	"github.com/registrymirror/mirror/upstream"
	"github.com/registrymirror/mirror/upstream/fault"
)

// TestCDNHostsBehindAProxy has a registry redirect through a proxy, which hides the address.
func TestCDNHostsBehindAProxy(t *testing.T) {
	t.Parallel()
	content := blobOf(1000)
	for _, tt := range []struct {
		name, host, cdn string
		followed        bool
	}{
		{"named", "cdn.example", "cdn.example", true},
		{"by a pattern", "eu-1.cdn.example", "*.cdn.example", true},
		{"below a pattern", "a.eu-1.cdn.example", "*.cdn.example", false},
		{"another", "cdn.example", "other.example", false},
		{"another port", "cdn.example", "cdn.example:8443", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := origin.Start(t, origin.Options{TLS: true, Certificate: origin.Certificate{Names: []string{
				"reg.example", tt.host,
			}}})
			d := s.AddBlob(repo, content)
			s.Script(origin.Rule{Kind: origin.KindBlob, Times: 1, Do: origin.Fault{
				Status: http.StatusTemporaryRedirect, Header: http.Header{"Location": {"https://" + tt.host + "/blob"}},
			}})
			s.Script(origin.Rule{Kind: origin.KindOther, Do: origin.Fault{Handler: func(w http.ResponseWriter, r *http.Request) {
				http.ServeContent(w, r, "", zeroTime, strings.NewReader(string(content)))
			}}})
			p, _ := proxy(t, 0, s.Host())
			r := registry(t, "https://reg.example", ca(s), through(p), func(o *upstream.Options) {
				o.CDNHosts = []string{tt.cdn}
			})
			b, _, err := fetch(t, r, d.Digest, flight.Want{To: 1000})
			if tt.followed {
				if err != nil || string(b) != string(content) {
					t.Errorf("%d bytes, %v", len(b), err)
				}
				return
			}
			if got, ok := errors.AsType[*fault.RedirectError](err); !ok || got.Host != tt.host {
				t.Errorf("%v, want a RedirectError", err)
			}
		})
	}
}

// TestCDNHostsGrantNoPrivateAddress has a registry whose address looks public redirect to a name of cdnHosts that leads to this
// machine. Without a proxy in between the address is known, and decides.
func TestCDNHostsGrantNoPrivateAddress(t *testing.T) {
	t.Parallel()
	inside := serve(t, func(http.ResponseWriter, *http.Request) { t.Error("the inside was asked") })
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://inside.example:"+portOf(inside)+"/blob", http.StatusTemporaryRedirect)
	})
	other, err := url.Parse("http://127.0.0.1:1")
	if err != nil {
		t.Fatal(err)
	}
	r := registry(t, "http://reg.example:"+portOf(s), func(o *upstream.Options) {
		o.CDNHosts = []string{"inside.example", "*.example"}
		o.Proxy = func(u *url.URL) (*url.URL, error) { // there is one, for other hosts
			if u.Hostname() == "other.example" {
				return other, nil
			}
			return nil, nil
		}
		o.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
			host, port, _ := net.SplitHostPort(addr)
			var d net.Dialer
			c, err := d.DialContext(ctx, network, "127.0.0.1:"+port)
			if err == nil && host == "reg.example" {
				return at{c, &net.TCPAddr{IP: net.ParseIP("93.184.216.34"), Port: 443}}, nil
			}
			return c, err
		}
	})
	_, _, err = fetch(t, r, digestOf(blobOf(1000)), flight.Want{To: 1000})
	if got, ok := errors.AsType[*fault.AddressError](err); !ok || got.Host != "inside.example" {
		t.Errorf("%v, want an AddressError", err)
	}
}
