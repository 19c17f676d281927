package upstream

import (
	"math"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

// Budget is what a registry has said is left of a limit of requests.
type Budget struct {
	Credential string        // whose it is; empty: nobody's
	Source     string        // the address, or /64 of addresses, that is counted; empty: not said, or not by address
	Limit      int64         // -1: not said
	Remaining  int64         // when it was said
	Window     time.Duration // 0: not said
	Reset      time.Time     // when there is more; zero: not said
	At         time.Time     // when it was said
	Spent      Spent         // by whom; zero where a newer Budget of the same credential has it
}

// longestWindow bounds the times that we believe.
const longestWindow = 31 * 24 * time.Hour

// parseBudget reads the headers of the drafts of draft-ietf-httpapi-ratelimit-headers, and Docker Hub's, which are like
// the early ones with a window at each number. False: what is left is not said.
//
//	RateLimit-Limit: 100;w=21600   RateLimit-Remaining: 20;w=21600   RateLimit-Reset: 50
//	RateLimit: limit=100, remaining=20, reset=50
//	RateLimit-Policy: "a";q=100;w=60   RateLimit: "a";r=20;t=50
func parseBudget(h http.Header, now time.Time) (Budget, bool) {
	b := Budget{Limit: -1, Remaining: -1, At: now}
	var reset string
	take := func(to *int64, text string) {
		if n, ok := parseDigits(strings.TrimSpace(text)); ok {
			*to = n
		}
	}
	var window int64
	for field, to := range map[string]*int64{"Ratelimit-Limit": &b.Limit, "Ratelimit-Remaining": &b.Remaining} {
		first, _, _ := strings.Cut(h.Get(field), ",")
		number, params, _ := strings.Cut(first, ";")
		take(to, number)
		if field == "Ratelimit-Limit" {
			take(&window, param(params, "w"))
		}
	}
	reset = h.Get("Ratelimit-Reset")
	if _, isDate := parseWait(reset, now); !isDate { // a date has a comma of its own
		reset, _, _ = strings.Cut(reset, ",")
		reset, _, _ = strings.Cut(reset, ";")
	}
	all := h.Get("Ratelimit")
	if strings.HasPrefix(strings.TrimSpace(all), `"`) {
		first, _, _ := strings.Cut(all, ",")
		take(&b.Remaining, param(first, "r"))
		reset = orElse(param(first, "t"), reset)
		policy, _, _ := strings.Cut(h.Get("Ratelimit-Policy"), ",")
		take(&b.Limit, param(policy, "q"))
		take(&window, param(policy, "w"))
	} else {
		all = strings.ReplaceAll(all, ",", ";")
		take(&b.Limit, param(all, "limit"))
		take(&b.Remaining, param(all, "remaining"))
		reset = orElse(param(all, "reset"), reset)
	}
	if window < unixSeconds { // else it is a time, and no window
		b.Window = min(time.Duration(window)*time.Second, longestWindow)
	}
	if wait, ok := parseWait(reset, clockOf(h, now)); ok {
		b.Reset = now.Add(min(wait, longestWindow))
	}
	b.Source = sourceOf(h.Get("Docker-Ratelimit-Source"))
	return b, b.Remaining >= 0
}

// param is a parameter of a list of them.
func param(list, name string) string {
	for p := range strings.SplitSeq(list, ";") {
		if k, v, ok := strings.Cut(p, "="); ok && strings.EqualFold(strings.TrimSpace(k), name) {
			return v
		}
	}
	return ""
}

// sourceOf is an address. The identifier of an account, which Docker Hub sends to who logs in, is nobody's business.
func sourceOf(text string) string {
	a, err := netip.ParseAddr(strings.TrimSpace(text))
	if err != nil || a.Zone() != "" {
		return ""
	}
	return a.String()
}

// MoreAt is when there is more, as far as was said: else a little later than it was said.
func (b Budget) MoreAt() time.Time {
	switch {
	case !b.Reset.IsZero():
		return b.Reset
	case b.Window > 0:
		return b.At.Add(b.Window)
	}
	return b.At.Add(limitedFor)
}

// maxBudgets bounds what is kept of an endpoint: an address can change with each request.
const maxBudgets = 64

// A 429 that says nothing of its end is obeyed for so long, and for twice as long each time, while nothing else comes.
const (
	silentLimit   = time.Second
	longestSilent = time.Minute
)

// lookEvery is how often who has nothing left asks whether that is still so, of a registry that counts no HEAD. A window
// slides: the first of its requests are given back long before it is over.
const lookEvery = 5 * time.Minute

// longestBelief is how long a refusal is believed without a look: after it one request is made all the same, and another
// every lookEvery. What a registry says of its end may be wrong, or mean something else.
const longestBelief = time.Hour

// class is a kind of request that a registry may limit by itself: Docker Hub counts manifests by GET, and neither HEAD nor
// blobs.
type class struct {
	who    string // the credential; empty: nobody
	method string
	step   StepName
}

// costly reports whether it is what registries that say what is left count. Of others it is only known once they are
// refused.
func (c class) costly() bool { return c.method == http.MethodGet && c.step == StepManifest }

// budgets are what an endpoint has said last of its limits, by credential and source, the newest at the end; and what it
// has refused to give for a time.
type budgets struct {
	mu     sync.Mutex // guards what follows; a leaf
	list   []Budget
	paused map[class]pause
	looked map[string]time.Time // of each credential, when it was last asked whether there is more
	asking map[string]int       // of each credential, requests that count and have no answer yet
	books  map[string]*ledger   // of each credential, what was spent
	began  time.Time            // when the books were opened
	live   *budgets             // of an examination: those of the registry that pulls, which has the books; nil: these have
	ended  time.Time            // what was said before it keeps no request back any more; zero: all counts
}

// pause is how a class of requests was refused.
type pause struct {
	until time.Time
	said  refusal
	times int       // in a row, without a word of its end
	at    time.Time // of the refusal
	look  time.Time // when one request is made all the same
}

// pauseFrom makes a pause that begins now.
func pauseFrom(now time.Time, d time.Duration, said refusal, times int) pause {
	return pause{until: now.Add(d), said: said, times: times, at: now, look: now.Add(longestBelief)}
}

// learn takes in what an answer says to who has asked, and what it was spent on; empty: nothing that is counted. crossed: that
// nothing is left, or little, is news. What was said while the request was on its way is newer than its answer where it is
// less.
func (b *budgets) learn(h http.Header, credential, spentOn string, began time.Time) (news Budget, crossed bool) {
	news, ok := parseBudget(h, time.Now())
	if !ok {
		return news, false
	}
	news.Credential = credential
	if credential != "" {
		news.Source = ""
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if spentOn != "" {
		b.spend(credential, spentOn, news)
	}
	before := int64(-1)
	if i := slices.IndexFunc(b.list, func(old Budget) bool {
		return old.Credential == news.Credential && old.Source == news.Source
	}); i >= 0 {
		old := b.list[i]
		if before = old.Remaining; before < news.Remaining && !old.At.Before(began) {
			return old, false
		}
		b.list = slices.Delete(b.list, i, i+1)
	}
	if len(b.list) == maxBudgets {
		b.list = slices.Delete(b.list, 0, 1)
	}
	b.list = append(b.list, news)
	return news, before != news.Remaining && (news.Remaining == 0 || low(news.Limit, news.Remaining) && !low(news.Limit, before))
}

// low reports whether a tenth of a limit is left, or less.
func low(limit, left int64) bool { return limit > 0 && left >= 0 && left <= limit/10 }

// refused takes in a 429 and returns how long it is to be obeyed, and whether that was said.
func (b *budgets) refused(k class, r refusal) (d time.Duration, said bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now, was, retryAfter := time.Now(), b.paused[k], r.retryAfter
	if left, ok := b.binding(k.who); retryAfter == 0 && ok && k.costly() && left.Remaining == 0 {
		retryAfter = max(left.MoreAt().Sub(now), 0)
	}
	if b.paused == nil || len(b.paused) >= maxIdentities {
		b.paused = make(map[class]pause)
	}
	if retryAfter > 0 {
		b.paused[k] = pauseFrom(now, retryAfter, r, 0)
		return retryAfter, true
	}
	// Those that were asked at the same time and come back with the same are one time.
	if now.Before(was.until) {
		return was.until.Sub(now), false
	}
	p := pauseFrom(now, min(silentLimit<<min(was.times, 10), longestSilent), r, was.times+1)
	b.paused[k] = p
	return p.until.Sub(now), false
}

// given takes in that a request of a class that began at a time was not refused. One that was under way when the class was
// refused says nothing; a later one was a look.
func (b *budgets) given(k class, began time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if p, ok := b.paused[k]; ok && (!time.Now().Before(p.until) || began.After(p.at)) {
		delete(b.paused, k)
	}
	// What was said long ago, and is not said any more, was wrong.
	if left, ok := b.binding(k.who); ok && k.costly() && began.Sub(left.At) >= longestBelief {
		b.list = slices.DeleteFunc(b.list, func(old Budget) bool { return old.Credential == k.who && !old.At.After(left.At) })
	}
}

// reset ends what is believed of limits: the registry is asked again by credentials that were refused or had nothing
// left.
func (b *budgets) reset() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.paused, b.looked, b.ended = nil, nil, time.Now()
}

// looks reports whether it is time to ask whether a credential that was said to have nothing left has some again. Of those
// who ask that only the first has to do so.
func (b *budgets) looks(k class) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	left, ok := b.binding(k.who)
	if !ok || !k.costly() || now.Before(b.paused[k].until) || now.Sub(left.At) < lookEvery ||
		now.Sub(b.looked[k.who]) < lookEvery {
		return false
	}
	b.hasLooked(k.who, now)
	return true
}

