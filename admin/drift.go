package admin

import (
	"fmt"
	"net/http"
	"slices"
	"time"
)

// Drift is the body of GET /api/v1/tags/drift.
type Drift struct {
	Drift []DriftingTag `json:"drift"` // sorted by image and kind
	// Notes say what could not be looked at, and why. Absent: nothing.
	Notes []string `json:"notes,omitempty"`
	// Continue is the parameter for the next page; absent: this is the last one.
	Continue string `json:"continue,omitempty"`
}

// The kinds of drift.
const (
	DriftPulled  = "pulled"  // clients got different digests of one tag
	DriftRunning = "running" // pods run another digest than the tag means now
	DriftRestart = "restart" // pods would change if they restarted
)

// DriftingTag is one tag that means different images in different places.
type DriftingTag struct {
	Image   string        `json:"image"`
	Kind    string        `json:"kind"`
	Digests []DriftDigest `json:"digests"` // what the tag means now first
	Change  *Change       `json:"change,omitempty"`
}

// DriftDigest is one of the digests, with the places where it is.
type DriftDigest struct {
	Digest  string   `json:"digest"`
	Current bool     `json:"current,omitempty"` // the tag means it now
	Clients []string `json:"clients,omitempty"`
	Pods    []string `json:"pods,omitempty"` // NAMESPACE/NAME, or NAMESPACE/KIND/NAME of a workload without pods
}

// Change is what a restart would change. What is not in the cache is not known, and absent.
type Change struct {
	From         string    `json:"from"` // digest
	To           string    `json:"to"`
	FromCreated  time.Time `json:"fromCreated,omitzero"`
	ToCreated    time.Time `json:"toCreated,omitzero"`
	FromSize     int64     `json:"fromSize,omitempty"` // bytes
	ToSize       int64     `json:"toSize,omitempty"`
	Layers       int       `json:"layers,omitempty"`       // of the image that would come
	LayersCommon int       `json:"layersCommon,omitempty"` // that the running image has, too
}

// listDrift answers with the tags that drift, of one kind or of all.
func (o Options) listDrift(_ http.ResponseWriter, r *http.Request) (any, error) {
	q := r.URL.Query()
	p, err := pageOf(q, maxPage, "kind")
	if err != nil {
		return nil, badRequest(err)
	}
	kind := q.Get("kind")
	if q.Has("kind") && !slices.Contains([]string{DriftPulled, DriftRunning, DriftRestart}, kind) {
		return nil, badRequest(fmt.Errorf("kind=%s: must be pulled, running or restart", kind))
	}
	body, err := o.Drift(r.Context())
	if err != nil {
		return nil, &refusal{status: http.StatusServiceUnavailable, detail: err.Error()}
	}
	if kind != "" {
		body.Drift = slices.DeleteFunc(body.Drift, func(d DriftingTag) bool { return d.Kind != kind })
	}
	body.Drift, body.Continue = cut(p, body.Drift, func(d DriftingTag) string { return d.Image + " " + d.Kind })
	return body, nil
}
