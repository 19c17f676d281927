package app

import (
	"context"
	"fmt"
	"iter"
	"strings"

	"github.com/registrymirror/mirror/catalog"
	"github.com/registrymirror/mirror/drift"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/pull"
)

// ledger joins what the catalog knows of tags with what the puller does about them.
type ledger struct {
	*catalog.Catalog
	*pull.Puller
	platforms func() []string // of the nodes
}

// Tags are those of the catalog; the puller's are a list of its registry.
func (l ledger) Tags(prefix string) iter.Seq2[catalog.Tag, error] { return l.Catalog.Tags(prefix) }

// Tag is the record of a tag with the registry's last word on it.
func (l ledger) Tag(ref oci.Ref) (catalog.Tag, error) { return l.Known(context.Background(), ref) }

// Cached reports whether all that nodes pull of an image is in the cache, and how many bytes that is.
func (l ledger) Cached(ref oci.Ref) (size int64, complete bool) {
	m, err := l.Survey(ref, l.platforms())
	if err != nil {
		return 0, false
	}
	size, _ = m.Size()
	return size, len(m.Missing()) == 0
}

// platforms are those of the nodes.
func (a *App) platforms() []string { return a.setup.Load().Platforms }

// drift compares the ledger with the cluster.
func (a *App) drift(ctx context.Context) (drift.Report, error) {
	var report drift.Report
	places, notes, err := a.places(ctx)
	if err != nil {
		return report, err
	}
	report.Notes = notes
	used := make(map[oci.Ref]bool, len(places))
	for _, p := range places {
		used[p.Ref] = true
	}
	in := drift.Input{Places: places, Same: func(repo oci.Repo, d oci.Digest) []oci.Digest {
		return a.puller.Describe(oci.Ref{Repo: repo, Digest: d}, nil).Same
	}, Change: a.change}
	due := 0 // tags that were reported as changed, and not checked since
	for tag, err := range a.catalog.Tags("") {
		if err != nil {
			return report, fmt.Errorf("read the tags: %w", err)
		}
		if err := ctx.Err(); err != nil {
			return report, err
		}
		if catalog.IsArtifactTag(tag.Ref.Tag) {
			continue
		}
		clients, err := a.catalog.Clients(tag.Ref)
		if err != nil {
			return report, fmt.Errorf("read the clients of %s: %w", tag.Ref, err)
		}
		if len(clients) == 0 && !used[tag.Ref] {
			continue
		}
		if tag.Due() {
			due++
		}
		if known, err := a.puller.Known(ctx, tag.Ref); err == nil {
			tag = known
		}
		now := a.puller.Choice(tag).Digest // what is held back is not what the tag means to the nodes
		image := drift.Image{Ref: tag.Ref, Now: now, Next: now}
		for _, c := range clients {
			image.Clients = append(image.Clients, drift.Client{Name: c.Client, Digest: c.Digest, LastPull: c.LastPull})
		}
		in.Images = append(in.Images, image)
	}
	if due > 0 {
		report.Notes = append(report.Notes, fmt.Sprintf("tags that were reported as changed and not checked since: %d; mirror tags refresh checks one", due))
	}
	report.Drift = drift.Find(in)
	return report, nil
}

// change describes what a restart would change, as far as both images are in the cache.
func (a *App) change(repo oci.Repo, from, to oci.Digest) *drift.Change {
	old := a.puller.Describe(oci.Ref{Repo: repo, Digest: from}, a.platforms())
	next := a.puller.Describe(oci.Ref{Repo: repo, Digest: to}, a.platforms())
	c := &drift.Change{
		From: from.String(), To: to.String(), FromCreated: old.Created, ToCreated: next.Created, FromSize: old.Size, ToSize: next.Size,
	}
	if len(old.Layers) == 0 { // the old image is not known: nothing can be said of what is common
		return c
	}
	c.Layers = len(next.Layers)
	had := make(map[oci.Digest]bool, len(old.Layers))
	for _, d := range old.Layers {
		had[d] = true
	}
	for _, d := range next.Layers {
		if had[d] {
			c.LayersCommon++
		}
	}
	return c
}

// places are the pods and idle workloads of the cluster with the images that they name by tag. notes say what could not be
// read.
func (a *App) places(ctx context.Context) (places []drift.Place, notes []string, err error) {
	if a.cluster.client == nil {
		return nil, []string{"pods were not compared: set kubernetes.events to true, so that the mirror reads the cluster's pods"}, nil
	}
	pods, err := a.cluster.client.Pods(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("read the pods of the cluster: %w; give the mirror the rights of deploy/kubernetes/events.yaml", err)
	}
	add := func(p drift.Place, image string) {
		ref, err := oci.ParseRef(image)
		if err != nil || ref.Digest != "" { // an image by digest never changes
			return
		}
		p.Ref = a.canonical(ref)
		places = append(places, p)
	}
	for _, p := range pods {
		for _, i := range p.Images {
			add(drift.Place{Name: p.Namespace + "/" + p.Name, Digest: i.Digest, Fixed: i.Policy == "Never"}, i.Image)
		}
	}
	workloads, refused, err := a.cluster.client.Workloads(ctx)
	if err != nil {
		return nil, nil, err
	}
	for _, w := range workloads {
		for _, image := range w.Images {
			if w.Idle {
				add(drift.Place{Name: w.Namespace + "/" + w.Kind + "/" + w.Name, Idle: true}, image)
			}
		}
	}
	if len(refused) > 0 {
		notes = append(notes, "workloads without pods were not compared: the mirror may not list "+strings.Join(refused, ", ")+
			"; deploy/kubernetes/events.yaml has that right")
	}
	return places, notes, nil
}
