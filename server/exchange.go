package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/registrymirror/mirror/cache/flight"
	"github.com/registrymirror/mirror/client"
	"github.com/registrymirror/mirror/diagnose"
	"github.com/registrymirror/mirror/identity"
	"github.com/registrymirror/mirror/journal"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/pull"
	"github.com/registrymirror/mirror/upstream"
	"github.com/registrymirror/mirror/upstream/fault"
)

const apiVersion = "registry/2.0"

// exchange is one request and its answer.
type exchange struct {
	s      *Server
	w      *response // answer
	r      *http.Request
	began  time.Time
	client string // its name in records
	shown         // of the client

	req      oci.Request // zero until it is parsed
	ref      oci.Ref     // as far as it is known
	routed   bool        // ref is at a configured upstream
	status   pull.Status
	failure  *failure // nil: the request has not failed
	aborted  bool
	observed bool // Options.Observe was called
	pull     pullKey
	tracked  bool         // pull is in Server.pulls, and has to be ended
	size     int64        // bytes of the announced body of a blob
	index    []byte       // the index that was sent, for the journal
	parts    []oci.Digest // of the manifest that was sent

	answer response // a value, and not a pointer: that saves an allocation
}

// shown is what a client has shown of itself.
type shown struct {
	who   client.Identity // empty: it is anonymous
	note  string          // why a login that it has sent is not one of the mirror's
	login upstream.Login  // its own at the registry, where that decides what it may read
	// unusable: there, it has sent a login that is neither one of the mirror's nor a user and password.
	unusable bool
}

// v2 is the one adapter around everything under /v2/: handlers return errors, and v2 writes, logs and observes them.
func (s *Server) v2(w http.ResponseWriter, r *http.Request) {
	x := &exchange{s: s, r: r, began: time.Now(), client: client.Name(r, s.o.Proxies), answer: response{under: w, h2: r.ProtoMajor >= 2, stall: s.stall}}
	x.w = &x.answer
	if s.suspects.some.Load() > 0 {
		host, _, _ := net.SplitHostPort(r.RemoteAddr)
		s.suspects.clear(host)
	}
	defer x.end()
	if err := x.serve(); err != nil {
		x.fail(err)
	}
}

// end observes the exchange, and turns a panic into an answer.
func (x *exchange) end() {
	p := recover()
	x.w.leave()
	if x.w.stuck {
		countStream(x.r.Context())
	}
	if x.tracked {
		x.s.pulls.end(x.pull, time.Now())
	}
	switch p {
	case nil:
		x.observe()
		return
	case http.ErrAbortHandler:
		x.aborted = true
		x.observe()
		panic(p)
	}
	x.s.log.ErrorContext(x.r.Context(), "panic in a request", "ref", x.ref.String(), "client", x.client,
		"panic", fmt.Sprint(p), "stack", string(debug.Stack()))
	x.failure = x.explain(diagnose.New(diagnose.InternalError, "the mirror failed at this request",
		"look at the mirror's log for the panic, and report it"))
	if x.w.begun() {
		x.aborted = true
		x.observe()
		panic(http.ErrAbortHandler)
	}
	x.observe()
	x.writeFailure()
}

// fail answers with an error, or aborts where a body has begun.
func (x *exchange) fail(err error) {
	ctx := x.r.Context()
	left := ctx.Err() != nil
	switch {
	case x.w.begun():
		x.aborted = true
		if fromSource(err) {
			x.failure = x.explain(err)
		}
		x.s.log.DebugContext(ctx, "response aborted", "ref", x.ref.String(), "client", x.client, "bytes", x.w.bytes,
			"error", err)
		x.observe()
		if !x.w.h2 {
			panic(http.ErrAbortHandler)
		}
		// On HTTP/2 a short end is what clients take for an unexpected end; an abort would be a reset, which they
		// don't resume from.
		return
	case left && errors.Is(err, context.Canceled):
		// The client seems to have left, but one that has only closed its side of the connection may still read: to return
		// would be an answer, 200 and empty.
		x.aborted = true
		x.observe()
		panic(http.ErrAbortHandler)
	}
	x.failure = x.explain(err)
	x.s.log.DebugContext(ctx, "request failed", "ref", x.ref.String(), "client", x.client, "id", x.failure.id,
		"reason", x.failure.finding.Reason, "status", x.failure.status, "error", diagnose.Clean(err.Error()))
	x.observe() // before the answer ends: a client that has it finds its failure in the records
	x.writeFailure()
}

