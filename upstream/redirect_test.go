package upstream_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/registrymirror/mirror/cache/flight"
	"github.com/registrymirror/mirror/upstream"
	"github.com/registrymirror/mirror/upstream/endpoint"
	"github.com/registrymirror/mirror/upstream/fault"
)

// TestRedirectsTakeNoCredentials has a registry that wants a password redirect to servers that listen for it.
func TestRedirectsTakeNoCredentials(t *testing.T) {
	t.Parallel()
	content := blobOf(1000)
	sniffer := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if a := r.Header.Get("Authorization"); a != "" {
			t.Errorf("the sniffer got %s", a)
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="please"`)
		if r.URL.Path == "/ask" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		http.ServeContent(w, r, "", zeroTime, strings.NewReader(string(content)))
	})
	for _, tt := range []struct {
		name, location string
		status         int
	}{
		{"other port", sniffer.URL + "/blob", 200},
		{"same name, other port", "http://reg.example:" + portOf(sniffer) + "/blob", 200},
		{"sub-domain", "http://cdn.reg.example:" + portOf(sniffer) + "/blob", 200},
		{"asks for a password", sniffer.URL + "/ask", 401},
		{"with a password", "http://bot:pw@" + sniffer.host() + "/blob", 200},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := serve(t, func(w http.ResponseWriter, r *http.Request) {
				if r.Header.Get("Authorization") != basic("bot", "pw") {
					w.Header().Set("WWW-Authenticate", `Basic realm="reg"`)
					w.WriteHeader(http.StatusUnauthorized)
					return
				}
				http.Redirect(w, r, tt.location, http.StatusTemporaryRedirect)
			})
			r := registry(t, "http://reg.example:"+portOf(s), as(login("bot", "pw")),
				resolver(names(t, map[string]string{"reg.example": "127.0.0.1", "cdn.reg.example": "127.0.0.1"})))
			b, _, err := fetch(t, r, digestOf(content), flight.Want{To: 1000})
			if tt.status == 200 {
				if err != nil || string(b) != string(content) {
					t.Errorf("%d bytes, %v", len(b), err)
				}
				return
			}
			e := upstreamError(t, err)
			if e.Status != tt.status || e.Step().Name != fault.StepBlobHost || e.Step().Host != sniffer.host() {
				t.Errorf("%v, last step %+v", e, e.Step())
			}
		})
	}
}

// at makes a connection look as if it led to an address.
type at struct {
	net.Conn
	addr net.Addr
}

func (a at) RemoteAddr() net.Addr { return a.addr }

// TestRedirectsToPrivateAddresses has a registry whose address looks public redirect to a server on this machine.
func TestRedirectsToPrivateAddresses(t *testing.T) {
	t.Parallel()
	content := blobOf(1000)
	inside := serve(t, func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "", zeroTime, strings.NewReader(string(content)))
	})
	for _, tt := range []struct {
		name, location string
		hosts          []string // redirectHosts
		from           string   // address of the registry
		why            string   // of the RedirectError; "address": an AddressError; empty: followed
	}{
		{"address from public", inside.URL, nil, "93.184.216.34", "to a private address"},
		{"name from public", "http://inside.example:" + portOf(inside), nil, "93.184.216.34", "address"},
		{"name from private", "http://inside.example:" + portOf(inside), nil, "10.0.0.1", "address"},
		{"name from this machine", "http://inside.example:" + portOf(inside), nil, "127.0.0.1", ""},
		{"named from public", "http://inside.example:" + portOf(inside), []string{"inside.example"}, "93.184.216.34", ""},
		{
			"named with its port", "http://inside.example:" + portOf(inside),
			[]string{"inside.example:" + portOf(inside)},
			"93.184.216.34", "",
		},
		{
			"named with another port", "http://inside.example:" + portOf(inside),
			[]string{"inside.example:1"},
			"93.184.216.34",
			"address",
		},
		{"named address", inside.URL, []string{"127.0.0.1"}, "93.184.216.34", ""},
		{"http after https is in another test", inside.URL, nil, "127.0.0.1", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := serve(t, func(w http.ResponseWriter, r *http.Request) {
				http.Redirect(w, r, tt.location+"/blob?sig=secret", http.StatusTemporaryRedirect)
			})
			dial := func(ctx context.Context, network, addr string) (net.Conn, error) {
				host, port, _ := net.SplitHostPort(addr)
				var d net.Dialer
				c, err := d.DialContext(ctx, network, "127.0.0.1:"+port)
				if err == nil && host == "reg.example" {
					return at{c, &net.TCPAddr{IP: net.ParseIP(tt.from), Port: 443}}, nil
				}
				return c, err
			}
			r := registry(t, "http://reg.example:"+portOf(s), func(o *upstream.Options) {
				o.Dial, o.RedirectHosts = dial, tt.hosts
			})
			b, _, err := fetch(t, r, digestOf(content), flight.Want{To: 1000})
			if tt.why == "" {
				if err != nil || string(b) != string(content) {
					t.Errorf("%d bytes, %v", len(b), err)
				}
				return
			}
			e := upstreamError(t, err)
			if strings.Contains(err2s(e), "secret") {
				t.Errorf("the query shows in %v", e)
			}
			if tt.why == "address" {
				if got, ok := errors.AsType[*fault.AddressError](err); !ok || got.Host != "inside.example" ||
					got.Addr != "127.0.0.1" {
					t.Errorf("%v, want an AddressError", err)
				}
				return
			}
			if got, ok := errors.AsType[*fault.RedirectError](err); !ok || got.Why != tt.why {
				t.Errorf("%v, want %q", err, tt.why)
			}
		})
	}
	t.Run("metadata service behind a name", func(t *testing.T) {
		t.Parallel()
		s := serve(t, func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://meta.example/latest/", http.StatusTemporaryRedirect)
		})
		// Without Options.Dial it is the control hook of the socket that refuses, after DNS and before the first packet.
		r := registry(t, s.URL, resolver(names(t, map[string]string{"meta.example": "169.254.169.254"})))
		_, err := r.Blob(t.Context(), repo, digestOf(nil), flight.Want{To: 10})
		e := upstreamError(t, err)
		if got, ok := errors.AsType[*fault.AddressError](err); !ok || got.Host != "meta.example" ||
			got.Addr != "169.254.169.254" {
			t.Errorf("%v, want an AddressError", err)
		}
		if step := e.Step(); step.Name != fault.StepDial || step.Host != "meta.example" {
			t.Errorf("last step %+v", step)
		}
	})
}

// TestRedirectsOfPrivateRegistries has a registry at a private address redirect, by way of other hosts: to private hosts, as
// object stores are, and no further than a host at each step may.
func TestRedirectsOfPrivateRegistries(t *testing.T) {
	t.Parallel()
	content := blobOf(1000)
	addresses := map[string]string{
		"reg.example": "10.0.0.1", "store.example": "192.168.7.7", "fd.example": "fd00::7", "public.example": "93.184.216.34",
		"self.example": "127.0.0.1", "meta.example": "169.254.169.254", "pods.example": "fd00:ec2::23",
		"nat.example": "64:ff9b:1:a9fe:a9:fe00::", "siit.example": "::ffff:0:a9fe:a9fe", "cgn.example": "100.64.0.9",
	}
	for _, tt := range []struct {
		path    []string // of hosts after the registry
		refused string   // the host that is not dialled; empty: the blob comes
	}{
		{[]string{"store.example"}, ""},
		{[]string{"fd.example"}, ""},
		{[]string{"cgn.example"}, ""},
		{[]string{"public.example"}, ""},
		{[]string{"store.example", "fd.example", "public.example"}, ""},
		{[]string{"public.example", "store.example"}, "store.example"},
		{[]string{"store.example", "public.example", "store.example"}, "store.example"},
		{[]string{"self.example"}, "self.example"},
		{[]string{"meta.example"}, "meta.example"},
		{[]string{"pods.example"}, "pods.example"},
		{[]string{"nat.example"}, "nat.example"},
		{[]string{"siit.example"}, "siit.example"},
		{[]string{"store.example", "meta.example"}, "meta.example"},
	} {
		t.Run(strings.Join(tt.path, " "), func(t *testing.T) {
			t.Parallel()
			var s *server
			s = serve(t, func(w http.ResponseWriter, r *http.Request) {
				step := strings.Count(strings.TrimPrefix(r.URL.Path, "/hop"), "/hop")
				if !strings.HasPrefix(r.URL.Path, "/hop") {
					http.Redirect(w, r, "http://"+tt.path[0]+":"+portOf(s)+"/hop", http.StatusTemporaryRedirect)
				} else if step+1 < len(tt.path) {
					http.Redirect(w, r, "http://"+tt.path[step+1]+":"+portOf(s)+r.URL.Path+"/hop", http.StatusTemporaryRedirect)
				} else {
					http.ServeContent(w, r, "", zeroTime, strings.NewReader(string(content)))
				}
			})
			dial := func(ctx context.Context, network, addr string) (net.Conn, error) {
				host, port, _ := net.SplitHostPort(addr)
				var d net.Dialer
				c, err := d.DialContext(ctx, network, "127.0.0.1:"+port)
				if err != nil {
					return nil, err
				}
				return at{c, &net.TCPAddr{IP: net.ParseIP(addresses[host]), Port: 80}}, nil
			}
			r := registry(t, "http://reg.example:"+portOf(s), func(o *upstream.Options) { o.Dial = dial })
			b, _, err := fetch(t, r, digestOf(content), flight.Want{To: 1000})
			if tt.refused == "" {
				if err != nil || string(b) != string(content) {
					t.Errorf("%d bytes, %v", len(b), err)
				}
				return
			}
			if got, ok := errors.AsType[*fault.AddressError](err); !ok || got.Host != tt.refused {
				t.Errorf("%v, want that %s is not dialled", err, tt.refused)
			}
		})
	}
}

func TestDialCheckSeesTheAddressThatIsDialled(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	d := endpoint.NewDialer(nil, names(t, map[string]string{"rebind.example": "127.0.0.1", "six.example": "::1"}), time.Second)
	for _, host := range []string{"127.0.0.1", "rebind.example", "six.example", "::ffff:127.0.0.1", "0.0.0.0"} {
		c, err := d.Dial(t.Context(), "tcp", net.JoinHostPort(host, port))
		if err == nil {
			c.Close()
			t.Errorf("%s was dialled", host)
		} else if _, ok := errors.AsType[*fault.AddressError](err); !ok {
			t.Errorf("%s: %v, want an AddressError", host, err)
		}
	}
	got := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err == nil {
			c.Close()
		}
		got <- err
	}()
	l.Close()
	if err := <-got; err == nil {
		t.Error("a connection arrived")
	}
}
