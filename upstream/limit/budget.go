package limit

import (
	"cmp"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// Budget is what a registry has said is left of a limit of requests.
type Budget struct {
	Credential string        // name of the credential that is counted; empty: anonymous requests
	Source     string        // the address, or /64 of addresses, that is counted; empty: not said, or not counted by address
	Limit      int64         // requests in a window; -1: not said
	Remaining  int64         // requests that were left when it was said
	Window     time.Duration // 0: not said
	Reset      time.Time     // when there is more; zero: not said
	At         time.Time     // when it was said
	Spent      Spent         // what used it up; zero where a newer Budget of the same credential has it
}

// longestWindow bounds the times that are believed.
const longestWindow = 31 * 24 * time.Hour

// ParseBudget reads the headers of the drafts of draft-ietf-httpapi-ratelimit-headers, and Docker Hub's, which are like
// the early drafts with a window at each number. False: the answer does not say what is left.
//
//	RateLimit-Limit: 100;w=21600   RateLimit-Remaining: 20;w=21600   RateLimit-Reset: 50
//	RateLimit: limit=100, remaining=20, reset=50
//	RateLimit-Policy: "a";q=100;w=60   RateLimit: "a";r=20;t=50
func ParseBudget(h http.Header, now time.Time) (Budget, bool) {
	b := Budget{Limit: -1, Remaining: -1, At: now}
	var window int64
	number, params, _ := strings.Cut(firstItem(h.Get("Ratelimit-Limit")), ";")
	readNumber(&b.Limit, number)
	readNumber(&window, param(params, "w"))
	number, _, _ = strings.Cut(firstItem(h.Get("Ratelimit-Remaining")), ";")
	readNumber(&b.Remaining, number)
	reset := h.Get("Ratelimit-Reset")
	if _, isDate := parseWait(reset, now); !isDate { // a date has a comma of its own
		reset, _, _ = strings.Cut(firstItem(reset), ";")
	}
	combined := h.Get("Ratelimit")
	if strings.HasPrefix(strings.TrimSpace(combined), `"`) {
		item := firstItem(combined)
		readNumber(&b.Remaining, param(item, "r"))
		reset = cmp.Or(param(item, "t"), reset)
		policy := firstItem(h.Get("Ratelimit-Policy"))
		readNumber(&b.Limit, param(policy, "q"))
		readNumber(&window, param(policy, "w"))
	} else {
		combined = strings.ReplaceAll(combined, ",", ";")
		readNumber(&b.Limit, param(combined, "limit"))
		readNumber(&b.Remaining, param(combined, "remaining"))
		reset = cmp.Or(param(combined, "reset"), reset)
	}
	if window < unixSeconds { // a larger number is a time, not a window
		b.Window = min(time.Duration(window)*time.Second, longestWindow)
	}
	if wait, ok := parseWait(reset, ServerTime(h, now)); ok {
		b.Reset = now.Add(min(wait, longestWindow))
	}
	b.Source = parseSource(h.Get("Docker-Ratelimit-Source"))
	return b, b.Remaining >= 0
}

// firstItem is the first element of a comma-separated list: of several limits the first one is used.
func firstItem(list string) string {
	first, _, _ := strings.Cut(list, ",")
	return first
}

// readNumber stores the number in a text, and leaves the old value where the text is not a number.
func readNumber(to *int64, text string) {
	if n, err := strconv.ParseUint(strings.TrimSpace(text), 10, 63); err == nil {
		*to = int64(n)
	}
}

// param is the value of a parameter in a list separated by semicolons; empty: it is not in the list.
func param(list, name string) string {
	for p := range strings.SplitSeq(list, ";") {
		if k, v, ok := strings.Cut(p, "="); ok && strings.EqualFold(strings.TrimSpace(k), name) {
			return v
		}
	}
	return ""
}

// parseSource reads an address. Docker Hub sends the identifier of an account to a request with a login: that is private,
// and not kept.
func parseSource(text string) string {
	a, err := netip.ParseAddr(strings.TrimSpace(text))
	if err != nil || a.Zone() != "" {
		return ""
	}
	return a.String()
}

// MoreAt is when there is more, as far as the registry said it: else a little after At.
func (b Budget) MoreAt() time.Time {
	switch {
	case !b.Reset.IsZero():
		return b.Reset
	case b.Window > 0:
		return b.At.Add(b.Window)
	}
	return b.At.Add(DefaultPause)
}

func isLow(limit, left int64) bool { return limit > 0 && left >= 0 && left <= limit/10 }
