package limit

import (
	"math"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/registrymirror/mirror/internal/backoff"
	"github.com/registrymirror/mirror/internal/bounded"
)

const (
	// DefaultPause is how long a limit is obeyed whose end was not named.
	DefaultPause = time.Minute
	// ShortestPause is how long the first 429 that names no end is obeyed.
	ShortestPause = time.Second
	// recheckEvery is how often an exhausted limit is checked again by HEAD, at a registry that does not count HEADs. A
	// window slides: the first of its requests are given back long before it is over.
	recheckEvery = 5 * time.Minute
	// LongestTrust is how long a refusal is believed: after it one request is made in spite of it, and another one every
	// recheckEvery. The end that a registry named may be wrong, or mean something else.
	LongestTrust = time.Hour

	maxBudgets     = 64   // of one endpoint: the counted address may change with each request
	maxCredentials = 1024 // that are remembered
)

// unstatedPause is how long 429s in a row that name no end are obeyed.
var unstatedPause = backoff.Backoff{First: ShortestPause, Most: time.Minute}

// Class is a kind of request that a registry may limit by itself: Docker Hub counts manifests by GET, and neither HEADs
// nor blobs.
type Class struct {
	Credential string // its name; empty: anonymous
	Method     string
	Target     string // such as TargetManifest
}

// TargetManifest is the Target of requests for manifests.
const TargetManifest = "manifest"

// Counted reports whether a request of the class counts at registries that say what is left. What other registries count
// shows by their refusals alone.
func (k Class) Counted() bool { return k.Method == http.MethodGet && k.Target == TargetManifest }

// Pause is a time for which requests of a class are not made.
type Pause struct {
	Until time.Time
	Cause error // the refusal that began it; nil: the registry said before that nothing is left
	// Reserved says that something is left, which the request has to leave to others.
	Reserved bool

	at        time.Time // when it began
	recheckAt time.Time // when one request is made in spite of it
	unstated  int       // refusals in a row that did not name an end
}

// Limits are the limits of one endpoint: what it said last, by credential and counted address, and what it has refused for
// a time. It is safe for concurrent use.
type Limits struct {
	spending *Spending
	borrowed bool // spending is that of another Limits

	mu        sync.Mutex           // guards the following fields; taken before the lock of spending
	budgets   []Budget             // the newest at the end
	pauses    map[Class]Pause      // refused classes
	rechecked map[string]time.Time // by credential: when it was last checked whether there is more
	underWay  map[string]int       // by credential: counted requests without an answer
	forgotten time.Time            // budgets from before it hold back no request; zero: all do
}

// New makes the limits of an endpoint that has said nothing yet. Spending is where the requests are counted; nil: its own.
func New(spending *Spending) *Limits {
	l := &Limits{spending: spending, borrowed: spending != nil}
	if spending == nil {
		l.spending = &Spending{began: time.Now()}
	}
	return l
}

// Spending is what was spent of the limits.
func (l *Limits) Spending() *Spending { return l.spending }

// Learn reads the headers of an answer to a request that began at a time. Repository is what the request counts for; empty:
// it did not count. Crossed reports that the limit has just become exhausted or nearly so. Of answers that overtook each
// other the one with less left is kept.
func (l *Limits) Learn(h http.Header, credential, repository string, began time.Time) (b Budget, crossed bool) {
	b, ok := ParseBudget(h, time.Now())
	if !ok {
		return b, false
	}
	b.Credential = credential
	if credential != "" {
		b.Source = ""
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if repository != "" {
		l.spending.add(repository, b)
	}
	before := int64(-1)
	same := func(old Budget) bool { return old.Credential == b.Credential && old.Source == b.Source }
	if i := slices.IndexFunc(l.budgets, same); i >= 0 {
		old := l.budgets[i]
		if before = old.Remaining; before < b.Remaining && !old.At.Before(began) {
			return old, false
		}
		l.budgets = slices.Delete(l.budgets, i, i+1)
	}
	if len(l.budgets) == maxBudgets {
		l.budgets = slices.Delete(l.budgets, 0, 1)
	}
	l.budgets = append(l.budgets, b)
	crossed = before != b.Remaining && (b.Remaining == 0 || isLow(b.Limit, b.Remaining) && !isLow(b.Limit, before))
	return b, crossed
}

// Refused records a 429: its Retry-After, 0 for none, and the error that later requests of the class are refused with. It
// returns how long the class pauses, and whether the registry named that time.
func (l *Limits) Refused(k Class, retryAfter time.Duration, cause error) (wait time.Duration, stated bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now, old := time.Now(), l.pauses[k]
	if b, ok := l.binding(k.Credential); retryAfter == 0 && ok && k.Counted() && b.Remaining == 0 {
		retryAfter = max(b.MoreAt().Sub(now), 0)
	}
	wait, unstated := retryAfter, 0
	switch {
	case wait > 0:
	case now.Before(old.Until): // refusals of requests that were under way together count as one
		return old.Until.Sub(now), false
	default:
		unstated = old.unstated + 1
		wait = unstatedPause.After(unstated)
	}
	p := Pause{Until: now.Add(wait), Cause: cause, at: now, recheckAt: now.Add(LongestTrust), unstated: unstated}
	bounded.Put(&l.pauses, k, p, maxCredentials)
	return wait, unstated == 0
}

// Accepted records that a request of a class, which began at a time, was not refused. One that was under way when the class
// was refused proves nothing; a later one was made to check.
func (l *Limits) Accepted(k Class, began time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if p, ok := l.pauses[k]; ok && (!time.Now().Before(p.Until) || began.After(p.at)) {
		delete(l.pauses, k)
	}
	// A budget that was said long ago, and is not said any more, was wrong.
	if b, ok := l.binding(k.Credential); ok && k.Counted() && began.Sub(b.At) >= LongestTrust {
		l.budgets = slices.DeleteFunc(l.budgets, func(old Budget) bool {
			return old.Credential == k.Credential && !old.At.After(b.At)
		})
	}
}

// Reset makes the endpoint be asked again with credentials that were refused or had nothing left. Of and All still show
// what was said.
func (l *Limits) Reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pauses, l.rechecked, l.forgotten = nil, nil, time.Now()
}

