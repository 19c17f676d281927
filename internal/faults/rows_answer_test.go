package faults_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/registrymirror/mirror/auth"
	"github.com/registrymirror/mirror/internal/origin"
	"github.com/registrymirror/mirror/upstream"
)

// The rows of refusals, of hosts that can't be reached, and of hosts that are not trusted.

const (
	user   = "ci-bot"
	secret = "canary-5f2d"
)

// private has the upstream ask for a login.
func (tr *trial) private(a origin.Auth) {
	a.Kind, a.Username, a.Password = "bearer", user, secret
	tr.wiring.origin.Auth = a
	tr.wiring.auth = auth.Credential{Name: "ci", Username: user, Password: auth.NewSecret(secret)}
}

// reply is an answer with some status, from the host of the bytes or from the registry.
func (tr *trial) reply(times int, do origin.Fault) origin.Rule {
	if tr.r.IntN(2) == 0 {
		return tr.bytesOf(times, do)
	}
	return atRegistry(times, do)
}

func planLimited(tr *trial) {
	until := pick(tr, []string{"7"}, nil, []string{"Sat, 01 Jan 2000 00:00:20 GMT"}, []string{"soon"}, []string{"0"},
		[]string{"99999999999999999999"}, []string{"3600"})
	long := len(until) > 0 && len(until[0]) == 4 || len(until) > 0 && len(until[0]) == 20
	do := origin.Fault{
		Status: http.StatusTooManyRequests, Body: origin.ErrorBody("TOOMANYREQUESTS", "slow down"),
		Header: http.Header{"Retry-After": until},
	}
	tr.breaks = -1
	if tr.r.IntN(2) == 0 { // a herd meets it at the start
		tr.script = inTurn(tr.reply(pick(tr, 0, 1, 3), do))
	} else {
		tr.wholes()
		tr.resumable = !long
		then := tr.reply(1+tr.r.IntN(2), do)
		if tr.wiring.origin.Redirect && then.Kind == origin.KindBlob {
			then.Skip = 1 // the first leads to the body that is cut off
		}
		tr.script = inTurn(tr.first(), then)
	}
	if long {
		tr.heal = (*world).reload // an operator that does not wait an hour
	}
}

func planBurst(tr *trial) {
	do := origin.Fault{
		Status: pick(tr, 500, 502, 503, 504, 520),
		Body:   pick(tr, "", origin.HTMLBody("Bad gateway"), origin.ErrorBody("UNAVAILABLE", "later")),
	}
	tr.breaks = -1
	switch tr.r.IntN(3) {
	case 0: // at the start, as often as it is tried again while a client waits
		tr.resumable = true
		tr.wholes()
		tr.script = inTurn(tr.reply(1+tr.r.IntN(2), do))
	case 1: // in the middle, as often as it is tried again
		tr.resumable = true
		tr.wholes()
		// A download that its only client leaves before the first byte is over, though the burst has begun: the next client meets
		// the burst at the start. There a blob is asked for three times within a second, and then the client is told.
		for i, b := range tr.clients {
			if b.name == leaves.name {
				tr.clients[i] = leavesLate
			}
		}
		tr.script = tr.burst(time.Duration(1+tr.r.IntN(5))*time.Second, do)
	default: // for longer
		tr.wholes()
		tr.script = tr.burst(time.Duration(60+tr.r.IntN(240))*time.Second, do)
	}
}

// burst has every request fail for a time, once a body was cut off.
func (tr *trial) burst(d time.Duration, do origin.Fault) func(w *world) {
	cut := tr.first()
	tr.breaks = -1
	var end atomic.Int64
	cut.Do.Then = func() { end.CompareAndSwap(0, time.Now().Add(d).UnixNano()) }
	return func(w *world) {
		w.up.Script(origin.Rule{
			Match: func(*http.Request) bool { e := end.Load(); return e > 0 && time.Now().UnixNano() < e }, Do: do,
		})
		w.up.Script(cut)
	}
}

// planExpired has tokens expire in the middle of a blob, and a token service that does not renew them.
func planExpired(tr *trial) {
	tr.private(origin.Auth{SeparateHost: tr.r.IntN(2) == 0})
	tr.wholes()
	cut := tr.first()
	refuse := tr.r.IntN(2) == 0
	tr.resumable = !refuse
	tr.breaks = -1
	tr.script = func(w *world) {
		cut.Do.Then = func() {
			w.up.RevokeTokens()
			if refuse {
				w.up.Script(origin.Rule{Kind: origin.KindToken, Do: pick(tr,
					origin.Fault{Status: 401, Body: origin.DetailsBody("incorrect username or password")},
					origin.Fault{Status: 503}, origin.Fault{Drop: true}, origin.Fault{Status: 200, Body: origin.HTMLBody("Log in")},
					origin.Fault{Delay: 10 * time.Minute})})
			}
		}
		w.up.Script(cut)
	}
	tr.heal = (*world).reload // a credential that was refused is not sent again for a while
}

