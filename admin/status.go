package admin

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/registrymirror/mirror/catalog"
	"github.com/registrymirror/mirror/journal"
	"github.com/registrymirror/mirror/warm"
)

// lately is the time over which a status counts failures.
const lately = time.Hour

// About describes the process of a mirror.
type About struct {
	Version   string    `json:"version"`
	GoVersion string    `json:"goVersion"`
	StartedAt time.Time `json:"startedAt"`
	Config    Config    `json:"config"`
}

// Config is the configuration in use. Unknown values are absent.
type Config struct {
	File      string    `json:"file,omitempty"`      // absent: the mirror runs without a file
	TakenAt   time.Time `json:"takenAt"`             // when it was last read and put into use
	LastError string    `json:"lastError,omitempty"` // why the last reload was refused; absent: it was accepted
	Restart   []string  `json:"restart,omitempty"`   // settings whose change needs a restart
}

// Status is the body of GET /api/v1/status: what is not well, and counts of the rest.
type Status struct {
	About
	Uptime      string             `json:"uptime"`
	Ready       bool               `json:"ready"`
	Upstreams   int                `json:"upstreams"`       // count
	Endpoints   []StatusEndpoint   `json:"endpoints"`       // those that are degraded or open
	Credentials []StatusCredential `json:"credentials"`     // those that are neither ok nor unknown
	Pulls       *int               `json:"pulls,omitempty"` // running
	Cache       *Cache             `json:"cache,omitempty"`
	Failures    *StatusFailures    `json:"failures,omitempty"`
	Pins        *StatusPins        `json:"pins,omitempty"`      // absent: there is no pin
	Held        *StatusHeld        `json:"held,omitempty"`      // tags that minAge holds back; absent: none
	Immutable   *StatusHeld        `json:"immutable,omitempty"` // immutable tags that have moved at their registries; absent: none
	Warm        *StatusWarm        `json:"warm,omitempty"`      // absent: there is neither a schedule nor a job of the last day
}

// StatusWarm counts the jobs of warm-up, and has the next time of each schedule.
type StatusWarm struct {
	Running   int        `json:"running"` // those that wait for their turn, too
	Failed    int        `json:"failed"`  // in the last day
	Newest    []string   `json:"newest"`  // the ids of at most five of those, the last one first
	Schedules []Schedule `json:"schedules"`
}

// Schedule begins jobs of warm-up, at times or when a tag moves.
type Schedule struct {
	Name string    `json:"name"`
	Next time.Time `json:"next,omitzero"` // when it begins its next job; absent: when a tag moves
}

// StatusPins counts the pins.
type StatusPins struct {
	Count  int   `json:"count"`
	Ending []Pin `json:"ending"` // those that end within a day, at most five of them, the first to end first
}

// StatusHeld counts tags in use that pulls get with another digest than the registry's, as of the last look at them, at most five
// minutes ago.
type StatusHeld struct {
	Count  int      `json:"count"`
	Newest []string `json:"newest"` // at most five of these images, the one whose tag moved last first
}

// HeldTag is a tag in use that pulls get with another digest than its registry's.
type HeldTag struct {
	Image     string
	Immutable bool      // it must not move, and has moved; else minAge holds the new digest back
	Since     time.Time // when the mirror first saw the new digest
}

// newestMost is how many of a kind a status names.
const newestMost = 5

// StatusEndpoint is an endpoint with its upstream.
type StatusEndpoint struct {
	Upstream string `json:"upstream"`
	Endpoint
}

// StatusCredential is a credential with its upstream.
type StatusCredential struct {
	Upstream string `json:"upstream"`
	Credential
}

// StatusFailures counts the failures of the last hour, each once, however many pulls met it.
type StatusFailures struct {
	Since    time.Time        `json:"since"`
	Classes  map[string]int64 `json:"classes"`
	Declined int              `json:"declined"` // images whose pulls were left to the nodes
}

