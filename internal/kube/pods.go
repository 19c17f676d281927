package kube

import (
	"context"
	"net/http"
	"slices"
	"strconv"
	"time"

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
		OwnerReferences      []struct {
			UID        string
			Controller bool
		}
	}
	Spec   podSpec
	Status struct {
		HostIP                     string
		HostIPs                    []struct{ IP string }
		ContainerStatuses          []containerStatus
		InitContainerStatuses      []containerStatus
		EphemeralContainerStatuses []containerStatus
	}
}

type podSpec struct {
	NodeName            string
	Containers          []container
	InitContainers      []container
	EphemeralContainers []container
	Volumes             []struct{ Image *struct{ Reference string } } // other kinds of volumes have no image
}

type container struct{ Name, Image, ImagePullPolicy string }

// images are those of the containers, and those that are mounted as volumes, as the pod's author wrote them.
func (s *podSpec) images() (list []string) {
	for _, group := range [][]container{s.InitContainers, s.Containers, s.EphemeralContainers} {
		for _, c := range group {
			list = append(list, c.Image)
		}
	}
	for _, v := range s.Volumes {
		if v.Image != nil {
			list = append(list, v.Image.Reference)
		}
	}
	return list
}

type containerStatus struct {
	Name    string
	ImageID string
	State   struct {
		Waiting             *struct{ Reason string }
		Running, Terminated *struct{ StartedAt time.Time }
	}
	LastState struct {
		Terminated *struct{ StartedAt time.Time }
	}
}

// started is when the container was last started. Zero: it was not.
func (s *containerStatus) started() time.Time {
	for _, x := range []*struct{ StartedAt time.Time }{s.State.Running, s.State.Terminated, s.LastState.Terminated} {
		if x != nil {
			return x.StartedAt
		}
	}
	return time.Time{}
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
func (c *Client) pods(ctx context.Context, selector string, wait func(context.Context) error) ([]*pod, error) {
	k := podKind
	k.selector = selector
	found, _, err := list(ctx, c, k, podPages, wait, func(p *pod) (*pod, bool) { return p, true })
	return found, err
}

// list reads a list, at most so many pages of it, and makes what is wanted of each item; false: it is left out. all says that there were
// no more pages. Before each page it waits; nil: it does not. A list that expires between two pages is read once more.
func list[T, X any](ctx context.Context, c *Client, k kind, most int, wait func(context.Context) error, of func(*T) (X, bool)) (
	found []X, all bool, err error,
) {
	for range 2 {
		found = nil
		_, all, err = pages(ctx, c, k, most, wait, func(items []T) {
			for i := range items {
				if x, ok := of(&items[i]); ok {
					found = append(found, x)
				}
			}
		})
		if refusedWith(err) != http.StatusGone {
			break
		}
	}
	if err != nil {
		return nil, false, err
	}
	return found, all, nil
}

// pages reads the pages of a list, at most so many, and returns the version of the list, and whether that were all pages.
func pages[T any](ctx context.Context, c *Client, k kind, most int, wait func(context.Context) error, take func([]T)) (
	version string, all bool, err error,
) {
	query := k.query()
	query.Set("limit", strconv.Itoa(podPage))
	for range most {
		var page struct {
			Metadata struct{ Continue, ResourceVersion string }
			Items    []T
		}
		if wait != nil {
			if err := wait(ctx); err != nil {
				return "", false, err
			}
		}
		if err := c.ask(ctx, "list "+k.plural, http.MethodGet, k.path, query, nil, &page); err != nil {
			return "", false, err
		}
		take(page.Items)
		version = page.Metadata.ResourceVersion
		if page.Metadata.Continue == "" {
			return version, true, nil
		}
		query.Set("continue", page.Metadata.Continue)
	}
	return version, false, nil
}
