package kube

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strconv"

	"github.com/registrymirror/mirror/oci"
)

const (
	podPage  = 500
	podPages = 20 // 10,000 pods that wait are a cluster with another problem
)

// pod is what we need to know of one.
type pod struct {
	Metadata struct {
		Name, Namespace, UID string
		ResourceVersion      string
	}
	Spec struct {
		NodeName            string
		Containers          []container
		InitContainers      []container
		EphemeralContainers []container
	}
	Status struct {
		HostIP                     string
		HostIPs                    []struct{ IP string }
		ContainerStatuses          []containerStatus
		InitContainerStatuses      []containerStatus
		EphemeralContainerStatuses []containerStatus
	}
}

type container struct{ Name, Image string }

type containerStatus struct {
	Name  string
	State struct{ Waiting *struct{ Reason string } }
}

// cantPull are the reasons that the kubelet gives of a container whose image does not come.
var cantPull = []string{"ErrImagePull", "ImagePullBackOff", "RegistryUnavailable"}

// waiting are the containers that wait for an image, with the image as the pod's author wrote it and the path of the
// container in the pod.
func (p *pod) waiting() []waiting {
	var list []waiting
	for _, g := range []struct {
		field    string
		specs    []container
		statuses []containerStatus
	}{
		{"spec.initContainers", p.Spec.InitContainers, p.Status.InitContainerStatuses},
		{"spec.containers", p.Spec.Containers, p.Status.ContainerStatuses},
		{"spec.ephemeralContainers", p.Spec.EphemeralContainers, p.Status.EphemeralContainerStatuses},
	} {
		for _, s := range g.statuses {
			if s.State.Waiting == nil || !slices.Contains(cantPull, s.State.Waiting.Reason) {
				continue
			}
			i := slices.IndexFunc(g.specs, func(c container) bool { return c.Name == s.Name })
			if i < 0 {
				continue
			}
			if ref, err := oci.ParseRef(g.specs[i].Image); err == nil {
				list = append(list, waiting{ref, g.field + "{" + s.Name + "}"})
			}
		}
	}
	return list
}

type waiting struct {
	ref   oci.Ref
	field string
}

// on reports whether the pod is on the node that a client says it is: by name, or by address.
func (p *pod) on(client string) bool {
	if client == p.Spec.NodeName || client == p.Status.HostIP {
		return true
	}
	return slices.ContainsFunc(p.Status.HostIPs, func(a struct{ IP string }) bool { return a.IP == client })
}

// pods lists pods of all namespaces by a field selector. Before each page it waits.
func (c *Client) pods(ctx context.Context, selector string, wait func(context.Context) error) ([]pod, error) {
	var all []pod
	query := url.Values{"fieldSelector": {selector}, "limit": {strconv.Itoa(podPage)}}
	for range podPages {
		var page struct {
			Metadata struct{ Continue string }
			Items    []pod
		}
		if err := wait(ctx); err != nil {
			return nil, err
		}
		if err := c.ask(ctx, "list pods", http.MethodGet, "/api/v1/pods", query, nil, &page); err != nil {
			return nil, err
		}
		all = append(all, page.Items...)
		if page.Metadata.Continue == "" {
			break
		}
		query.Set("continue", page.Metadata.Continue)
	}
	return all, nil
}
