package webhook

import (
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/registrymirror/mirror/client"
	"github.com/registrymirror/mirror/internal/bounded"
	"github.com/registrymirror/mirror/oci"
)

// Path is where webhooks are, on the listener for clients. The name of one follows.
const Path = "/webhooks/"

// The bounds of what senders can make the mirror do.
const (
	// MaxBody is the most bytes of a report: some fifty times what senders send.
	MaxBody = 1 << 20
	// BodyTimeout is how long a body may take.
	BodyTimeout = 10 * time.Second
	// maxChanges is how many tags a report may name.
	maxChanges = 1000
	// perSecond and burst are how many reports of a hook are accepted.
	perSecond, burst = 10, 100
	// remembered is how many reports of a hook are known again: more than are accepted within memoryTime.
	remembered = 8192
	memoryTime = 2 * maxSkew
	// maxReading is how many bodies are read at once, of hooks whose secret was shown, and of the others; perSource how many of
	// these are of one hook, or of the others from one address; perFamily how many of the others are from addresses of IPv4, or of
	// IPv6, of which one sender may have any number.
	maxReading, perSource, perFamily = 16, 8, 12
	// shown is how many tags an answer and a log line name.
	shown = 10
	// warnTime is the least time between two log lines about refused reports of a hook.
	warnTime = time.Minute
)

// Expirer marks tags. It is safe for concurrent use.
type Expirer interface {
	// Expire makes a tag due: its next pull checks it, whatever its age. An empty tag is every tag of the repository that is
	// known. Nothing is recorded for a tag that is not known, since its first pull asks the registry anyway.
	Expire(repo oci.Repo, tag string) error
}

// Result is what came of a report.
type Result string

// The results.
const (
	Accepted  Result = "accepted"  // tags are checked at their next pull
	Ignored   Result = "ignored"   // it is about no tag of this mirror
	Duplicate Result = "duplicate" // it came before
	Denied    Result = "denied"    // the secret or signature is wrong or missing
	Invalid   Result = "invalid"   // the body is too large, too slow or not that of the sender
	Limited   Result = "limited"   // there are too many reports
	Failed    Result = "failed"    // the records could not be written
)

// Hook is one webhook of the configuration.
type Hook struct {
	Name     string
	Type     string   // one of Types
	Secrets  []string // each of them counts; none: all reports are denied
	Upstream string   // the only one that its reports are about, by name in the list; empty: any
}

// Setup is what a configuration says.
type Setup struct {
	Hooks []Hook
	Names Names
}

// Options for a Handler.
type Options struct {
	Expirer Expirer // required
	// Proxies are trusted to name the sender's address, by which unsigned bodies are bounded.
	Proxies client.Proxies
	// Observe is called for each report to a hook of the configuration. It must not block. Nil: not called.
	Observe func(name string, r Result)
	Log     *slog.Logger // nil: discard
}

// Handler answers at Path. It is safe for concurrent use.
type Handler struct {
	o        Options
	using    sync.Mutex // one Use at a time
	current  atomic.Pointer[setup]
	known    reading // bodies of senders that have shown their secret
	unproven reading // bodies that prove the sender only when they are here
}

// setup is a Setup in use.
type setup struct {
	names Names
	hooks map[string]*hook
}

// hook is a Hook in use.
type hook struct {
	name, only string
	sender     sender
	secrets    secrets
	*state
}

// state is what a hook remembers over reloads.
type state struct {
	limit *rate.Limiter

	mu         sync.Mutex // guards what follows
	seen       *bounded.LRU[string, time.Time]
	warned     time.Time // when the last line about refused reports was written
	suppressed int       // lines that were not written since
}

// New makes a Handler without hooks.
func New(o Options) *Handler {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Observe == nil {
		o.Observe = func(string, Result) {}
	}
	h := &Handler{o: o}
	h.known.total, h.known.each, h.known.family = maxReading, perSource, maxReading
	h.unproven.total, h.unproven.each, h.unproven.family = maxReading, perSource, perFamily
	h.current.Store(&setup{})
	return h
}

