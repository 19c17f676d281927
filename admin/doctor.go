package admin

import (
	"context"
	"errors"
	"fmt"
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

// maxExaminations is how many images are examined at once: each may keep a connection to an upstream for a minute.
const maxExaminations = 4

// examinations are the running examinations. A second request for one of them waits for its result.
type examinations struct {
	examine func(ctx context.Context, image, platform string) *doctor.Report

	mu      sync.Mutex // guards running; a leaf
	running map[DoctorRequest]*examination
}

type examination struct {
	waiting int // requests; guarded by the lock of examinations
	stop    context.CancelFunc
	done    chan struct{}
	report  *doctor.Report // set once done
}

// examineImage answers with the report of an examination.
func (x *examinations) examineImage(_ http.ResponseWriter, r *http.Request) (any, error) {
	var q DoctorRequest
	if err := readJSON(r, &q); err != nil || q.Image == "" {
		return nil, badRequest(errors.New("the body must be {\"image\":\"NAME\"}, with \"platform\":\"OS/ARCH\" where that matters"))
	}
	e := x.join(q)
	if e == nil {
		return nil, busy(fmt.Sprintf("%d images are being examined; ask again in a moment", maxExaminations))
	}
	defer x.leave(e)
	select {
	case <-e.done:
		return e.report, nil
	case <-r.Context().Done():
		return nil, errGone
	}
}

// join returns the running examination of an image, or a new one. Nil: too many run.
func (x *examinations) join(q DoctorRequest) *examination {
	x.mu.Lock()
	defer x.mu.Unlock()
	if e := x.running[q]; e != nil {
		e.waiting++
		return e
	}
	if len(x.running) >= maxExaminations {
		return nil
	}
	// It belongs to all requests that wait for it, and ends with the last of them.
	ctx, stop := context.WithCancel(context.Background())
	e := &examination{waiting: 1, stop: stop, done: make(chan struct{})}
	x.running[q] = e
	go func() {
		defer stop()
		report := x.examine(ctx, q.Image, q.Platform)
		x.mu.Lock()
		defer x.mu.Unlock()
		delete(x.running, q)
		e.report = report
		close(e.done)
	}()
	return e
}

// leave ends an examination that no request waits for.
func (x *examinations) leave(e *examination) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if e.waiting--; e.waiting == 0 {
		e.stop()
	}
}
