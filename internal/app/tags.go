package app

import (
	"context"
	"fmt"
	"iter"
	"net"
	"strings"
	"time"

	"github.com/registrymirror/mirror/admin"
	"github.com/registrymirror/mirror/catalog"
	"github.com/registrymirror/mirror/drift"
	"github.com/registrymirror/mirror/internal/backoff"
	"github.com/registrymirror/mirror/internal/metrics"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/pull"
)

// ledger joins what the catalog knows of tags with what the puller does about them.
type ledger struct {
	*catalog.Catalog
	named
	platforms func() []string // of the nodes
	purged    func()          // is called when content was removed
}

// named is the puller for names as people write them.
type named struct {
	*pull.Puller
	own func(ref oci.Ref) (oci.Ref, bool)
}

// Purge and PurgeContent are the puller's.
func (l ledger) Purge(ctx context.Context, ref oci.Ref) error {
	defer l.purged()
	return l.Puller.Purge(ctx, ref)
}

func (l ledger) PurgeContent(d oci.Digest) error {
	defer l.purged()
	return l.Puller.PurgeContent(d)
}

// Canonical is the puller's. It also knows images below the mirror's own address, as nodes without a mirror setting write them.
func (n named) Canonical(ref oci.Ref) (oci.Ref, error) {
	to, err := n.Puller.Canonical(ref)
	if below, ok := n.own(ref); err != nil && ok {
		return below, nil
	}
	return to, err
}

