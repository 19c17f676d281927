package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/registrymirror/mirror/admin"
	"github.com/registrymirror/mirror/coverage"
)

func newCoverageCmd() *cobra.Command {
	var flags adminFlags
	var fail bool
	var node string
	var replicas []string
	var most limit
	cmd := &cobra.Command{
		Use:        "coverage",
		SuggestFor: []string{"bypass", "nodes", "usage"},
		Short:      "Show which nodes pull past the mirror",
		Long: `Compare the images that run on each node of the cluster with those that the node pulled
through the mirror, and show the nodes that pull past it, with the cause.

IMAGES are those of which it is known how they came to the node; THROUGH of them came
through the mirror, the others were missed. UNKNOWN are those of which it is not known: they
were there before the mirror recorded, or may have been, or another replica may have served
them. No image counts as missed unless the node has pulled it for sure, as an Event of its
kubelet or imagePullPolicy: Always shows. Only registries of the configuration count.

-o wide shows each image with its pods, and so does --node. Each replica of the mirror knows
what it has served itself: --replica, once for each of the others, asks them as well.

It needs kubernetes.coverage, and the rights in deploy/kubernetes/events.yaml.

Exit codes: 0 shown; 1 the mirror refused the request, or with --fail an image was missed or
no node was compared; 2 wrong usage; 4 no mirror answers.`,
		Example: `  mirror coverage
  mirror coverage --node node-7
  mirror coverage --fail -o json | jq -r '.nodes[] | select(.through < .images) | .node'
  mirror coverage --admin http://10.0.0.7:5001 --replica http://10.0.0.8:5001`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			q := url.Values{"limit": {most.String()}}
			if node != "" {
				q.Set("node", node)
			}
			if flags.output.wide() {
				q.Set("details", "true")
			}
			l, doc, err := coverageOf(cmd.Context(), &flags, q, replicas)
			if err != nil {
				return err
			}
			if err := flags.output.document(cmd.OutOrStdout(), doc, func() string { return coverageText(l, time.Now()) }); err != nil {
				return err
			}
			missed := l.Summary.Missed
			if node != "" {
				missed = 0
				for _, n := range l.Nodes {
					missed += n.Images - n.Through
				}
			}
			if fail && len(l.Nodes) == 0 {
				return &exitError{exitFailed, fmt.Errorf("no node was compared%s", because(strings.Join(l.Notes, "; ")))}
			}
			if fail && missed > 0 {
				return &exitError{exitFailed, fmt.Errorf("%s came past the mirror", plural(missed, "image", "images"))}
			}
			return nil
		},
	}
	flags.add(cmd, true)
	cmd.Flags().BoolVar(&fail, "fail", false, "exit with 1 if an image came past the mirror, or no node was compared")
	cmd.Flags().StringVar(&node, "node", "", "only this `node`, with its images")
	cmd.Flags().StringArrayVar(&replicas, "replica", nil, "admin `URL` of a further replica of the mirror; repeat it for each")
	addLimit(cmd, &most, "show at most so many nodes, up to 1000")
	return cmd
}

// coverageOf is the answer of the mirror, or that of all replicas as one. The document is the answer as it came.
func coverageOf(ctx context.Context, flags *adminFlags, q url.Values, replicas []string) (l admin.CoverageList, doc any, err error) {
	if len(replicas) == 0 {
		body, err := flags.get(ctx, "coverage", q)
		if err == nil {
			err = flags.decode(body, &l, "the coverage of nodes")
		}
		return l, json.RawMessage(body), err
	}
	if err := flags.fromConfig(); err != nil { // its token is that of all replicas
		return l, nil, err
	}
	most, _ := strconv.Atoi(q.Get("limit"))
	var reports []coverage.Report
	for _, address := range append([]string{""}, replicas...) {
		one := *flags
		if address != "" {
			one.url = address
		}
		report, err := one.wholeCoverage(ctx, q.Get("node"))
		if err != nil {
			return l, nil, err
		}
		reports = append(reports, report)
	}
	l.Report = coverage.Merge(reports)
	l.SortMissed()
	if len(l.Nodes) > most {
		l.Nodes = l.Nodes[:most]
		l.Notes = append(l.Notes, fmt.Sprintf("%d nodes are shown; --limit shows up to %d", most, maxLimit))
	}
	if !q.Has("details") && !q.Has("node") {
		for i := range l.Nodes {
			l.Nodes[i].Details = nil
		}
	}
	return l, l, nil
}

// coveragePages bounds the pages that are read of one replica: a million nodes.
const coveragePages = 1000

// wholeCoverage reads all pages of a mirror, with details. A node that it has no pods of is an empty report.
func (f *adminFlags) wholeCoverage(ctx context.Context, node string) (all coverage.Report, err error) {
	q := url.Values{"limit": {strconv.Itoa(maxLimit)}, "details": {"true"}}
	if node != "" {
		q.Set("node", node)
	}
	for range coveragePages {
		body, err := f.get(ctx, "coverage", q)
		if err != nil {
			return all, err
		}
		var l admin.CoverageList
		if err := f.decode(body, &l, "the coverage of nodes"); err != nil {
			return all, err
		}
		nodes := all.Nodes
		all = l.Report
		all.Nodes = append(nodes, l.Nodes...)
		if l.Continue == "" {
			return all, nil
		}
		q.Set("continue", l.Continue)
	}
	return all, &exitError{exitFailed, errors.New("the list of nodes does not end")}
}

func coverageText(l admin.CoverageList, now time.Time) string {
	if len(l.Nodes) == 0 {
		return "No pod with an image of the mirror's registries was found.\n" + notesText(l.Notes)
	}
	var t table
	for _, n := range l.Nodes {
		t.row(n.Node, strconv.Itoa(n.Images), strconv.Itoa(n.Through), strconv.Itoa(n.Unknown), since(n.LastSeen, now), n.Reason)
	}
	var b strings.Builder
	b.WriteString(t.under("NODE", "IMAGES", "THROUGH", "UNKNOWN", "LAST SEEN", "REASON"))
	for _, n := range l.Nodes {
		if len(n.Details) == 0 {
			continue
		}
		var d table
		for _, i := range n.Details {
			d.row("  "+i.Image, string(i.State), orDash(string(i.Why)+choose(i.Client != "", " "+i.Client, "")), since(i.PulledAt, now), strings.Join(i.Pods, ", "))
		}
		fmt.Fprintf(&b, "\n%s%s\n%s", n.Node, choose(len(n.Clients) > 0, ", seen as "+strings.Join(n.Clients, ", "), ""),
			d.under("  IMAGE", "STATE", "WHY", "PULLED", "PODS"))
	}
	s := l.Summary
	fmt.Fprintf(&b, "\n%d of %s on %s came through the mirror since %s; %d unknown.\n", s.Through, plural(s.Images, "image", "images"),
		plural(s.Nodes, "node", "nodes"), l.Since.Format(time.RFC3339), s.Unknown)
	return b.String() + moreText(l.Continue) + notesText(l.Notes)
}
