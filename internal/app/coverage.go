package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/registrymirror/mirror/coverage"
	"github.com/registrymirror/mirror/internal/backoff"
	"github.com/registrymirror/mirror/internal/kube"
	"github.com/registrymirror/mirror/oci"
)

const (
	// coverageFirst is how long after the start the images of the cluster are first looked through, and coverageEvery how often: the
	// API server keeps an Event for an hour.
	coverageFirst = time.Minute
	coverageEvery = 5 * time.Minute
	// coveragePages bounds the list of pods: 200,000.
	coveragePages = 400
	// eventBefore is how long before the start of a container its pull may have ended: an earlier Event is of another start.
	eventBefore = 15 * time.Minute
)

// covered compares the images that run in the cluster with what its nodes pulled through the mirror.
func (a *App) covered(ctx context.Context) (coverage.Report, error) {
	since, gaps := a.deliveries.Span()
	if a.cluster.client == nil {
		return coverage.Report{
			Nodes: []coverage.NodeReport{}, Since: since, Replicas: 1,
			Notes: []string{"pods were not read: set kubernetes.coverage to true, and give the mirror the rights of deploy/kubernetes/events.yaml"},
		}, nil
	}
	pods, all, err := a.cluster.client.AllPods(ctx, coveragePages)
	if err != nil {
		return coverage.Report{}, fmt.Errorf("read the pods of the cluster: %w; give the mirror the rights of deploy/kubernetes/events.yaml", err)
	}
	pulls, allowed, err := a.cluster.client.ImagePulls(ctx)
	if err != nil {
		return coverage.Report{}, fmt.Errorf("read the Events of kubelets: %w", err)
	}
	in := coverage.Input{Since: since, Gaps: gaps}
	in.Self, in.Replicas = a.self(pods)
	in.Nodes, in.Containers = a.containers(pods, pulls)
	for _, c := range in.Containers {
		if !c.Ended.IsZero() {
			a.deliveries.Pulled(c.Node, c.Digest, c.Began, c.Ended)
		}
	}
	running, err := a.journal.Open(ctx)
	if err != nil {
		return coverage.Report{}, err
	}
	in.Clients = a.deliveries.Clients(running)
	report, err := coverage.Judge(in)
	if err != nil {
		return coverage.Report{}, fmt.Errorf("read the record of which client got which image: %w", err)
	}
	if !allowed {
		report.Notes = append(report.Notes, "Events were not read, so only images with imagePullPolicy Always can be found missed: "+
			"let the mirror list events, as deploy/kubernetes/events.yaml does")
	}
	if !all {
		report.Notes = append(report.Notes, fmt.Sprintf("the cluster has more pods than the %d that were read", len(pods)))
	}
	return report, nil
}

// self is the node that this mirror's pod runs on, and how many pods the workload has that it belongs to. It is known by the name of
// the pod, which is the machine's, or with hostNetwork that of the variable POD_NAME.
func (a *App) self(pods []kube.Pod) (node string, replicas int) {
	host, _ := os.Hostname()
	name := cmp.Or(os.Getenv("POD_NAME"), host)
	controller := ""
	for _, p := range pods {
		switch {
		case name == "":
		case p.Name == name && p.Controller != "":
			node, controller = p.Node, p.Controller
		case p.Node == host && node == "":
			node = p.Node
		}
	}
	for _, p := range pods {
		if controller != "" && p.Controller == controller {
			replicas++
		}
	}
	return node, max(1, replicas)
}

// containers are the containers with images of the upstreams, and the nodes that they are on.
func (a *App) containers(pods []kube.Pod, pulls []kube.ImagePull) (nodes []coverage.Node, list []coverage.Container) {
	type place struct{ uid, field string }
	pulled := make(map[place]kube.ImagePull)
	for _, p := range pulls {
		at := place{p.PodUID, p.Field}
		if last, ok := pulled[at]; !ok || p.Ended.After(last.Ended) {
			pulled[at] = p
		}
	}
	known := make(map[string]bool)
	for _, p := range pods {
		if p.Node == "" {
			continue
		}
		if !known[p.Node] {
			known[p.Node] = true
			nodes = append(nodes, coverage.Node{Name: p.Node, Addresses: p.Addresses})
		}
		for _, i := range p.Images {
			digest := cmp.Or(i.Digest, i.Config)
			ref, ok := a.coveredName(i.Image)
			if !ok || digest == "" && i.Started.IsZero() { // its container is not there yet
				continue
			}
			c := coverage.Container{
				Node: p.Node, Pod: p.Namespace + "/" + p.Name, Image: ref, Digest: digest, Policy: i.Policy, Started: i.Started,
			}
			if e, ok := pulled[place{p.UID, i.Field}]; ok && !i.Started.IsZero() && i.Started.Sub(e.Ended) < eventBefore {
				c.Began, c.Ended = e.Began, e.Ended
			}
			list = append(list, c)
		}
	}
	return nodes, list
}

// coveredName is the mirror's own reference of an image. False: its registry is not an upstream, so that no node asks this mirror
// for it.
func (a *App) coveredName(image string) (oci.Ref, bool) {
	ref, err := oci.ParseRef(image)
	if err != nil {
		return ref, false
	}
	if t, err := a.setup.Load().Routes.Resolve(oci.Request{Kind: oci.KindManifest, Namespace: ref.Host, Name: ref.Name}); err == nil {
		ref.Repo = t.Repo
		return ref, true
	}
	return a.own(ref)
}

// watchCoverage looks through the images of the cluster from time to time, for metrics, and so that no Event of a kubelet is missed.
func (a *App) watchCoverage(ctx context.Context) error {
	if !a.o.Config.Kubernetes.Coverage {
		return nil
	}
	failed := false
	for wait := coverageFirst; backoff.Wait(ctx, wait); wait = coverageEvery {
		report, err := a.covered(ctx)
		if err != nil {
			if !failed && ctx.Err() == nil && !errors.Is(err, context.Canceled) {
				a.log.WarnContext(ctx, "cannot compare the images of the cluster with the pulls of its nodes; the metrics of coverage stay as they were",
					"error", err)
			}
			failed = true
			continue
		}
		failed = false
		for i := range report.Nodes {
			report.Nodes[i].Details = nil // of all images of the cluster: they are read anew where they are shown
		}
		a.lastCoverage.Store(&report)
	}
	return nil
}