// RecheckDue reports whether a HEAD should ask if an exhausted credential has something left again. It returns true to one
// caller only in each recheckEvery.
func (l *Limits) RecheckDue(k Class) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	b, ok := l.binding(k.Credential)
	if !ok || !k.Counted() || now.Before(l.pauses[k].Until) || now.Sub(b.At) < recheckEvery {
		return false
	}
	return l.recheck(k.Credential, now)
}

// recheck reports whether the last check of a credential was long ago, and records this one. The lock is held.
func (l *Limits) recheck(credential string, now time.Time) bool {
	if now.Sub(l.rechecked[credential]) < recheckEvery {
		return false
	}
	bounded.Put(&l.rechecked, credential, now, maxCredentials)
	return true
}

// Admit decides whether a request may be made. If so, it takes the request off what is left until done is called, which
// must be once the answer was recorded. If not, p is the pause. Reserve is the part of the limit, 0 to 1, that the request
// leaves alone.
func (l *Limits) Admit(k Class, reserve float64) (p Pause, ok bool, done func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p, paused := l.paused(k, reserve)
	if paused && !l.overrules(k, p) {
		return p, false, func() {}
	}
	if !k.Counted() {
		return p, true, func() {}
	}
	if l.underWay == nil {
		l.underWay = make(map[string]int)
	}
	l.underWay[k.Credential]++
	return p, true, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.underWay[k.Credential]--; l.underWay[k.Credential] == 0 {
			delete(l.underWay, k.Credential)
		}
	}
}

// overrules reports whether a pause has been believed for so long that one request is made in spite of it, and records that
// this is the one. The lock is held.
func (l *Limits) overrules(k Class, p Pause) bool {
	now := time.Now()
	if now.Before(p.recheckAt) {
		return false
	}
	if own, ok := l.pauses[k]; ok && own.Until.Equal(p.Until) {
		own.recheckAt = now.Add(recheckEvery)
		l.pauses[k] = own
		return true
	}
	return l.recheck(k.Credential, now)
}

// Exhausted reports whether nothing is left for a class.
func (l *Limits) Exhausted(k Class, reserve float64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, paused := l.paused(k, reserve)
	return paused
}

// paused is the pause of a class, if there is one. The lock is held.
func (l *Limits) paused(k Class, reserve float64) (Pause, bool) {
	now := time.Now()
	if p := l.pauses[k]; now.Before(p.Until) {
		return p, true
	}
	b, ok := l.binding(k.Credential)
	left := b.Remaining - int64(l.underWay[k.Credential])
	if !ok || !k.Counted() || left > reserved(b, reserve) {
		return Pause{}, false
	}
	p := Pause{Until: b.MoreAt(), Reserved: left > 0, at: b.At, recheckAt: b.At.Add(LongestTrust)}
	return p, now.Before(p.Until)
}

// reserved is how many requests of a budget are left to others.
func reserved(b Budget, reserve float64) int64 { return int64(reserve * float64(max(b.Limit, 0))) }

// Spare is what all credentials together may still use if they leave a part of each limit, 0 to 1, to others: the sum of their limits
// and of what is left, and when the last of them has more. A limit whose window is over counts as full. False: nothing is known.
func (l *Limits) Spare(reserve float64) (limit, left int64, resetAt time.Time, known bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	seen := make(map[string]bool)
	for _, b := range slices.Backward(l.budgets) {
		if seen[b.Credential] || b.Limit < 0 {
			continue
		}
		seen[b.Credential], known = true, true
		limit += b.Limit
		if at := b.MoreAt(); !now.Before(at) {
			b.Remaining = b.Limit
		} else if at.After(resetAt) {
			resetAt = at
		}
		left += max(0, b.Remaining-reserved(b, reserve))
	}
	return limit, left, resetAt, known
}

// Left is what a credential was last said to have left; math.MaxInt64 where that is not known or has expired.
func (l *Limits) Left(credential string) int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	if b, ok := l.binding(credential); ok && time.Now().Before(b.MoreAt()) {
		return b.Remaining
	}
	return math.MaxInt64
}

// Of is the newest budget of a credential, with what was spent of it.
func (l *Limits) Of(credential string) (Budget, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b, ok := l.newest(credential)
	if ok {
		b.Spent = l.spending.of(b, l.borrowed)
	}
	return b, ok
}

// All are the known budgets, the newest last. The newest one of each credential has what was spent.
func (l *Limits) All() []Budget {
	l.mu.Lock()
	defer l.mu.Unlock()
	list := slices.Clone(l.budgets)
	done := make(map[string]bool)
	for i := range slices.Backward(list) {
		if b := &list[i]; !done[b.Credential] {
			done[b.Credential] = true
			b.Spent = l.spending.of(*b, l.borrowed)
		}
	}
	return list
}

// binding is the newest budget of a credential, if it still holds requests back. The lock is held.
func (l *Limits) binding(credential string) (Budget, bool) {
	b, ok := l.newest(credential)
	return b, ok && (l.forgotten.IsZero() || b.At.After(l.forgotten))
}

// newest is the newest budget of a credential. The lock is held.
func (l *Limits) newest(credential string) (Budget, bool) {
	for _, b := range slices.Backward(l.budgets) {
		if b.Credential == credential {
			return b, true
		}
	}
	return Budget{}, false
}
