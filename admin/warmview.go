package admin

import (
	"time"

	"github.com/registrymirror/mirror/diagnose"
	"github.com/registrymirror/mirror/warm"
)

// WarmRequest is the body of POST /api/v1/warm and of POST /api/v1/warm/verify.
type WarmRequest struct {
	Images    []string `json:"images"`
	Platforms []string `json:"platforms,omitempty"` // absent: those of the configuration
	Keep      string   `json:"keep,omitempty"`      // how long the content is kept from eviction, as in 72h or 7d; absent: warm.keep
	With      []string `json:"with,omitempty"`      // what else is fetched: signatures, referrers
	MaxSize   int64    `json:"maxSize,omitempty"`   // bytes that the job may have; absent: warm.maxBytes alone counts
}

// WarmJob is a job: the answer to POST /api/v1/warm and GET /api/v1/warm/{id}, and the data of its events.
type WarmJob struct {
	ID          string     `json:"id"`
	State       warm.State `json:"state"`
	Name        string     `json:"name,omitempty"` // of the schedule or feed that has asked for it; absent: a request
	Platforms   []string   `json:"platforms,omitempty"`
	With        []string   `json:"with,omitempty"`
	Keep        string     `json:"keep,omitempty"`
	BytesDone   int64      `json:"bytesDone"`
	BytesTotal  int64      `json:"bytesTotal"`  // as far as it is known: it grows while manifests are read
	BytesCached int64      `json:"bytesCached"` // of the total, what was in the cache before
	CreatedAt   time.Time  `json:"createdAt"`
	StartedAt   time.Time  `json:"startedAt,omitzero"`
	FinishedAt  time.Time  `json:"finishedAt,omitzero"`
	// WaitingFor says why nothing moves; absent: it moves, or it has ended.
	WaitingFor *WarmWaiting `json:"waitingFor,omitempty"`
	// Counts has how many images are in each state; a state without images is absent.
	Counts map[string]int64 `json:"counts"`
	Images []WarmImage      `json:"images,omitempty"` // absent in lists
	// Partial says that Images has only the images that have changed since the last event of the stream, 100 at most.
	Partial bool `json:"partial,omitempty"`
	// Continue is the parameter for the next page of Images, where pages are asked for; absent: there is none.
	Continue string `json:"continue,omitempty"`
}

// WarmWaiting is why a job waits.
type WarmWaiting struct {
	Code  string    `json:"code"`
	Text  string    `json:"text"`
	Until time.Time `json:"until,omitzero"` // absent: it is not known
}

// WarmImage is an image of a job.
type WarmImage struct {
	Image       string       `json:"image"`
	State       warm.State   `json:"state"`
	Digest      string       `json:"digest,omitempty"`
	Platforms   []string     `json:"platforms,omitempty"` // that were asked for and that it has
	BytesDone   int64        `json:"bytesDone"`
	BytesTotal  int64        `json:"bytesTotal"`
	BytesCached int64        `json:"bytesCached"`
	Complete    bool         `json:"complete"`           // all that nodes of these platforms pull is in the cache
	KeptUntil   time.Time    `json:"keptUntil,omitzero"` // absent: it may be evicted
	Failure     *WarmFailure `json:"failure,omitempty"`
}

// WarmFailure is why an image is not in the cache.
type WarmFailure struct {
	ID      string          `json:"id,omitempty"` // as in failures; absent: nothing is recorded there
	Reason  diagnose.Reason `json:"reason"`
	Class   diagnose.Class  `json:"class"`
	Summary string          `json:"summary"`
	Remedy  string          `json:"remedy"`
}

// WarmJobList is the body of GET /api/v1/warm: the jobs without their images, the latest first.
type WarmJobList struct {
	Jobs []WarmJob `json:"jobs"`
	// Continue is the parameter for the next page; absent: this is the last one.
	Continue string `json:"continue,omitempty"`
}

// WarmPlan is the answer to POST /api/v1/warm?dryRun=true: what a job would fetch.
type WarmPlan struct {
	Images       []WarmPlanned `json:"images"`
	Bytes        int64         `json:"bytes"` // of all images; what they share counts once
	BytesCached  int64         `json:"bytesCached"`
	BytesMissing int64         `json:"bytesMissing"`
	Requests     int           `json:"requests"` // for manifests
	Fits         bool          `json:"fits"`
	Text         string        `json:"text,omitempty"` // why it does not fit, with the numbers
	Limits       []WarmLimit   `json:"limits"`         // of the registries that have said one
}

