package admin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"github.com/registrymirror/mirror/coverage"
	"github.com/registrymirror/mirror/internal/coalesce"
)

// CoverageList is the body of GET /api/v1/coverage. Its nodes are those with most missed images first.
type CoverageList struct {
	coverage.Report
	// Continue is the parameter for the next page; absent: this is the last one.
	Continue string `json:"continue,omitempty"`
}

// coverages answers requests for the coverage. Those that come at once share one comparison: it lists all pods of the cluster.
type coverages struct {
	read    func(ctx context.Context) (coverage.Report, error)
	running coalesce.Group[struct{}, coverage.Report]
	brief   remembered[coverage.Report] // without details, which are large
	full    remembered[coverage.Report]
}

// withoutDetails is a report without the images of nodes. Other requests may have the same report.
func withoutDetails(r coverage.Report) coverage.Report {
	r.Nodes = slices.Clone(r.Nodes)
	for i := range r.Nodes {
		r.Nodes[i].Details = nil
	}
	return r
}

// list answers with the coverage of all nodes, or of one.
func (c *coverages) list(_ http.ResponseWriter, r *http.Request) (any, error) {
	q := r.URL.Query()
	p, err := pageOf(q, maxPage, "node", "details")
	if err != nil {
		return nil, badRequest(err)
	}
	details, err := flag(q, "details")
	if err != nil {
		return nil, badRequest(err)
	}
	details = details || q.Has("node")
	last, who := &c.brief, callerOf(r)
	if details || !who.seesAll() {
		last = &c.full
	}
	report, err := last.get(p, func() (coverage.Report, error) {
		report, _, err := c.running.Do(r.Context(), struct{}{}, c.read)
		if last == &c.brief {
			report = withoutDetails(report)
		}
		return report, err
	})
	switch {
	case errors.Is(err, context.Canceled) && r.Context().Err() != nil:
		return nil, errGone
	case err != nil:
		return nil, &refusal{status: http.StatusServiceUnavailable, detail: err.Error()}
	}
	if !who.seesAll() {
		if report = report.Only(who.seesImage); !details {
			report = withoutDetails(report)
		}
	}
	nodes := report.Nodes
	if name := q.Get("node"); name != "" {
		nodes = slices.DeleteFunc(slices.Clone(nodes), func(n coverage.NodeReport) bool { return n.Node != name })
		if len(nodes) == 0 {
			report.Notes = append(slices.Clone(report.Notes), "no pod with an image of the mirror's registries runs on a node "+quote(name))
		}
	}
	body := CoverageList{Report: report}
	body.Nodes, body.Continue = cut(p, nodes, func(n coverage.NodeReport) string { return fmt.Sprintf("%010d %s", 1<<30-(n.Images-n.Through), n.Node) })
	return body, nil
}
