package admin

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"sync"

	"github.com/registrymirror/mirror/diagnose/doctor"
)

// DoctorRequest is the body of POST /api/v1/doctor. The answer is a doctor.Report, with status 200 also where the image
// can't be pulled.
type DoctorRequest struct {
	Image    string `json:"image"`
	Platform string `json:"platform,omitempty"` // OS/ARCH[/VARIANT]; absent: that of the mirror's machine
}

const (
	// maxExaminations is how many images are examined at once: each may keep a connection to an upstream for a minute.
	maxExaminations = 4
	maxDoctorBody   = 16 << 10
)

// examinations are those that go on. Who asks for one of them gets its outcome.
type examinations struct {
	examine func(ctx context.Context, image, platform string) *doctor.Report

	mu sync.Mutex // guards m; a leaf
	m  map[DoctorRequest]*examination
}

type examination struct {
	waiting int // guarded by the lock of examinations
	stop    context.CancelFunc
	done    chan struct{}
	report  *doctor.Report // once done
}

// examine answers with what an examination has shown.
func examine(f func(ctx context.Context, image, platform string) *doctor.Report) http.HandlerFunc {
	x := &examinations{examine: f, m: make(map[DoctorRequest]*examination)}
	return func(w http.ResponseWriter, r *http.Request) {
		var q DoctorRequest
		body := json.NewDecoder(io.LimitReader(r.Body, maxDoctorBody))
		body.DisallowUnknownFields()
		if err := body.Decode(&q); err != nil || q.Image == "" {
			Problem(w, http.StatusBadRequest, "the body must be {\"image\":\"NAME\"}, with \"platform\":\"OS/ARCH\" where that "+
				"matters")
			return
		}
		e := x.join(q)
		if e == nil {
			w.Header().Set("Retry-After", "10")
			Problem(w, http.StatusServiceUnavailable, fmt.Sprintf("%d images are being examined; ask again in a moment",
				maxExaminations))
			return
		}
		defer x.leave(e)
		select {
		case <-e.done:
			writeJSON(w, e.report)
		case <-r.Context().Done():
		}
	}
}

// join gives the examination of an image: the one that goes on, or a new one. Nil: there are too many.
func (x *examinations) join(q DoctorRequest) *examination {
	x.mu.Lock()
	defer x.mu.Unlock()
	if e := x.m[q]; e != nil {
		e.waiting++
		return e
	}
	if len(x.m) >= maxExaminations {
		return nil
	}
	// It belongs to all who wait for it, and ends with the last of them.
	ctx, stop := context.WithCancel(context.Background())
	e := &examination{waiting: 1, stop: stop, done: make(chan struct{})}
	x.m[q] = e
	go func() {
		defer stop()
		report := x.examine(ctx, q.Image, q.Platform)
		x.mu.Lock()
		defer x.mu.Unlock()
		delete(x.m, q)
		e.report = report
		close(e.done)
	}()
	return e
}

// leave ends an examination that nobody waits for.
func (x *examinations) leave(e *examination) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if e.waiting--; e.waiting == 0 {
		e.stop()
	}
}
