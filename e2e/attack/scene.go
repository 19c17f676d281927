package main

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// scene is one attack.
type scene struct {
	line    int    // of the list in docs/reliability.md
	name    string // after the number, in words with hyphens
	short   bool   // takes seconds: part of every end-to-end run
	timed   bool   // its figures are memory or time: not with the race detector
	earlier bool   // needs a binary of an earlier version
	limit   time.Duration
	play    playFunc
}

func (x scene) title() string { return fmt.Sprintf("%02d %s", x.line, x.name) }

// scenes are all of them, in order of their lines.
func scenes() []scene {
	list := slices.Concat(privateScenes(), publicScenes(), cacheScenes(), memoryScenes(), stateScenes(), growthScenes(),
		queueScenes(), journalScenes(), fileScenes(), leaseScenes(), publisherScenes(), edgeScenes(), clockScenes(),
		addressScenes(), crowdScenes(), injectionScenes())
	slices.SortStableFunc(list, func(a, b scene) int { return cmp.Compare(a.line, b.line) })
	return list
}

// figure is one result against its bound.
type figure struct {
	Scene string `json:"scene"`
	What  string `json:"what"`
	Got   string `json:"got"`
	Bound string `json:"bound"`
	OK    bool   `json:"ok"`
}

// equal holds a figure to one value.
func (s *stage) equal(what string, got, want any) {
	g, w := fmt.Sprint(got), fmt.Sprint(want)
	s.add(figure{What: what, Got: g, Bound: w, OK: g == w})
}

// atMost holds a number to an upper bound.
func (s *stage) atMost(what string, got, bound float64, unit string) {
	s.add(figure{What: what, Got: number(got, unit), Bound: "at most " + number(bound, unit), OK: got <= bound})
}

// atLeast holds a number to a lower bound.
func (s *stage) atLeast(what string, got, bound float64, unit string) {
	s.add(figure{What: what, Got: number(got, unit), Bound: "at least " + number(bound, unit), OK: got >= bound})
}

// ends is how long something may take with the race detector, beside other scenes and whatever else the machine does: a
// time then says no more than that there is an end.
const ends = 30 * time.Second

// within holds a duration to an upper bound.
func (s *stage) within(what string, got, bound time.Duration) {
	if s.raced {
		bound = max(bound, ends)
	}
	s.atMost(what, got.Seconds(), bound.Seconds(), "s")
}

// holds states that something is so; got says how it is.
func (s *stage) holds(what string, ok bool, got any) {
	s.add(figure{What: what, Got: fmt.Sprint(got), Bound: "holds", OK: ok})
}

func (s *stage) add(f figure) {
	f.Scene = s.title
	s.figures = append(s.figures, f)
}

func number(v float64, unit string) string {
	text := fmt.Sprintf("%.2f", v)
	if v == float64(int64(v)) {
		text = fmt.Sprintf("%d", int64(v))
	}
	if unit == "" {
		return text
	}
	return text + " " + unit
}
