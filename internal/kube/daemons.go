package kube

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// Daemons is the state of a DaemonSet.
type Daemons struct {
	// Seen says that the cluster has counted the nodes that are to have a pod. Before that the rest means nothing.
	Seen    bool
	Wanted  int      // nodes that are to have a pod
	Ready   int      // nodes whose pod is ready
	Unready []string // nodes whose pod is there and not ready, sorted, of the first 500 pods; nodes without a pod are not among them
}

// Daemons asks for the state of a DaemonSet. The account needs the rights to get it, and to list the pods of its namespace.
func (c *Client) Daemons(ctx context.Context, namespace, name string) (Daemons, error) {
	var set struct {
		Metadata struct{ Generation int64 }
		Spec     struct {
			Selector struct{ MatchLabels map[string]string }
		}
		Status struct {
			ObservedGeneration                  int64
			DesiredNumberScheduled, NumberReady int
		}
	}
	at := "/apis/apps/v1/namespaces/" + url.PathEscape(namespace) + "/daemonsets/" + url.PathEscape(name)
	if err := c.ask(ctx, "get daemonset", http.MethodGet, at, nil, nil, &set); err != nil {
		return Daemons{}, err
	}
	d := Daemons{
		Seen:   set.Status.ObservedGeneration >= max(set.Metadata.Generation, 1),
		Wanted: set.Status.DesiredNumberScheduled, Ready: set.Status.NumberReady,
	}
	if !d.Seen || d.Ready >= d.Wanted {
		return d, nil
	}
	var labels []string
	for k, v := range set.Spec.Selector.MatchLabels {
		labels = append(labels, k+"="+v)
	}
	slices.Sort(labels)
	var pods struct {
		Items []struct {
			Spec   struct{ NodeName string }
			Status struct {
				Conditions []struct{ Type, Status string }
			}
		}
	}
	query := url.Values{"labelSelector": {strings.Join(labels, ",")}, "limit": {strconv.Itoa(podPage)}}
	if err := c.ask(ctx, "list pods", http.MethodGet, "/api/v1/namespaces/"+url.PathEscape(namespace)+"/pods", query, nil, &pods); err != nil {
		return d, err
	}
	for _, p := range pods.Items {
		ready := false
		for _, c := range p.Status.Conditions {
			ready = ready || c.Type == "Ready" && c.Status == "True"
		}
		if !ready && p.Spec.NodeName != "" {
			d.Unready = append(d.Unready, p.Spec.NodeName)
		}
	}
	slices.Sort(d.Unready)
	return d, nil
}
