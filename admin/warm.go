package admin

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/registrymirror/mirror/access"
	"github.com/registrymirror/mirror/warm"
	"github.com/registrymirror/mirror/warm/images"
)

// Warmer runs jobs that fetch images ahead of time. *warm.Engine is the real one. All methods are safe for concurrent use.
type Warmer interface {
	// Plan returns what a request would fetch; it asks registries for manifests. Verify reads, without a registry, which images
	// are whole in the cache. The errors of both are those of Submit.
	Plan(ctx context.Context, r warm.Request) (warm.Plan, error)
	Verify(ctx context.Context, r warm.Request) ([]warm.Image, error)
	// Submit makes a job, or returns the one that was made with the same key. The error may be a *warm.InvalidError, a
	// *warm.QuotaError or a *warm.KeyUsedError.
	Submit(r warm.Request) (job warm.Job, created bool, err error)
	// Job returns a job, Jobs all of them. Cancel ends a job, and does nothing to one that has ended. The error is
	// warm.ErrUnknown.
	Job(id string) (warm.Job, error)
	Jobs() []warm.Job
	Cancel(id string) error
	// Watch yields the state of a job now and after each change, the last one when it has ended. A slow reader misses states in
	// between.
	Watch(ctx context.Context, id string) iter.Seq2[warm.Job, error]
}

const (
	// maxManifests is how many bytes of manifests are read, one body at a time: reading them takes many times their memory.
	maxManifests = 8 << 20
	// maxNames is how many bytes of JSON are read.
	maxNames    = 4 << 20
	maxProblems = 50 // that an answer names
)

// warming are the handlers of jobs.
type warming struct {
	o       *Options
	turn    chan struct{} // its one place is taken by the manifests that are being read
	streams chan struct{} // its places are taken by the streams of events
	feeds   feeds
}

func newWarming(o *Options) *warming {
	return &warming{
		o: o, turn: make(chan struct{}, 1), streams: make(chan struct{}, MaxStreams),
		feeds: feeds{warmer: o.Warm, byID: make(map[string]*feed)},
	}
}

// submit makes a job, or with dryRun the plan of one.
func (x *warming) submit(w http.ResponseWriter, r *http.Request) (any, error) {
	q := r.URL.Query()
	request, err := x.request(w, r, q, "dryRun")
	if err != nil {
		return nil, err
	}
	if err := x.o.allowed(r, access.Operate, request.Images...); err != nil {
		return nil, err
	}
	request.Fresh = true // a rollout follows: an image that was pushed a moment ago is meant
	if dry, err := flag(q, "dryRun"); err != nil {
		return nil, badRequest(err)
	} else if dry {
		plan, err := x.o.Warm.Plan(r.Context(), request)
		if err != nil {
			return nil, refusedWarm(err)
		}
		return viewPlan(plan), nil
	}
	request.Key = r.Header.Get("Idempotency-Key")
	if c := callerOf(r); request.Key != "" && !c.seesAll() {
		request.Key = c.name + ": " + request.Key // that of another operator's job is none of theirs
	}
	job, created, err := x.o.Warm.Submit(request)
	if err != nil {
		return nil, refusedWarm(err)
	}
	if created {
		audit(r, x.o.Log, "warm-up requested", "id", job.ID, "count", len(job.Images))
	}
	w.Header().Set("Location", "/api/v1/warm/"+job.ID)
	return accepted{viewJob(job, true)}, nil
}

// verify says which images are whole in the cache.
func (x *warming) verify(w http.ResponseWriter, r *http.Request) (any, error) {
	request, err := x.request(w, r, r.URL.Query())
	if err != nil {
		return nil, err
	}
	if err := x.o.allowed(r, access.Read, request.Images...); err != nil {
		return nil, err
	}
	list, err := x.o.Warm.Verify(r.Context(), request)
	if err != nil {
		return nil, refusedWarm(err)
	}
	body := WarmVerified{Complete: true, Images: viewImages(list)}
	for _, i := range list {
		body.Complete = body.Complete && i.Complete
	}
	return body, nil
}

// warmParameters are those of a query. They win over the body, since manifests have no place for them.
var warmParameters = []string{"platforms", "keep", "with", "maxSize"}