// sniffer is a host that is not configured. It looks for credentials in the requests that reach it.
type sniffer struct{ *origin.Origin }

func (w *world) newSniffer(tr *trial) *sniffer {
	s := &sniffer{}
	var err error
	if s.Origin, err = origin.New(origin.Options{Network: w.net}); err != nil {
		w.t.Fatal(err)
	}
	answer := pick(tr, origin.Fault{Status: 200, Body: `{"token":"stolen","expires_in":300}`},
		origin.Fault{Status: 200, Body: origin.HTMLBody("hello")}, origin.Fault{Status: 403}, origin.Fault{Drop: true})
	s.Script(origin.Rule{Early: true, Do: answer})
	return s
}

// caught lists the credentials of ours that it has seen.
func (s *sniffer) caught() (list []string) {
	for _, q := range s.Requests() {
		if v := q.Header.Get("Authorization"); v != "" || strings.Contains(fmt.Sprint(q.Path, q.Query, q.Header), secret) {
			list = append(list, fmt.Sprintf("a host that is not configured was sent credentials: %s %s?%s %q", q.Method, q.Path,
				q.Query, v))
		}
	}
	return list
}

// sniffed plans trials in which our credentials are wanted at another host.
func (tr *trial) sniffed(rule func(s *sniffer) origin.Rule) {
	var s *sniffer
	tr.breaks = -1
	tr.liar = true // a host that says 200 to a HEAD has the last word on the size
	tr.script = func(w *world) {
		s = w.newSniffer(tr)
		w.up.Script(rule(s))
	}
	tr.after = func(w *world) {
		for _, c := range s.caught() {
			w.errorf("%v", c)
		}
		s.Close()
	}
}

func planHijack(tr *trial) {
	tr.private(origin.Auth{})
	at := func(s *sniffer) string {
		return pick(tr, s.URL()+"/token", "http://169.254.169.254/latest", "http://0.0.0.0:80/token", "http://[::]/token",
			"https://evil.example/token", "ftp://"+s.Host()+"/token", "//"+s.Host()+"/token",
			"http://user:pw@"+s.Host()+"/token", "http://127.0.0.1.evil.example/token")
	}
	switch tr.r.IntN(3) {
	case 0: // a challenge in the middle of a pull
		tr.sniffed(func(s *sniffer) origin.Rule {
			return origin.Rule{Role: origin.RoleRegistry, Early: true, Times: pick(tr, 0, 1, 3), Do: origin.Fault{
				Status: 401, Header: http.Header{"Www-Authenticate": {fmt.Sprintf(`Bearer realm=%q,service="x"`, at(s))}},
			}}
		})
	case 1: // the token service redirects
		tr.sniffed(func(s *sniffer) origin.Rule {
			return origin.Rule{Kind: origin.KindToken, Times: pick(tr, 0, 1, 3), Do: origin.Fault{
				Status: pick(tr, 301, 302, 307, 308), Header: http.Header{"Location": {at(s)}},
			}}
		})
	default: // and a Basic one
		tr.sniffed(func(s *sniffer) origin.Rule {
			return origin.Rule{Kind: origin.KindBlob, Early: true, Do: origin.Fault{
				Status: 307, Header: http.Header{"Location": {at(s)}},
			}}
		})
	}
	tr.heal = (*world).reload
}

func planRedirect(tr *trial) {
	if tr.r.IntN(2) == 0 {
		tr.private(origin.Auth{})
	}
	n := 0
	tr.sniffed(func(s *sniffer) origin.Rule {
		to := pick(tr, "?again", "loop", s.URL()+"/cdn/x", "http://169.254.169.254/latest/meta-data", "http://[::1]:1/",
			"http://10.0.0.1/x", "https://127.0.0.1:1/x", "", "\x00", "http://%zz/", "file:///etc/passwd")
		do := origin.Fault{Status: pick(tr, 301, 302, 303, 307, 308), Header: http.Header{"Location": {to}}}
		if to == "loop" { // ten hops, each another address
			do = origin.Fault{Handler: func(w http.ResponseWriter, r *http.Request) {
				n++
				w.Header().Set("Location", fmt.Sprintf("%s?hop=%d", r.URL.Path, n))
				w.WriteHeader(http.StatusTemporaryRedirect)
			}}
		}
		r := atRegistry(pick(tr, 0, 0, 1, 12), do)
		r.Method = pick(tr, "", http.MethodGet)
		return r
	})
}