// status answers with the state of the mirror.
func (o Options) status(_ http.ResponseWriter, r *http.Request) (any, error) {
	s := Status{About: o.About(), Ready: o.Ready == nil || o.Ready() == nil}
	s.Uptime = time.Since(s.StartedAt).Round(time.Second).String()
	s.Endpoints, s.Credentials = []StatusEndpoint{}, []StatusCredential{}
	if o.Upstreams != nil {
		s.addUnwell(o.Upstreams())
	}
	if o.Cache != nil {
		c := o.Cache()
		s.Cache = &c
	}
	if o.Pulls != nil {
		ctx, cancel := context.WithTimeout(r.Context(), journalPatience)
		defer cancel()
		if list, err := o.Pulls(ctx, true); err == nil { // without it the rest is still worth showing
			n := len(list)
			s.Pulls = &n
		}
	}
	if o.Tags != nil {
		s.Pins = viewPins(o.Tags.Pins(time.Now()), time.Now())
	}
	if o.Held != nil {
		list := o.Held()
		s.Held, s.Immutable = viewHeld(list, false), viewHeld(list, true)
	}
	if o.Warm != nil {
		s.Warm = o.viewWarm(time.Now())
	}
	if o.Failures != nil {
		s.Failures = failuresSince(o.Failures, time.Now().Add(-lately))
	}
	return s, nil
}

// addUnwell adds the endpoints and credentials that are not as they should be.
func (s *Status) addUnwell(list []Upstream) {
	s.Upstreams = len(list)
	slices.SortFunc(list, func(a, b Upstream) int { return cmp.Compare(a.Name, b.Name) })
	for _, u := range list {
		for _, e := range u.Endpoints {
			if e.State != "up" && e.State != "unknown" {
				s.Endpoints = append(s.Endpoints, StatusEndpoint{u.Name, e})
			}
		}
		for _, c := range u.Credentials {
			if c.State != "ok" && c.State != "unknown" {
				s.Credentials = append(s.Credentials, StatusCredential{u.Name, c})
			}
		}
	}
}

func viewPins(pins []catalog.Pin, now time.Time) *StatusPins {
	if len(pins) == 0 {
		return nil
	}
	s := &StatusPins{Count: len(pins), Ending: []Pin{}}
	slices.SortStableFunc(pins, func(a, b catalog.Pin) int { return a.Until.Compare(b.Until) })
	for _, p := range pins {
		if !p.Until.IsZero() && p.Until.Sub(now) <= 24*time.Hour && len(s.Ending) < newestMost {
			s.Ending = append(s.Ending, viewPin(p))
		}
	}
	return s
}

func (o Options) viewWarm(now time.Time) *StatusWarm {
	s := &StatusWarm{Newest: []string{}, Schedules: []Schedule{}}
	for _, j := range o.Warm.Jobs() { // the latest is the first
		switch {
		case !j.State.Over():
			s.Running++
		case j.State == warm.Failed && now.Sub(j.FinishedAt) < 24*time.Hour:
			s.Failed++
			if len(s.Newest) < newestMost {
				s.Newest = append(s.Newest, j.ID)
			}
		}
	}
	if o.Schedules != nil {
		s.Schedules = append(s.Schedules, o.Schedules()...)
	}
	if s.Running+s.Failed+len(s.Schedules) == 0 {
		return nil
	}
	return s
}

func viewHeld(all []HeldTag, immutable bool) *StatusHeld {
	list := slices.DeleteFunc(slices.Clone(all), func(t HeldTag) bool { return t.Immutable != immutable })
	if len(list) == 0 {
		return nil
	}
	slices.SortFunc(list, func(a, b HeldTag) int { return cmp.Or(b.Since.Compare(a.Since), cmp.Compare(a.Image, b.Image)) })
	s := &StatusHeld{Count: len(list)}
	for _, t := range list[:min(len(list), newestMost)] {
		s.Newest = append(s.Newest, t.Image)
	}
	return s
}

func failuresSince(record Record, since time.Time) *StatusFailures {
	s := &StatusFailures{Since: since.UTC(), Classes: map[string]int64{}}
	left := map[string]bool{}
	for _, f := range record.Failures(journal.Filter{Since: since, Declined: true}) {
		if f.Outcome == journal.Declined {
			left[f.Image] = true
		} else {
			s.Classes[string(f.Class)]++
		}
	}
	s.Declined = len(left)
	return s
}
