package kube

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/registrymirror/mirror/oci"
)

// imagePages bounds a list: 50,000 pods.
const imagePages = 100

// Pod is a pod with the images of its containers.
type Pod struct {
	Namespace, Name, UID string
	Node                 string   // empty: it is not scheduled yet
	Addresses            []string // of the node
	Controller           string   // UID of the workload that has made it; empty: none has
	Images               []RunningImage
}

// RunningImage is an image as a container of a pod has it.
type RunningImage struct {
	Image  string     // as the pod's author wrote it
	Digest oci.Digest // of the index or manifest that runs, as the runtime has it. Empty: not known
	Policy string     // Always, IfNotPresent or Never
	// Config is the digest of the image's config, where the runtime has only that. Empty: Digest is known, or nothing is.
	Config  oci.Digest
	Field   string    // the path of the container in the pod, as Events have it
	Started time.Time // when it was last started; zero: it was not
}

// Pods lists the pods of all namespaces that have not ended, and are not being deleted, with the images of all their containers.
func (c *Client) Pods(ctx context.Context) ([]Pod, error) {
	pods, _, err := c.AllPods(ctx, imagePages)
	return pods, err
}

// AllPods is Pods, of at most so many pages of 500. all says that there were no more.
func (c *Client) AllPods(ctx context.Context, most int) (pods []Pod, all bool, err error) {
	return list(ctx, c, podKind, most, nil, (*pod).running)
}

// running is the pod with the images of its containers. False: it is being deleted.
func (p *pod) running() (x Pod, ok bool) {
	if p.Metadata.DeletionTimestamp != "" {
		return x, false
	}
	x = Pod{Namespace: p.Metadata.Namespace, Name: p.Metadata.Name, UID: p.Metadata.UID, Node: p.Spec.NodeName}
	for _, o := range p.Metadata.OwnerReferences {
		if o.Controller {
			x.Controller = o.UID
		}
	}
	for _, a := range append([]struct{ IP string }{{p.Status.HostIP}}, p.Status.HostIPs...) {
		if a.IP != "" && !slices.Contains(x.Addresses, a.IP) {
			x.Addresses = append(x.Addresses, a.IP)
		}
	}
	for _, g := range p.groups() {
		for _, spec := range g.specs {
			image := RunningImage{Image: spec.Image, Policy: spec.ImagePullPolicy, Field: g.field + "{" + spec.Name + "}"}
			for _, s := range g.statuses {
				if s.Name == spec.Name {
					image.Digest, image.Config, image.Started = imageDigest(s.ImageID), configDigest(s.ImageID), s.started()
				}
			}
			x.Images = append(x.Images, image)
		}
	}
	return x, true
}

// imageDigest reads the imageID of a container's status: docker.io/library/nginx@sha256:..., or
// docker-pullable://nginx@sha256:... An id alone, as docker://sha256:... or sha256:..., is that of a config: it says nothing of
// the manifest, and is taken for not known.
func imageDigest(id string) oci.Digest {
	_, text, _ := strings.Cut(id, "@")
	if d := oci.Digest(text); d.Validate() == nil {
		return d
	}
	return ""
}

// configDigest reads an imageID that is that of a config: docker://sha256:..., sha256:..., or the 64 digits alone of CRI-O.
func configDigest(id string) oci.Digest {
	if _, rest, ok := strings.Cut(id, "://"); ok {
		id = rest
	}
	if !strings.Contains(id, ":") {
		id = "sha256:" + id
	}
	if d := oci.Digest(id); d.Validate() == nil {
		return d
	}
	return ""
}

// Workload is a workload with the images of its pod template. It may have no pods.
type Workload struct {
	Namespace, Kind, Name string
	Idle                  bool // it is scaled to zero, or runs at times: its template is in use all the same
	Images                []string
}

// object is what we need to know of a pod or a workload.
type object struct {
	Metadata struct{ Name, Namespace, ResourceVersion string }
	Spec     struct {
		podSpec // of a pod

		Replicas    *int
		Template    podTemplate
		JobTemplate struct {
			Spec struct{ Template podTemplate }
		}
	}
}

type podTemplate struct{ Spec podSpec }

// name is the object's, with its namespace.
func (o *object) name() string { return o.Metadata.Namespace + "/" + o.Metadata.Name }

// images are those that the object names.
func (o *object) images() []string {
	return slices.Concat(o.Spec.images(), o.Spec.Template.Spec.images(), o.Spec.JobTemplate.Spec.Template.Spec.images())
}

// kind is a kind of objects.
type kind struct {
	name, plural, path string
	selector           string // of fields: those that count; empty: all do
}

// query is that of a request for objects of the kind, to which more may be added.
func (k kind) query() url.Values {
	if k.selector == "" {
		return url.Values{}
	}
	return url.Values{"fieldSelector": {k.selector}}
}

// podKind are the pods that have not ended.
var podKind = kind{"Pod", "pods", "/api/v1/pods", "status.phase!=Succeeded,status.phase!=Failed"}

// workloadKinds are the kinds whose pod templates stay when they have no pods.
var workloadKinds = []kind{
	{"Deployment", "deployments", "/apis/apps/v1/deployments", ""},
	{"StatefulSet", "statefulsets", "/apis/apps/v1/statefulsets", ""},
	{"DaemonSet", "daemonsets", "/apis/apps/v1/daemonsets", ""},
	{"CronJob", "cronjobs", "/apis/batch/v1/cronjobs", ""},
}

// Workloads lists the workloads of all namespaces. Kinds that we may not list are left out, and named in refused.
func (c *Client) Workloads(ctx context.Context) (all []Workload, refused []string, err error) {
	for _, k := range workloadKinds {
		found, _, err := list(ctx, c, k, imagePages, nil, func(w *object) (Workload, bool) {
			idle := w.Spec.Replicas != nil && *w.Spec.Replicas == 0 || k.name == "CronJob"
			return Workload{w.Metadata.Namespace, k.name, w.Metadata.Name, idle, w.images()}, true
		})
		if status := refusedWith(err); status == http.StatusForbidden || status == http.StatusNotFound {
			refused = append(refused, k.plural)
			continue
		}
		if err != nil {
			return nil, nil, fmt.Errorf("read the workloads of the cluster: %w", err)
		}
		all = append(all, found...)
	}
	return all, refused, nil
}