// request reads the body and the query of a request. others are further parameters that the query may have.
func (x *warming) request(w http.ResponseWriter, r *http.Request, q url.Values, others ...string) (request warm.Request, err error) {
	known := append(others, warmParameters...)
	for name := range q {
		if !slices.Contains(known, name) {
			return request, badRequest(fmt.Errorf("unknown parameter %q; the parameters are %s", name, strings.Join(known, ", ")))
		}
	}
	body, err := x.body(w, r)
	if err != nil {
		return request, err
	}
	if q.Has("platforms") {
		body.Platforms = words(q["platforms"])
	}
	if q.Has("with") {
		body.With = words(q["with"])
	}
	if q.Has("keep") {
		body.Keep = q.Get("keep")
	}
	if q.Has("maxSize") {
		if body.MaxSize, err = strconv.ParseInt(q.Get("maxSize"), 10, 64); err != nil {
			return request, badRequest(fmt.Errorf("maxSize=%s: must be a number of bytes", q.Get("maxSize")))
		}
		if body.MaxSize <= 0 {
			return request, badRequest(errNoSize)
		}
	}
	request = warm.Request{Images: body.Images, Platforms: body.Platforms, With: body.With, MaxSize: body.MaxSize}
	if body.Keep != "" || q.Has("keep") {
		if request.Keep, err = KeepTime(body.Keep); err != nil {
			return request, badRequest(fmt.Errorf("keep=%s: %w", body.Keep, err))
		}
	}
	return request, nil
}

// errNoSize says that a request has no size to fetch into.
var errNoSize = errors.New("maxSize must be more than 0; leave it out for the setting warm.maxBytes")

// KeepTime reads how long content is kept.
func KeepTime(text string) (time.Duration, error) {
	d, err := Duration(text)
	if err == nil && d == 0 {
		err = errors.New("must be more than 0; leave it out for the setting warm.keep")
	}
	return d, err
}

// words are those of a parameter that may be repeated, and may have several, with commas.
func words(values []string) []string { return strings.Split(strings.Join(values, ","), ",") }

// body reads the body of a request: JSON, or manifests and lists.
func (x *warming) body(w http.ResponseWriter, r *http.Request) (body WarmRequest, err error) {
	if err := unencoded(r, "body"); err != nil {
		return body, err
	}
	t, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	isJSON, limit := t == "" || t == "application/json", int64(maxNames)
	if !isJSON {
		limit = maxManifests
		end, err := turnToRead(r, x.turn, "other manifests are being read; send these again in a moment")
		if err != nil {
			return body, err
		}
		defer end()
	}
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(textTime)) // HTTP/1.1 has it
	all, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	_, long := errors.AsType[*http.MaxBytesError](err)
	switch {
	case long:
		return body, &refusal{status: http.StatusRequestEntityTooLarge, detail: fmt.Sprintf("the body is longer than %d MiB; send it in parts, "+
			"or use mirror warm, which reads files by itself", limit>>20)}
	case r.Context().Err() != nil:
		return body, errGone
	case err != nil:
		return body, badRequest(fmt.Errorf("the body did not arrive whole within %s; send it again", textTime))
	}
	if !isJSON {
		return manifests(all)
	}
	// What is there must count: zero, or an empty text, would be taken for the default.
	asked := struct {
		*WarmRequest
		Keep    *string `json:"keep"`
		MaxSize *int64  `json:"maxSize"`
	}{WarmRequest: &body}
	if err := decodeJSON(all, &asked); err != nil {
		return body, badRequest(fmt.Errorf(`the body must be {"images":["docker.io/library/nginx:1.27"]}: %w; send manifests, in JSON too, with Content-Type: application/yaml`, err))
	}
	if asked.Keep != nil {
		if body.Keep = *asked.Keep; body.Keep == "" {
			return body, badRequest(errors.New("keep is empty; leave it out for the setting warm.keep"))
		}
	}
	if asked.MaxSize != nil {
		if body.MaxSize = *asked.MaxSize; body.MaxSize <= 0 {
			return body, badRequest(errNoSize)
		}
	}
	return body, nil
}

// manifests are the images of manifests and lists. A part that can't be read refuses all of it: the request may be what a rollout
// waits for, and a program has sent it.
func manifests(all []byte) (body WarmRequest, err error) {
	result := images.Read("body", bytes.NewReader(all), images.Options{})
	if len(result.Problems) > 0 {
		var problems []string
		for _, p := range result.Problems {
			problems = append(problems, p.String())
		}
		return body, &refusal{status: http.StatusBadRequest, detail: "parts of the body can't be read; nothing is fetched", problems: firstOf(problems, maxProblems)}
	}
	for _, found := range result.Images {
		body.Images = append(body.Images, found.Image)
	}
	if len(body.Images) == 0 {
		return body, badRequest(errors.New("no image was found in the body"))
	}
	return body, nil
}

