package admin

import (
	"fmt"
	"net/http"
	"slices"

	"github.com/registrymirror/mirror/drift"
)

// DriftList is the body of GET /api/v1/tags/drift.
type DriftList struct {
	drift.Report
	// Continue is the parameter for the next page; absent: this is the last one.
	Continue string `json:"continue,omitempty"`
}

// listDrift answers with the tags that drift, of one kind or of all.
func (o Options) listDrift(r *http.Request, last *remembered[drift.Report]) (any, error) {
	q := r.URL.Query()
	p, err := pageOf(q, maxPage, "kind")
	if err != nil {
		return nil, badRequest(err)
	}
	kind := drift.Kind(q.Get("kind"))
	if q.Has("kind") && !slices.Contains(drift.Kinds, kind) {
		return nil, badRequest(fmt.Errorf("kind=%s: must be pulled, running or restart", kind))
	}
	report, err := last.get(p, func() (drift.Report, error) { return o.Drift(r.Context()) })
	if err != nil {
		return nil, &refusal{status: http.StatusServiceUnavailable, detail: err.Error()}
	}
	found := report.Drift
	if c := callerOf(r); !c.seesAll() {
		found = slices.DeleteFunc(slices.Clone(found), func(t drift.Tag) bool { return !c.seesImage(t.Image) })
	}
	if kind != "" {
		found = slices.DeleteFunc(slices.Clone(found), func(t drift.Tag) bool { return t.Kind != kind })
	}
	body := DriftList{Report: report}
	body.Drift, body.Continue = cut(p, found, func(t drift.Tag) string { return t.Image + " " + string(t.Kind) })
	return body, nil
}
