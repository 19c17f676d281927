package admin

import (
	"cmp"
	"encoding/base64"
	"fmt"
	"net/url"
	"slices"
	"strconv"
)

// page is the part of a list that a query asks for, by limit and continue.
type page struct {
	limit int
	after string // the key of the last element before it; empty: it is the first
}

// pageOf takes limit and continue out of a query. A mistake is an error that says what is allowed.
func pageOf(q url.Values) (p page, err error) {
	p.limit = pageMost
	if q.Has("limit") {
		if p.limit, err = limitOf(q.Get("limit")); err != nil {
			return p, err
		}
	}
	if q.Has("continue") {
		b, err := base64.RawURLEncoding.DecodeString(q.Get("continue"))
		if err != nil || len(b) == 0 {
			return p, fmt.Errorf("continue=%s: it is what the answer before has; ask without it", q.Get("continue"))
		}
		p.after = string(b)
	}
	q.Del("limit")
	q.Del("continue")
	return p, nil
}

// limitOf reads how many elements a page has at most.
func limitOf(v string) (int, error) {
	n, err := strconv.Atoi(v)
	if err != nil || n < 1 || n > pageMost {
		return 0, fmt.Errorf("limit=%s: it is a number from 1 to %d", v, pageMost)
	}
	return n, nil
}

// cut sorts a list by its keys, which are unique, and returns the page of it, and what gets the next one; empty: there is none.
func cut[T any](p page, list []T, key func(T) string) (part []T, next string) {
	slices.SortFunc(list, func(a, b T) int { return cmp.Compare(key(a), key(b)) })
	if p.after != "" {
		i, found := slices.BinarySearchFunc(list, p.after, func(x T, k string) int { return cmp.Compare(key(x), k) })
		if found {
			i++
		}
		list = list[i:]
	}
	if len(list) > p.limit {
		list = list[:p.limit]
		next = base64.RawURLEncoding.EncodeToString([]byte(key(list[p.limit-1])))
	}
	return list, next
}