// Use puts a Setup into use. What is remembered of a hook that stays is kept.
func (h *Handler) Use(s Setup) {
	h.using.Lock()
	defer h.using.Unlock()
	old := h.current.Load()
	next := &setup{names: s.Names, hooks: make(map[string]*hook, len(s.Hooks))}
	for _, k := range s.Hooks {
		mine := &hook{name: k.Name, only: k.Upstream, sender: senders[k.Type]}
		for _, text := range k.Secrets {
			mine.secrets = append(mine.secrets, newSecret(text))
		}
		if was := old.hooks[k.Name]; was != nil {
			mine.state = was.state
		} else {
			mine.state = &state{
				limit: rate.NewLimiter(perSecond, burst),
				seen:  bounded.NewLRU(bounded.Options[string, time.Time]{Budget: remembered}),
			}
		}
		next.hooks[k.Name] = mine
	}
	h.current.Store(next)
}

// answer is the answer to a report.
type answer struct {
	result Result
	status int
	text   string        // a sentence for the sender, which shows it beside the delivery
	retry  time.Duration // when to send the report again; zero: not said
	close  bool          // the rest of the body is not read
	marked []string      // the tags, for the log
	notice bool          // an ignored report that an operator should see
}

// ServeHTTP receives a report.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s := h.current.Load()
	name, rest, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, Path), "/")
	k := s.hooks[name]
	if k == nil || rest != "" && !k.sender.path {
		write(w, r, answer{status: http.StatusNotFound, text: "there is no such webhook; the mirror's configuration lists them under webhooks"})
		return
	}
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		write(w, r, answer{status: http.StatusMethodNotAllowed, text: "a webhook is called by POST"})
		return
	}
	a := h.receive(w, r, s, k, rest)
	h.o.Observe(k.name, a.result)
	h.record(r, k, a)
	write(w, r, a)
}

// receive checks, reads and applies a report.
func (h *Handler) receive(w http.ResponseWriter, r *http.Request, s *setup, k *hook, rest string) answer {
	denied := answer{
		result: Denied, status: http.StatusForbidden, close: true,
		text: "the secret of this webhook is wrong or missing; " + k.sender.need,
	}
	if r.ContentLength > MaxBody {
		return tooLarge()
	}
	sign, signs := k.signature(r)
	if !signs && !k.shows(r, rest) {
		return denied
	}
	if !signs && !k.limit.Allow() {
		return tooMany()
	}
	body, a := h.read(w, r, k.name, signs)
	if a != nil {
		return *a
	}
	id := ""
	if signs {
		var ok bool
		if id, ok = sign.check(k.secrets, r.Header, body, time.Now()); !ok {
			denied.close = false
			denied.text = "the signature is wrong, or older than " + maxSkew.String() + "; " + k.sender.need
			return denied
		}
		if !k.limit.Allow() {
			return tooMany()
		}
	}
	rep, err := k.sender.read(body)
	if err != nil {
		return answer{result: Invalid, status: http.StatusBadRequest, text: err.Error()}
	}
	if len(rep.changes) > maxChanges {
		return answer{
			result: Invalid, status: http.StatusBadRequest,
			text: "the report names more than " + strconv.Itoa(maxChanges) + " tags; send several",
		}
	}
	if id == "" {
		id = rep.id
	}
	if !k.claim(id) {
		return answer{result: Duplicate, status: http.StatusAccepted, text: "this report was received before"}
	}
	a2 := h.apply(s, k, rep)
	if a2.result == Failed {
		k.release(id)
	}
	return a2
}

// apply marks the tags of a report.
func (h *Handler) apply(s *setup, k *hook, rep report) answer {
	if len(rep.changes) == 0 {
		return answer{result: Ignored, status: http.StatusAccepted, text: "nothing to do: " + rep.ignored}
	}
	done := make(map[oci.Ref]bool)
	a := answer{result: Accepted, status: http.StatusAccepted}
	for _, c := range rep.changes {
		if c.tag != "" && !oci.IsTag(c.tag) {
			continue
		}
		for _, repo := range s.names.repos(c, k.only) {
			ref := oci.Ref{Repo: repo, Tag: c.tag}
			if done[ref] {
				continue
			}
			if err := h.o.Expirer.Expire(repo, c.tag); err != nil {
				h.o.Log.Error("a webhook's report could not be recorded; the tag is checked when it is older than tags.maxAge",
					"name", k.name, "ref", ref.String(), "error", err)
				return answer{
					result: Failed, status: http.StatusServiceUnavailable, retry: 10 * time.Second,
					text: "the mirror could not record the report; send it again",
				}
			}
			done[ref] = true
			if len(a.marked) < shown {
				a.marked = append(a.marked, ref.String())
			}
		}
	}
	if len(done) == 0 {
		a = answer{result: Ignored, status: http.StatusAccepted, notice: true, text: "nothing to do: " + k.foreign(rep.changes[0])}
		if k.sender.strict {
			a.status = http.StatusNotFound
		}
		return a
	}
	a.text = "checked at the next pull: " + strings.Join(a.marked, ", ")
	if n := len(done) - len(a.marked); n > 0 {
		a.text += " and " + strconv.Itoa(n) + " more"
	}
	return a
}