func (b *budgets) hasLooked(who string, now time.Time) {
	if b.looked == nil || len(b.looked) >= maxIdentities {
		b.looked = make(map[string]time.Time)
	}
	b.looked[who] = now
}

// take makes a request part of what is left, until done: its answer was taken in. spent: who asks has nothing left for it,
// until when and what was said of it is p. Of what is left, requests on their way and the part reserve of the limit do not
// count.
func (b *budgets) take(k class, reserve float64) (p pause, spent bool, done func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if p, spent = b.stops(k, reserve); spent && b.mayLook(k, p) {
		spent = false
	}
	if spent || !k.costly() {
		return p, spent, func() {}
	}
	if b.asking == nil {
		b.asking = make(map[string]int)
	}
	b.asking[k.who]++
	return p, false, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.asking[k.who]--; b.asking[k.who] == 0 {
			delete(b.asking, k.who)
		}
	}
}

// mayLook reports whether a class that is stopped by p has been believed for so long that one request is made all the same,
// and makes that one this. The lock is held.
func (b *budgets) mayLook(k class, p pause) bool {
	now := time.Now()
	if now.Before(p.look) {
		return false
	}
	if own, ok := b.paused[k]; ok && own.until.Equal(p.until) {
		own.look = now.Add(lookEvery)
		b.paused[k] = own
		return true
	}
	if now.Sub(b.looked[k.who]) < lookEvery {
		return false
	}
	b.hasLooked(k.who, now)
	return true
}