// own is the reference of an image that is named below the mirror's address, as 127.0.0.1:5000/docker.io/acme/app. The mirror does
// not know all its names, so it goes by the ports of its listeners. False: the image is not named like that.
func (a *App) own(ref oci.Ref) (oci.Ref, bool) {
	setup := a.setup.Load()
	_, port, err := net.SplitHostPort(ref.Host)
	switch {
	case err != nil:
		return ref, false
	case a.listeners.main == nil: // the folder is used without a mirror's listeners
		return belowMirror(setup.Routes, ref)
	}
	for _, l := range []net.Addr{a.Addr(), a.AdminAddr()} {
		if _, own, err := net.SplitHostPort(l.String()); err == nil && own == port {
			return belowMirror(setup.Routes, ref)
		}
	}
	return ref, false
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

// tagSurvey is what was found when the tags in use were looked through.
type tagSurvey struct {
	drift []drift.Tag
	pods  bool // the cluster's pods were compared, too
	held  []admin.HeldTag
}

// survey compares the ledger with the cluster: the tags that clients have pulled, or that pods name. pods says whether the places
// have the cluster's pods. What is found is kept for metrics and the status.
func (a *App) survey(ctx context.Context, places []drift.Place, pods bool) (report drift.Report, err error) {
	in := drift.Input{At: time.Now(), Places: places, Same: func(repo oci.Repo, d oci.Digest) []oci.Digest {
		return a.puller.Describe(oci.Ref{Repo: repo, Digest: d}, nil).Same
	}, Change: a.change}
	clients, err := a.catalog.AllClients()
	if err != nil {
		return report, err
	}
	var held []admin.HeldTag
	for _, p := range places {
		if _, ok := clients[p.Ref]; !ok {
			clients[p.Ref] = nil
		}
	}
	due := 0 // tags that were reported as changed, and not checked since
	for ref, list := range clients {
		if err := ctx.Err(); err != nil {
			return report, err
		}
		tag, err := a.puller.Known(ctx, ref)
		if err != nil || catalog.IsArtifactTag(ref.Tag) {
			continue
		}
		if tag.Due() {
			due++
		}
		choice := a.puller.Choice(tag)
		switch choice.Hold {
		case catalog.HeldByImmutable, catalog.HeldByMinAge, catalog.HeldUnknown:
			held = append(held, admin.HeldTag{Image: ref.String(), Immutable: choice.Hold == catalog.HeldByImmutable, Since: tag.History[0].First})
		case catalog.NotHeld, catalog.HeldByPin:
		}
		image := drift.Image{Ref: ref, Now: choice.Digest}
		for _, c := range list {
			image.Clients = append(image.Clients, drift.Client{Name: c.Client, Digest: c.Digest, LastPull: c.LastPull})
		}
		in.Images = append(in.Images, image)
	}
	if due > 0 {
		report.Notes = []string{fmt.Sprintf("tags that were reported as changed and not checked since: %d; mirror tags refresh checks one", due)}
	}
	report.Drift = drift.Find(in)
	a.lastSurvey.Store(&tagSurvey{drift: report.Drift, pods: pods, held: held})
	return report, nil
}

// drift compares the ledger with the cluster, now.
func (a *App) drift(ctx context.Context) (drift.Report, error) {
	places, notes, err := a.places(ctx)
	if err != nil {
		return drift.Report{}, err
	}
	report, err := a.survey(ctx, places, a.cluster.client != nil)
	report.Notes = append(notes, report.Notes...)
	return report, err
}

const (
	// surveyFirst is how long after the start the tags in use are first looked through, and surveyEvery how often that is done.
	surveyFirst = time.Minute
	surveyEvery = 5 * time.Minute
)

// watchTags looks through the tags in use from time to time, for metrics and the status.
func (a *App) watchTags(ctx context.Context) error {
	failed := false
	for wait := surveyFirst; backoff.Wait(ctx, wait); wait = surveyEvery {
		places, _, err := a.places(ctx)
		if err != nil && !failed && ctx.Err() == nil {
			a.log.WarnContext(ctx, "cannot read the pods of the cluster; mirror_tag_drift has no value for them", "error", err)
		}
		failed = err != nil
		_, _ = a.survey(ctx, places, a.cluster.client != nil && !failed) // on an error the last one stays
	}
	return nil
}

// driftSeries are the numbers of tags that drift when they were last looked through, by upstream and kind.
func (a *App) driftSeries() map[metrics.Drift]int {
	s := a.lastSurvey.Load()
	if s == nil {
		return nil
	}
	kinds := drift.Kinds
	if !s.pods {
		kinds = kinds[:1]
	}
	counts := make(map[metrics.Drift]int)
	for name := range a.setup.Load().Sites {
		for _, kind := range kinds {
			counts[metrics.Drift{Upstream: name, Kind: kind}] = 0
		}
	}
	for _, t := range s.drift {
		host, _, _ := strings.Cut(t.Image, "/")
		counts[metrics.Drift{Upstream: a.entry(host), Kind: t.Kind}]++
	}
	return counts
}

// heldTags are the tags in use that pulls got with another digest than the registry's, when they were last looked through.
func (a *App) heldTags() []admin.HeldTag {
	if s := a.lastSurvey.Load(); s != nil {
		return s.held
	}
	return nil
}

// uses are the pods and workloads that name each tag. notes say what could not be read.
func (a *App) uses(ctx context.Context) (by map[oci.Ref][]string, notes []string, err error) {
	if a.cluster.client == nil {
		return nil, nil, nil
	}
	places, notes, err := a.places(ctx)
	if err != nil {
		return nil, nil, err
	}
	by = make(map[oci.Ref][]string)
	for _, p := range places {
		by[p.Ref] = append(by[p.Ref], p.Name)
	}
	return by, notes, nil
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

// places are the pods and workloads of the cluster with the images that they name by tag. notes say what could not be read.
func (a *App) places(ctx context.Context) (places []drift.Place, notes []string, err error) {
	if a.cluster.client == nil {
		return nil, []string{"pods were not read: set kubernetes.events or kubernetes.feed to true, so that the mirror reads the cluster's pods"}, nil
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
			add(drift.Place{Name: w.Namespace + "/" + w.Kind + "/" + w.Name, Idle: w.Idle}, image)
		}
	}
	if len(refused) > 0 {
		notes = append(notes, "workloads without pods were not read: the mirror may not list "+strings.Join(refused, ", ")+
			"; deploy/kubernetes/events.yaml has that right")
	}
	return places, notes, nil
}