// planSigned has addresses expire in the middle of a blob.
func planSigned(tr *trial) {
	tr.wiring.origin.Redirect = true
	tr.wholes()
	cut := tr.first()
	tr.resumable = true
	tr.breaks = -1
	tr.script = func(w *world) {
		cut.Times = 1 + tr.r.IntN(3)
		if cut.Do.Cut.At == 0 {
			cut.Times = 1
		}
		cut.Do.Then = w.up.ExpireRedirects
		w.up.Script(cut)
	}
}

func planHTML(tr *trial) {
	do := origin.Fault{Status: 200, Body: origin.HTMLBody("Log in to the Wi-Fi")}
	if tr.r.IntN(3) == 0 { // of exactly the right length
		do.Body += strings.Repeat(" ", max(0, int(tr.size)-len(do.Body)))
	}
	tr.breaks = -1
	tr.liar = int64(len(do.Body)) == tr.size
	tr.script = inTurn(tr.reply(pick(tr, 0, 1, 2), do))
}

// failing plans dials that fail, or hang, for some time; from the start or once a body was cut off.
func (tr *trial) failing(err func(addr string) error, hang time.Duration, often int) {
	var left atomic.Int64
	tr.wiring.adapt = func(o *upstream.Options, w *world) {
		o.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
			if left.Add(-1) < 0 {
				return w.net.Dial(ctx, network, addr)
			}
			if hang > 0 && !sleep(ctx, hang) {
				return nil, &net.OpError{Op: "dial", Net: network, Err: ctx.Err()}
			}
			if e := err(addr); e != nil {
				return nil, e
			}
			return w.net.Dial(ctx, network, addr)
		}
	}
	tr.breaks = -1
	if tr.r.IntN(2) == 0 {
		cut := tr.first()
		tr.breaks = -1
		tr.wholes()
		cut.Do.Then = func() { left.Store(int64(often)) }
		tr.script = inTurn(cut)
	} else {
		tr.script = func(w *world) {
			w.closeIdle()
			left.Store(int64(often))
		}
	}
	tr.heal = func(*world) { left.Store(0) }
}

func planDNS(tr *trial) {
	often := pick(tr, 1, 2, 1000)
	switch tr.r.IntN(3) {
	case 0:
		tr.failing(func(addr string) error {
			return &net.OpError{Op: "dial", Net: "tcp", Err: &net.DNSError{Err: "no such host", Name: addr, IsNotFound: true}}
		}, 0, often)
	case 1:
		tr.failing(func(addr string) error {
			return &net.OpError{Op: "dial", Net: "tcp", Err: &net.DNSError{Err: "server misbehaving", Name: addr, IsTemporary: true}}
		}, 0, often)
	default: // slower than the mirror waits
		tr.failing(func(string) error { return nil }, 20*time.Second, often)
	}
}

func planBlackhole(tr *trial) {
	tr.failing(func(string) error { return nil }, time.Hour, pick(tr, 1, 1000))
}

func planDescriptors(tr *trial) {
	tr.failing(func(string) error {
		return &net.OpError{Op: "dial", Net: "tcp", Err: syscall.EMFILE}
	}, 0, pick(tr, 1, 3, 20))
}

func planTLS(tr *trial) {
	tr.size = min(tr.size, 64<<10+1)
	tr.wiring.origin.TLS = true
	tr.breaks = -1
	switch tr.r.IntN(5) {
	case 0:
		tr.wiring.origin.Certificate.Expired = true
	case 1:
		tr.wiring.origin.Certificate.WrongName = true
	case 2:
		tr.wiring.origin.Certificate.NotYet = true
	case 3:
		tr.wiring.adapt = func(o *upstream.Options, _ *world) { o.Endpoints[0].RootCAs = nil }
	default: // it accepts and never answers
		tr.script = func(w *world) { w.up.Silent() }
		return
	}
	tr.tagged, tr.noHeal = false, true // nothing heals until the certificate changes
}

// planHTTP2 has a registry that offers HTTP/2 and breaks its streams. The mirror does not use it.
func planHTTP2(tr *trial) {
	tr.size = min(tr.size, 1<<20)
	tr.wiring.origin.TLS, tr.wiring.origin.HTTP2 = true, true
	tr.cut(pick(tr, origin.CutFIN, origin.CutReset), "")
}

func planGzip(tr *trial) {
	tr.size = min(tr.size, 300<<10)
	tr.breaks = -1
	tr.repeats = 100 << 10
	tr.script = inTurn(tr.bytesOf(pick(tr, 0, 1, 2), origin.Fault{Gzip: true}))
}

// reload does what a reload by the operator does: a new registry, and no remembered failures.
func (w *world) reload() { w.puller.Use(w.setup(w.newRegistry())) }

// closeIdle has the next request dial. The registry of the setup is not known here, so the upstream hangs up.
func (w *world) closeIdle() {
	w.up.Down()
	w.up.Up()
}
