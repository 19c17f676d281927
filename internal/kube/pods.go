package kube

import (
	"context"
	"errors"
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
		DeletionTimestamp    string
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

type container struct{ Name, Image, ImagePullPolicy string }

type containerStatus struct {
	Name    string
	ImageID string
	State   struct{ Waiting *struct{ Reason string } }
}

// cantPull are the reasons that the kubelet gives of a container whose image does not come.
var cantPull = []string{"ErrImagePull", "ImagePullBackOff", "RegistryUnavailable"}

// group is containers of one kind with their states.
type group struct {
	field    string // their path in the pod
	specs    []container
	statuses []containerStatus
}

func (p *pod) groups() []group {
	return []group{
		{"spec.initContainers", p.Spec.InitContainers, p.Status.InitContainerStatuses},
		{"spec.containers", p.Spec.Containers, p.Status.ContainerStatuses},
		{"spec.ephemeralContainers", p.Spec.EphemeralContainers, p.Status.EphemeralContainerStatuses},
	}
}

// waiting are the containers that wait for an image, with the image as the pod's author wrote it and the path of the
// container in the pod.
func (p *pod) waiting() []waiting {
	var list []waiting
	for _, g := range p.groups() {
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
	return list[pod](ctx, c, "list pods", "/api/v1/pods", selector, podPages, wait)
}

// list reads the pages of a list, at most so many of them. Before each page it waits; nil: it does not.
func list[T any](ctx context.Context, c *Client, op, path, selector string, pages int, wait func(context.Context) error) ([]T, error) {
	var all []T
	query := url.Values{"limit": {strconv.Itoa(podPage)}}
	if selector != "" {
		query.Set("fieldSelector", selector)
	}
	again := true // where the list has expired between two pages (410), it is read once more
	for range pages {
		var page struct {
			Metadata struct{ Continue string }
			Items    []T
		}
		if wait != nil {
			if err := wait(ctx); err != nil {
				return nil, err
			}
		}
		err := c.ask(ctx, op, http.MethodGet, path, query, nil, &page)
		if e, ok := errors.AsType[*APIError](err); ok && e.Status == http.StatusGone && again && query.Has("continue") {
			query.Del("continue")
			all, again = nil, false
			continue
		}
		if err != nil {
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