// foreign says that a change is not about an upstream of this mirror.
func (k *hook) foreign(c change) string {
	name := strconv.QuoteToASCII(short(strings.Trim(c.host+"/"+c.repository, "/")))
	if k.only != "" {
		return name + " is not a repository of " + k.only + ", the upstream of this webhook"
	}
	return name + " is not at an upstream of this mirror; add its registry under upstreams, or name the upstream in the webhook's settings"
}

func short(text string) string { return text[:min(len(text), 200)] }

// signature is the way in which a request is signed.
func (k *hook) signature(r *http.Request) (scheme, bool) {
	for _, s := range k.sender.signed {
		if r.Header.Get(s.header) != "" {
			return s, true
		}
	}
	return scheme{}, false
}

// shows reports whether a request has the secret in one of the places for it.
func (k *hook) shows(r *http.Request, rest string) bool {
	found := false
	for _, at := range k.sender.shown {
		if text := at(r, rest); text != "" {
			found = k.secrets.anyIs(text) || found
		}
	}
	return found
}

// claim notes a report, and reports whether it is new. One without an id always is.
func (k *hook) claim(id string) bool {
	if id == "" {
		return true
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	now := time.Now()
	if until, ok := k.seen.Get(id); ok && now.Before(until) {
		return false
	}
	k.seen.Put(id, now.Add(memoryTime), 1)
	return true
}

// release forgets a report that could not be recorded: it may come again.
func (k *hook) release(id string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.seen.Remove(id)
}

// record writes the log line of a report.
func (h *Handler) record(r *http.Request, k *hook, a answer) {
	ctx, from := r.Context(), client.Source(r, h.o.Proxies)
	switch {
	case a.result == Accepted:
		h.o.Log.InfoContext(ctx, "a webhook reported a change; these tags are checked at their next pull", "name", k.name,
			"items", strings.Join(a.marked, " "), "client", from)
	case a.notice:
		h.o.Log.InfoContext(ctx, "a webhook reported a change of another registry", "name", k.name, "reason", a.text, "client", from)
	case a.result == Ignored, a.result == Duplicate:
		h.o.Log.DebugContext(ctx, "a webhook's report had no effect", "name", k.name, "reason", a.text, "client", from)
	case a.result == Failed: // logged with its cause
	default:
		if n, ok := k.warns(time.Now()); ok {
			h.o.Log.WarnContext(ctx, "a report to a webhook was refused", "name", k.name, "reason", a.text, "client", from, "suppressed", n)
		}
	}
}

// warns reports whether a line about a refused report may be written, and how many were not written before it.
func (k *hook) warns(now time.Time) (suppressed int, ok bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.warned.IsZero() && now.Sub(k.warned) < warnTime {
		k.suppressed++
		return 0, false
	}
	suppressed, k.suppressed, k.warned = k.suppressed, 0, now
	return suppressed, true
}

func tooLarge() answer {
	return answer{
		result: Invalid, status: http.StatusRequestEntityTooLarge, close: true,
		text: "the body has more than " + strconv.Itoa(MaxBody>>20) + " MiB",
	}
}

func tooMany() answer {
	return answer{
		result: Limited, status: http.StatusTooManyRequests, close: true, retry: time.Second,
		text: "this webhook gets more than " + strconv.Itoa(perSecond) + " reports a second; send it again later",
	}
}

// write sends an answer.
func write(w http.ResponseWriter, r *http.Request, a answer) {
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	if a.retry > 0 {
		h.Set("Retry-After", strconv.Itoa(int(a.retry.Seconds())))
	}
	if a.close {
		h.Set("Connection", "close")
	}
	text := a.text + "\n"
	h.Set("Content-Length", strconv.Itoa(len(text)))
	w.WriteHeader(a.status)
	if r.Method != http.MethodHead {
		_, _ = io.WriteString(w, text)
	}
}