// spent reports whether there is nothing left for a class.
func (b *budgets) spent(k class, reserve float64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, spent := b.stops(k, reserve)
	return spent
}

// stops is what take decides. The lock is held.
func (b *budgets) stops(k class, reserve float64) (pause, bool) {
	now := time.Now()
	if p := b.paused[k]; now.Before(p.until) {
		return p, true
	}
	left, ok := b.binding(k.who)
	if ok && k.costly() && left.Remaining-int64(b.asking[k.who]) <= int64(reserve*float64(max(left.Limit, 0))) {
		p := pause{
			until: left.MoreAt(), said: refusal{status: http.StatusTooManyRequests, size: -1},
			at: left.At, look: left.At.Add(longestBelief),
		}
		return p, now.Before(p.until)
	}
	return pause{}, false
}

// left is what a credential was last said to have left; more than any where nothing is known, or what is known is over.
func (b *budgets) left(credential string) int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	if l, ok := b.binding(credential); ok && time.Now().Before(l.MoreAt()) {
		return l.Remaining
	}
	return math.MaxInt64
}

// book is what a credential has spent. The lock is held.
func (b *budgets) book(credential string) *ledger {
	if b.books[credential] == nil {
		if b.books == nil || len(b.books) >= maxIdentities {
			b.books = make(map[string]*ledger)
		}
		b.books[credential] = new(ledger)
	}
	return b.books[credential]
}

// spend enters what a credential has spent. The lock is held.
func (b *budgets) spend(credential, on string, said Budget) {
	if b.live != nil { // its lock is taken under ours, and never the other way round
		b.live.mu.Lock()
		defer b.live.mu.Unlock()
		b = b.live
	}
	b.book(credential).spend(on, said.Window, said.At)
}

// spentOf says how much of a budget the mirror has spent, and how much others. An examination without a mirror, whose registry
// has just been made, can't say that. The lock is held.
func (b *budgets) spentOf(l Budget) Spent {
	if b.live == nil {
		return b.book(l.Credential).spent(l, b.began)
	}
	b.live.mu.Lock()
	defer b.live.mu.Unlock()
	s := b.live.book(l.Credential).spent(l, b.live.began)
	if l.At.Sub(b.live.began) < examinationTime && s.Requests <= 1 { // its own
		return Spent{}
	}
	return s
}

// examinationTime is how long a registry must have been in use to tell what the mirror spends of its limit.
const examinationTime = time.Minute

// of is the newest budget of a credential, with what the mirror has spent of it.
func (b *budgets) of(credential string) (Budget, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	l, ok := b.last(credential)
	if ok {
		l.Spent = b.spentOf(l)
	}
	return l, ok
}

// binding is last, where that still keeps requests back.
func (b *budgets) binding(credential string) (Budget, bool) {
	l, ok := b.last(credential)
	return l, ok && (b.ended.IsZero() || l.At.After(b.ended))
}

// last is of with the lock held.
func (b *budgets) last(credential string) (Budget, bool) {
	for _, x := range slices.Backward(b.list) {
		if x.Credential == credential {
			return x, true
		}
	}
	return Budget{}, false
}

// all are the budgets that are known, the newest of each credential with who has spent it.
func (b *budgets) all() []Budget {
	b.mu.Lock()
	defer b.mu.Unlock()
	list := slices.Clone(b.list)
	told := make(map[string]bool)
	for i := range slices.Backward(list) {
		if l := &list[i]; !told[l.Credential] {
			told[l.Credential] = true
			l.Spent = b.spentOf(*l)
		}
	}
	return list
}