// fromSource reports whether an error in the middle of a body is of its source, and not of a client that left or stalled.
func fromSource(err error) bool {
	_, failed := errors.AsType[*fault.Error](err)
	_, late := errors.AsType[*pull.TimeoutError](err)
	_, invalid := errors.AsType[*fault.ContentError](err)
	_, corrupt := errors.AsType[*flight.MismatchError](err)
	return failed || late || invalid || corrupt
}

// observe calls Options.Observe, once.
func (x *exchange) observe() {
	if x.observed {
		return
	}
	x.observed = true
	x.s.o.Observe(x.record())
}

// record describes the exchange as far as it is known.
func (x *exchange) record() journal.Request {
	q := journal.Request{
		At: x.began, Took: time.Since(x.began), Client: x.client, Source: client.Source(x.r, x.s.o.Proxies),
		UserAgent: printable(x.r.UserAgent(), 200),
		Kind:      x.req.Kind, Head: x.r.Method == http.MethodHead, Ref: x.ref, Status: x.w.status, Bytes: x.w.bytes,
		Outcome: x.status.Outcome, Stale: x.status.Stale, Aborted: x.aborted,
		Size: x.size, Index: x.index, Parts: x.parts,
	}
	if x.routed {
		q.Upstream = x.ref.Host
	}
	if !x.w.first.IsZero() {
		q.First = x.w.first.Sub(x.began)
	}
	if f := x.failure; f != nil {
		q.Finding, q.ID = &f.finding, f.id
		if !x.w.begun() {
			q.Status = f.status
			if !q.Head {
				q.Bytes = int64(len(f.body))
			}
		}
	}
	return q
}

// serve reads the request and answers it.
func (x *exchange) serve() error {
	if overloaded(x.r.Context()) {
		return diagnose.New(diagnose.Overloaded, "the mirror has as many connections as it may have",
			"pull again in a moment; run more mirrors if it stays")
	}
	req, err := oci.ParseRequest(x.r.Method, x.r.URL)
	if err != nil {
		return err
	}
	x.req = req
	if req.Kind == oci.KindPing {
		return x.ping()
	}
	x.ref = oci.Ref{Repo: oci.Repo{Host: req.Namespace, Name: req.Name}, Tag: req.Tag, Digest: req.Digest}
	ref, err := x.s.o.Puller.Route(req)
	if err != nil {
		return err
	}
	x.ref, x.routed = ref, true
	if err := x.identify(); err != nil {
		return err
	}
	if err := x.limit(); err != nil {
		return err
	}
	if err := x.track(); err != nil {
		return err
	}
	if loops(x.r, x.s.o.Via) {
		return diagnose.New(diagnose.Loop, "the mirror's own request to "+ref.Host+" came back to it",
			"correct the endpoints of "+ref.Host+", of which one leads to the mirror itself")
	}
	switch req.Kind {
	case oci.KindManifest:
		return x.manifest()
	case oci.KindBlob:
		return x.blob()
	case oci.KindTags:
		return x.list(x.s.o.Puller.Tags)
	case oci.KindReferrers:
		return x.list(x.s.o.Puller.Referrers)
	}
	return fmt.Errorf("no handler for requests of kind %d", req.Kind)
}

// identify finds out which client it is.
func (x *exchange) identify() (err error) {
	if x.s.o.Puller.TakesLogins(x.req) {
		return x.identifyBeside()
	}
	if x.s.o.Clients == nil {
		return nil
	}
	x.who, x.note, err = x.s.o.Clients.Identify(x.r, client.Source(x.r, x.s.o.Proxies), x.req.Namespace != "")
	if x.who != "" {
		x.client = x.who.Label()
	}
	return err
}

// maxLogin is how many bytes of a client's own login are read.
const maxLogin = 16 << 10

