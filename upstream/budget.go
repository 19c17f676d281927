package upstream

import (
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
	var reset int64 = -1
	take := func(to *int64, text string) {
		if n, ok := parseDigits(strings.TrimSpace(text)); ok {
			*to = n
		}
	}
	var window int64
	for field, to := range map[string]*int64{
		"Ratelimit-Limit": &b.Limit, "Ratelimit-Remaining": &b.Remaining, "Ratelimit-Reset": &reset,
	} {
		first, _, _ := strings.Cut(h.Get(field), ",")
		number, params, _ := strings.Cut(first, ";")
		take(to, number)
		if field == "Ratelimit-Limit" {
			take(&window, param(params, "w"))
		}
	}
	all := h.Get("Ratelimit")
	if strings.HasPrefix(strings.TrimSpace(all), `"`) {
		first, _, _ := strings.Cut(all, ",")
		take(&b.Remaining, param(first, "r"))
		take(&reset, param(first, "t"))
		policy, _, _ := strings.Cut(h.Get("Ratelimit-Policy"), ",")
		take(&b.Limit, param(policy, "q"))
		take(&window, param(policy, "w"))
	} else {
		all = strings.ReplaceAll(all, ",", ";")
		take(&b.Limit, param(all, "limit"))
		take(&b.Remaining, param(all, "remaining"))
		take(&reset, param(all, "reset"))
	}
	b.Window = seconds(window)
	if reset >= 0 {
		b.Reset = now.Add(seconds(reset))
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

func seconds(n int64) time.Duration {
	return time.Duration(min(n, int64(longestWindow/time.Second))) * time.Second
}

// sourceOf is an address. The identifier of an account, which Docker Hub sends to who logs in, is nobody's business.
func sourceOf(text string) string {
	a, err := netip.ParseAddr(strings.TrimSpace(text))
	if err != nil || a.Zone() != "" {
		return ""
	}
	return a.String()
}

// maxBudgets bounds what is kept of an endpoint: an address can change with each request.
const maxBudgets = 64

// budgets are what an endpoint has said last, by credential and source, the newest at the end.
type budgets struct {
	mu   sync.Mutex // guards list; a leaf
	list []Budget
}

// learn takes in what an answer says to who has asked.
func (b *budgets) learn(h http.Header, credential string) {
	news, ok := parseBudget(h, time.Now())
	if !ok {
		return
	}
	news.Credential = credential
	if credential != "" {
		news.Source = ""
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.list = slices.DeleteFunc(b.list, func(old Budget) bool {
		return old.Credential == news.Credential && old.Source == news.Source
	})
	if len(b.list) == maxBudgets {
		b.list = slices.Delete(b.list, 0, 1)
	}
	b.list = append(b.list, news)
}

func (b *budgets) all() []Budget {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.list)
}