// refusedWarm is the answer to an error of a Warmer.
func refusedWarm(err error) error {
	var (
		invalid *warm.InvalidError
		quota   *warm.QuotaError
		used    *warm.KeyUsedError
	)
	switch {
	case errors.As(err, &invalid):
		problems := strings.Split(err.Error(), "\n")
		return &refusal{status: http.StatusBadRequest, detail: "entries of the request are wrong; nothing is fetched", problems: firstOf(problems, maxProblems)}
	case errors.As(err, &quota):
		return &refusal{status: http.StatusTooManyRequests, detail: err.Error(), retryAfter: 60}
	case errors.As(err, &used):
		return &refusal{status: http.StatusUnprocessableEntity, detail: err.Error()}
	case errors.Is(err, context.Canceled):
		return errGone
	}
	return err
}

// jobs lists the jobs, the latest first.
func (x *warming) jobs(_ http.ResponseWriter, r *http.Request) (any, error) {
	p, err := pageOf(r.URL.Query(), maxPage)
	if err != nil {
		return nil, badRequest(err)
	}
	jobs := x.o.Warm.Jobs()
	if c := callerOf(r); !c.seesAll() {
		jobs = slices.DeleteFunc(slices.Clone(jobs), func(j warm.Job) bool { return !x.sees(r, j) })
	}
	list, next := cut(p, jobs, func(j warm.Job) string { return latestFirst(j.CreatedAt, j.ID) })
	body := WarmJobList{Jobs: make([]WarmJob, len(list)), Continue: next}
	for i, j := range list {
		body.Jobs[i] = viewJob(j, false)
	}
	return body, nil
}

// sees reports whether the caller of a request sees a job: all of its images.
func (x *warming) sees(r *http.Request, j warm.Job) bool {
	return x.o.allowed(r, access.Read, namesOf(j)...) == nil
}

func namesOf(j warm.Job) []string {
	names := make([]string, len(j.Images))
	for i, image := range j.Images {
		names[i] = image.Image
	}
	return names
}

// find returns the job of a request. The error is the same for a job that the caller does not see as for one that does not exist.
func (x *warming) find(r *http.Request) (warm.Job, error) {
	job, err := x.o.Warm.Job(chi.URLParam(r, "id"))
	if err == nil && !x.sees(r, job) {
		err = warm.ErrUnknown
	}
	if err != nil {
		return warm.Job{}, noJob(r, err)
	}
	return job, nil
}

// job answers with one job: with all of its images, or with a page of them. A job of 10,000 images has some 3 MB.
func (x *warming) job(_ http.ResponseWriter, r *http.Request) (any, error) {
	p, err := pageOf(r.URL.Query(), math.MaxInt)
	if err != nil {
		return nil, badRequest(err)
	}
	job, err := x.find(r)
	if err != nil {
		return nil, err
	}
	place := 0 // in the order of the request, which no state of the job changes
	list, next := cut(p, job.Images, func(warm.Image) string {
		place++
		return fmt.Sprintf("%08d", place)
	})
	body := viewJob(job, false)
	body.Images, body.Continue = viewImages(list), next
	return body, nil
}

// noJob is the answer to an error about the job of a request.
func noJob(r *http.Request, err error) error {
	if errors.Is(err, warm.ErrUnknown) {
		return &refusal{status: http.StatusNotFound, detail: fmt.Sprintf("there is no job %s; mirror warm ls lists the jobs", quote(chi.URLParam(r, "id")))}
	}
	return err
}

// cancel ends a job.
func (x *warming) cancel(_ http.ResponseWriter, r *http.Request) (any, error) {
	id := chi.URLParam(r, "id")
	job, err := x.find(r)
	if err != nil {
		return nil, err
	}
	if err := x.o.allowed(r, access.Operate, namesOf(job)...); err != nil {
		return nil, err
	}
	if err := x.o.Warm.Cancel(id); err != nil {
		return nil, noJob(r, err)
	}
	audit(r, x.o.Log, "warm-up cancelled", "id", id)
	return noContent, nil
}