// identifyBeside is identify for a request to a registry at which clients have logins of their own.
func (x *exchange) identifyBeside() (err error) {
	foreign := true
	if x.s.o.Clients != nil {
		x.who, foreign, x.note, err = x.s.o.Clients.IdentifyBeside(x.r, client.Source(x.r, x.s.o.Proxies))
	}
	if x.who != "" {
		x.client = x.who.Label()
	}
	if err != nil {
		return err
	}
	header := x.r.Header.Get("Authorization")
	user, password, basic := x.r.BasicAuth()
	if foreign && basic && len(header) <= maxLogin {
		x.login = upstream.NewLogin(user, password)
	}
	none := header == "" || basic && user == "" && password == "" // Podman sends both empty where it has none
	x.unusable = !none && x.login.IsZero() && !x.who.IsByLogin()
	return nil
}

// isSecure reports whether a login in the request can't be read on a network: it has come over TLS, or from this machine. A proxy on
// this machine has it from the network; one that is trusted says whether that was over TLS.
func (x *exchange) isSecure() bool {
	if x.r.TLS != nil {
		return true
	}
	from, err := netip.ParseAddrPort(x.r.RemoteAddr)
	if err != nil || !from.Addr().Unmap().IsLoopback() {
		return false
	}
	proxied := slices.ContainsFunc(proxyHeaders, func(name string) bool { return x.r.Header.Values(name) != nil })
	return !proxied || x.s.o.Proxies.Trust(from.Addr()) && strings.EqualFold(x.r.Header.Get("X-Forwarded-Proto"), "https")
}

// proxyHeaders are those by which a proxy shows itself, with a value or without.
var proxyHeaders = []string{"X-Forwarded-For", "X-Forwarded-Proto", "X-Real-Ip", "Forwarded", "Via"}

// track notes that the client pulls the repository. While the mirror stops, a pull that was not under way is refused.
func (x *exchange) track() error {
	x.pull = pullKey{x.client, x.ref.Repo}
	ok := false
	if ok, x.tracked = x.s.pulls.begin(x.pull, x.began, x.s.draining.Load()); ok {
		return nil
	}
	return diagnose.New(diagnose.Stopping, "the mirror is stopping", "pull again in a moment")
}

func (x *exchange) ask() pull.Ask {
	a := pull.Ask{Request: x.req, Client: x.client, Who: x.who, Login: x.login, Unusable: x.unusable, Secure: x.isSecure()}
	if peer := client.Source(x.r, x.s.o.Proxies); peer != x.client {
		a.Peer = peer
	}
	return a
}

// ping answers GET /v2/, by which clients find out whether they may log in: Podman takes the challenge of any answer, Docker that of
// a 401 alone. A client that has nothing to log in with goes on after a 200, and gives up after a 401: that is for mirrors which have
// nothing for it.
func (x *exchange) ping() error {
	if err := x.identify(); err != nil {
		return err
	}
	status, body := http.StatusOK, "{}"
	h := x.w.Header()
	if x.isSecure() && x.s.o.Puller.TakesLogins(x.req) {
		h.Set(challenge[0], challenge[1])
	}
	if x.s.o.Clients != nil && x.who == "" {
		switch x.s.o.Clients.Challenge() {
		case identity.Required:
			status, body = http.StatusUnauthorized, `{"errors":[{"code":"UNAUTHORIZED","message":"log in to the mirror","detail":""}]}`
			h.Set(challenge[0], challenge[1])
		case identity.Offered:
			h.Set(challenge[0], challenge[1])
		case identity.Never:
		}
	}
	h.Set("Docker-Distribution-Api-Version", apiVersion) // old clients recognise a registry by it
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("Cache-Status", cacheName+"; hit")
	x.w.WriteHeader(status)
	if x.req.Head {
		return nil
	}
	_, err := io.WriteString(x.w, body)
	return err
}

// loops reports, by the Via header, whether a request has been through this process already.
func loops(r *http.Request, via string) bool {
	if via == "" {
		return false
	}
	for _, line := range r.Header.Values("Via") {
		for hop := range strings.SplitSeq(line, ",") {
			// RFC 9110, 7.6.3: received-protocol received-by [comment].
			if f := strings.Fields(hop); len(f) >= 2 && strings.EqualFold(f[1], via) {
				return true
			}
		}
	}
	return false
}