// WarmPlanned is an image of a plan.
type WarmPlanned struct {
	Image       string       `json:"image"`
	Digest      string       `json:"digest,omitempty"`
	Platforms   []string     `json:"platforms,omitempty"`
	Bytes       int64        `json:"bytes"`
	BytesCached int64        `json:"bytesCached"`
	BytesShared int64        `json:"bytesShared"`          // with other images of the plan
	Requests    int          `json:"requests"`             // for manifests that are not in the cache yet
	WaitingFor  *WarmWaiting `json:"waitingFor,omitempty"` // why its manifests can't be had now
	Failure     *WarmFailure `json:"failure,omitempty"`
}

// WarmLimit is what a job costs of a registry's limit.
type WarmLimit struct {
	Upstream  string    `json:"upstream"`
	Requests  int       `json:"requests"`          // of the job, that count against the limit
	Remaining int64     `json:"remaining"`         // that warm-up may make now
	ResetAt   time.Time `json:"resetAt,omitzero"`  // when there are more
	EnoughAt  time.Time `json:"enoughAt,omitzero"` // when there are enough for the job; absent: it is not known
}

// WarmVerified is the answer to POST /api/v1/warm/verify.
type WarmVerified struct {
	Complete bool        `json:"complete"` // all images are
	Images   []WarmImage `json:"images"`
}

// viewJob is a job as the API shows it. full says whether its images are shown.
func viewJob(j warm.Job, full bool) WarmJob {
	v := WarmJob{
		ID: j.ID, State: j.State, Name: j.Name, Platforms: j.Platforms, With: j.With, Keep: j.Keep.String(), BytesDone: j.BytesDone,
		BytesTotal: j.BytesTotal, BytesCached: j.BytesCached, CreatedAt: j.CreatedAt.UTC(), StartedAt: j.StartedAt.UTC(), FinishedAt: j.FinishedAt.UTC(),
		WaitingFor: viewWaiting(j.Waiting), Counts: make(map[string]int64),
	}
	for _, i := range j.Images {
		v.Counts[string(i.State)]++
	}
	if full {
		v.Images = viewImages(j.Images)
	}
	return v
}

func viewImages(list []warm.Image) []WarmImage {
	views := make([]WarmImage, len(list)) // never nil: it is a list in JSON
	for i, x := range list {
		views[i] = WarmImage{
			Image: x.Image, State: x.State, Digest: x.Digest.String(), Platforms: x.Platforms, BytesDone: x.BytesDone, BytesTotal: x.BytesTotal,
			BytesCached: x.BytesCached, Complete: x.Complete, KeptUntil: x.KeptUntil.UTC(), Failure: viewWarmFailure(x.Failure),
		}
	}
	return views
}

func viewWarmFailure(f *warm.Failure) *WarmFailure {
	if f == nil {
		return nil
	}
	return &WarmFailure{ID: f.ID, Reason: f.Reason, Class: f.Class, Summary: f.Summary, Remedy: f.Remedy}
}

// viewPlan is a plan as the API shows it.
func viewPlan(p warm.Plan) WarmPlan {
	v := WarmPlan{
		Images: make([]WarmPlanned, len(p.Images)), Bytes: p.Bytes, BytesCached: p.BytesCached, BytesMissing: p.BytesMissing,
		Requests: p.Requests, Fits: p.Fits, Text: p.Why, Limits: []WarmLimit{},
	}
	for i, x := range p.Images {
		v.Images[i] = WarmPlanned{
			Image: x.Image, Digest: x.Digest.String(), Platforms: x.Platforms, Bytes: x.Bytes, BytesCached: x.BytesCached,
			BytesShared: x.BytesShared, Requests: x.Requests, WaitingFor: viewWaiting(x.Waiting), Failure: viewWarmFailure(x.Failure),
		}
	}
	for _, c := range p.Upstreams {
		if c.Known {
			v.Limits = append(v.Limits, WarmLimit{
				Upstream: c.Upstream, Requests: c.Requests, Remaining: c.Remaining, ResetAt: c.ResetAt.UTC(), EnoughAt: c.EnoughAt.UTC(),
			})
		}
	}
	return v
}

func viewWaiting(w *warm.Waiting) *WarmWaiting {
	if w == nil {
		return nil
	}
	return &WarmWaiting{Code: w.Code, Text: w.Text, Until: w.Until.UTC()}
}
