package admin

import (
	"cmp"
	"encoding/base64"
	"fmt"
	"math"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/registrymirror/mirror/internal/bounded"
)

const maxPage = 1000 // elements

// page is the part of a list that a query asks for, by limit and continue. All lists of the API have it.
type page struct {
	limit int
	after string // the key of the last element before the page; empty: it is the first page
}

// pageOf reads limit and continue of a query; limit is the default. The query may have the other parameters that are named.
// The error says what is allowed.
func pageOf(q url.Values, limit int, others ...string) (p page, err error) {
	for name := range q {
		if name != "limit" && name != "continue" && !slices.Contains(others, name) {
			return p, fmt.Errorf("unknown parameter %q; the parameters are %s and continue", name, strings.Join(append(others, "limit"), ", "))
		}
	}
	p.limit = limit
	if q.Has("limit") {
		n, err := strconv.Atoi(q.Get("limit"))
		if err != nil || n < 1 || n > maxPage {
			return p, fmt.Errorf("limit=%s: must be a number from 1 to %d", q.Get("limit"), maxPage)
		}
		p.limit = n
	}
	if q.Has("continue") {
		b, err := base64.RawURLEncoding.DecodeString(q.Get("continue"))
		if err != nil || len(b) == 0 {
			return p, fmt.Errorf("continue=%s: must be the continue of an earlier answer; ask without it", q.Get("continue"))
		}
		p.after = string(b)
	}
	return p, nil
}

// flag reads a parameter that is true or false; absent: false.
func flag(q url.Values, name string) (bool, error) {
	if !q.Has(name) {
		return false, nil
	}
	v, err := strconv.ParseBool(q.Get(name))
	if err != nil {
		return false, fmt.Errorf("%s=%s: must be true or false", name, q.Get(name))
	}
	return v, nil
}

// rememberedFor is how long a list that is costly to make serves its further pages.
const rememberedFor = 10 * time.Second

// remembered is what the pages of a list are made of. The first page makes it anew.
type remembered[T any] struct {
	last bounded.Expiring[struct{}, T] // one value
}

func (m *remembered[T]) get(p page, read func() (T, error)) (T, error) {
	if p.after != "" {
		if value, ok := m.last.Get(struct{}{}); ok {
			return value, nil
		}
	}
	value, err := read()
	if err == nil {
		m.last.Put(struct{}{}, value, rememberedFor, 1)
	}
	return value, err
}

// cut sorts a list by its keys, which are unique, and returns the page of it, and the continue of the next page; empty:
// there is none. key is called once for each element, in order.
func cut[T any](p page, list []T, key func(T) string) (part []T, next string) {
	type element struct {
		key  string
		item T
	}
	var rest []element
	for _, x := range list {
		if k := key(x); k > p.after {
			rest = append(rest, element{k, x})
		}
	}
	slices.SortFunc(rest, func(a, b element) int { return cmp.Compare(a.key, b.key) })
	if len(rest) > p.limit {
		rest = rest[:p.limit]
		next = continues(rest[p.limit-1].key)
	}
	part = make([]T, len(rest)) // never nil: it is a list in JSON
	for i, e := range rest {
		part[i] = e.item
	}
	return part, next
}

// continues is the parameter for the page after the element with a key.
func continues(key string) string { return base64.RawURLEncoding.EncodeToString([]byte(key)) }

// latestFirst is a key by which a list is sorted with the latest time in front. rest tells elements of the same time apart.
func latestFirst(at time.Time, rest string) string {
	return fmt.Sprintf("%020d %s", math.MaxInt64-at.UnixNano(), rest)
}
